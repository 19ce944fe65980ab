"""The page of a comparison: every metric with its protocol, samples, neighbours, a map of both sets, the worst pairs."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from mixgan.engine.run_folder import VERSIONED, version
from mixgan.evaluate.command import metric_rows
from mixgan.evaluate.comparison import Comparison
from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.neighbours import nearest
from mixgan.evaluate.sources import FolderSource
from mixgan.ops.transforms import resize
from mixgan.report.grid import image_grid
from mixgan.report.page import Page
from mixgan.report.plots import scatter_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 128
SHOWN = 8
LISTED = 20
SCATTERED = 1000


def write_page(path: Path, result: Comparison) -> None:
    """A self-contained HTML file about a comparison."""
    found = result.evidence
    if found is None:
        raise ValueError("a page needs the evidence of a comparison")
    page = Page("Evaluation of generated images", f"{result.fake} against {result.real}")
    for text in result.warnings:
        page.warning(text)
    page.table("Metrics", [{"metric": name, "value": value, "how": how} for name, value, how in metric_rows(result)])
    page.text("Protocol", _protocol(result))
    folders = [side if isinstance(side, FolderSource) else None for side in (found.real_side, found.fake_side)]
    real, fake = folders
    if real or fake:
        rows = {
            name: _pictures(source, features.indices[_spread(len(features.indices), SHOWN)])
            for name, source, features in (("real", real, found.real), ("generated", fake, found.fake))
            if source and features.indices is not None
        }
        grid = image_grid([*rows.values()], row_labels=[*rows])
        page.figure("Samples", grid, "Evenly spread over each set, not chosen; all shown as squares.")
    if real and fake and found.pairs:
        worst = found.pairs.worst_first()
        pairs, rmse = found.pairs.pairs[worst].tolist(), found.pairs.rmse[worst].tolist()
        grid = image_grid(
            [_pictures(source, [pair[side] for pair in pairs[:SHOWN]]) for side, source in enumerate((real, fake))],
            row_labels=("real", "generated"),
            column_labels=[f"{value:.1f}" for value in rmse[:SHOWN]],
        )
        page.figure("Worst pairs", grid, "Farthest apart first, by RMSE (0..255).")
        names = [
            {"real": _name(real, a), "generated": _name(fake, b), "RMSE": c}
            for (a, b), c in zip(pairs, rmse, strict=True)
        ]
        page.table("", names[:LISTED])
    if real and fake:
        page.figure("Nearest real images", *_neighbours(found.real, found.fake, real, fake))
    if found.real.features is not None and found.fake.features is not None:
        scatter = _scatter(found.real.features, found.fake.features, result.features)
        page.figure("Both sets in feature space", scatter, "First two principal components of both sets together.")
    command = shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    # Pillow decodes and resizes, and pytorch-fid has the network, so they can move a distance as torch can.
    versions = {name: version(name) or "not installed" for name in (*VERSIONED, "pillow", "pytorch-fid")}
    page.table("Run", {"command": command, "seconds": result.seconds, **versions})
    page.write(path)


def _protocol(result: Comparison) -> str:
    samples = [
        f"{kept} of {n} {name} images"
        for name, kept, n in (("real", result.kept_real, result.n_real), ("generated", result.kept_fake, result.n_fake))
        if kept not in (None, n)
    ]
    kept = f" What needs single features (kept features) is of a random sample: {' and '.join(samples)}."
    return (
        f"{_sentence(result.note)} Weights sha256 {result.weights_sha256[:16]}. {_sentence(result.preprocessing)}"
        f" Means and covariances in float64 over all images.{kept if samples else ''}\n\n"
        "The Frechet distance depends on the number of images, the resizing and the features: compare only distances for"
        " which all three are the same."
    )


def _neighbours(
    real: FeatureSet, fake: FeatureSet, real_source: FolderSource, fake_source: FolderSource
) -> tuple[Image.Image, str]:
    """Some generated images, each with the real images nearest to it: copies of training images would show here."""
    assert real.features is not None and real.indices is not None  # noqa: PT018 - folders are measured
    assert fake.features is not None and fake.indices is not None  # noqa: PT018
    queries = _spread(len(fake.features), SHOWN)
    count = min(3, len(real.features))
    distances, found = nearest(fake.features[queries.to(fake.features.device)], real.features, k=count)
    positions = real.indices.to(found.device)[found]
    rows = [_pictures(fake_source, fake.indices[queries.to(fake.indices.device)])]
    rows += [_pictures(real_source, positions[:, rank]) for rank in range(count)]
    grid = image_grid(
        rows,
        row_labels=["generated", *("nearest", "second", "third")[:count]],
        column_labels=[f"{distance:.3g}" for distance in distances[:, 0].tolist()],
    )
    return grid, (
        "The real images nearest to some generated ones in feature space, with the distance to the nearest above. Distances near"
        " 0 would mean copies, if the real images are those the generator was trained on."
    )


def _scatter(real: Tensor, fake: Tensor, name: str) -> "Figure":
    parts = real.cpu().double(), fake.cpu().double()
    together = torch.cat(parts)
    mean = together.mean(0)
    axes = torch.linalg.eigh((together - mean).T @ (together - mean)).eigenvectors[:, [-1, -2]]
    sets = {}
    for side, part in zip(("real", "generated"), parts, strict=True):
        points = (part[_spread(len(part), SCATTERED)] - mean) @ axes
        sets[side] = (points[:, 0].tolist(), points[:, 1].tolist())
    return scatter_plot(sets, title=f"{name} features", x_label="first component", y_label="second component")


def _spread(count: int, shown: int) -> Tensor:
    """Up to ``shown`` positions below ``count``, evenly apart; the kept features are a random sample in order of position."""
    return torch.linspace(0, count - 1, min(count, shown)).round().long()


def _pictures(source: FolderSource, positions: Tensor | list[int]) -> Tensor:
    """(N,3,CELL,CELL) uint8."""
    positions = positions.tolist() if isinstance(positions, Tensor) else positions
    return torch.cat([resize(image[None], CELL, antialias=True) for image in source.read(positions)])


def _name(source: FolderSource, position: int) -> str:
    return source.files[position].relative_to(source.folder).as_posix()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
