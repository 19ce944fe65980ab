"""The page of a comparison: every metric with its protocol, samples, neighbours, a map of both sets, the worst pairs."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from mixgan.engine.run_folder import VERSIONED, version
from mixgan.evaluate.command import all_warnings, metric_rows, set_rows
from mixgan.evaluate.comparison import Comparison
from mixgan.evaluate.distances import nearest
from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.sources import FolderSource
from mixgan.ops.transforms import resize
from mixgan.report.page import Page
from mixgan.report.plots import bar_plot, image_grid, line_plot, scatter_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAVEAT = (
    "A Frechet distance depends on the number of images, the resizing and the features: compare only distances for which all"
    " three are the same."
)
NEAREST = (
    "The real images nearest to some generated ones in feature space, with the distance to the nearest above. Distances near"
    " 0 would mean copies, if the real images are those the generator was trained on."
)
CLOSEST = "The generated images nearest to a training image in feature space, nearest first, with the distance above."
CELL = 128
SHOWN = 8
LISTED = 20
SCATTERED = 1000


def write_page(path: Path, result: Comparison) -> None:
    """A self-contained HTML file about a comparison."""
    found = result.evidence
    if found is None:
        raise ValueError("a page needs the evidence of a comparison")
    fakes = f"{len(result.fakes)} generated sets" if result.fakes else result.fake
    page = Page("Evaluation of generated images", f"{fakes} against {result.real}")
    for text in all_warnings(result):
        page.warning(text)
    if result.fakes:
        _sets(page, result)
        page.text("", f"What follows is of {result.fake}.")
    spaces = [result, *result.others.values()]
    if result.others:
        page.table("Metrics in every feature space", _side_by_side(spaces))
    for one in spaces:
        heading = f"Metrics in {one.features} features" if result.others else "Metrics"
        page.table(heading, [{"metric": name, "value": value, "how": how} for name, value, how in metric_rows(one)])
    page.text("Protocol", "\n\n".join([*map(_protocol, spaces), CAVEAT]))
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
        worst = found.pairs.rmse.argsort(descending=True, stable=True)
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
        grid = _nearest_images(found.fake, fake, found.real, real, labels=("nearest", "second", "third"))
        page.figure("Nearest real images", grid, NEAREST)
    if fake and found.train is not None and isinstance(found.train_side, FolderSource):
        grid = _nearest_images(found.fake, fake, found.train, found.train_side, labels=("training",), closest=True)
        page.figure("Closest to training images", grid, CLOSEST)
    heading = "Both sets in feature space"
    for one in spaces:
        sets = one.evidence
        if sets is not None and sets.real.features is not None and sets.fake.features is not None:
            scatter = _scatter(sets.real.features, sets.fake.features, one.features)
            page.figure(heading, scatter, "First two principal components of both sets together.")
            heading = ""
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
    train = result.evidence.train_side if result.evidence else None
    training = f" Training images: {train.origin}." if train else ""
    kept = f" What needs single features (kept features) is of a random sample: {' and '.join(samples)}."
    return (
        f"{_sentence(result.note)} Weights sha256 {result.weights_sha256[:16]}. {_sentence(result.preprocessing)}"
        f" Real: {result.real_from}. Generated: {result.fake_from}.{training}"
        f" Means and covariances in float64 over all images.{kept if samples else ''}"
    )


def _side_by_side(spaces: list[Comparison]) -> list[dict[str, object]]:
    """A row for every metric, a column for every feature space, named by its distance."""
    columns: dict[str, dict[str, float]] = {}
    for one in spaces:
        named = {"Frechet distance" if name == one.distance else name: value for name, value, _ in metric_rows(one)}
        columns[one.distance] = named
    names = dict.fromkeys(name for values in columns.values() for name in values)
    return [{"metric": name} | {title: v[name] for title, v in columns.items() if name in v} for name in names]


def _sets(page: Page, result: Comparison) -> None:
    """The table of all generated sets, and their distances over the training step, or side by side where there is none."""
    heading = "Generated sets"
    for features in (result.features, *result.others):
        page.table(heading, set_rows(result, features))
        heading = ""
    heading = "Distances of all sets"
    for features in (result.features, *result.others):
        sets = [(name, one if one.features == features else one.others[features]) for name, one in result.fakes.items()]
        points = [(one.step, space.fd) for one, (_, space) in zip(result.fakes.values(), sets, strict=True)]
        distance = sets[0][1].distance
        stepped = sorted({(step, fd) for step, fd in points if step is not None and fd is not None})
        if len(stepped) > 1:
            series = {distance: ([float(step) for step, _ in stepped], [fd for _, fd in stepped])}
            page.figure(heading, line_plot(series, title=distance, x_label="training step", y_label="distance"))
        else:
            bars = {str(i + 1): space.fd for i, (_, space) in enumerate(sets) if space.fd is not None}
            label = "generated set, in the order of the table"
            page.figure(heading, bar_plot({distance: bars}, title=distance, x_label=label, y_label="distance"))
        heading = ""


def _nearest_images(
    fake: FeatureSet,
    fake_source: FolderSource,
    others: FeatureSet,
    source: FolderSource,
    *,
    labels: tuple[str, ...],
    closest: bool = False,
) -> Image.Image:
    """Some generated images, evenly spread or the closest ones, each with the images of another set nearest to it."""
    assert fake.features is not None and fake.indices is not None  # noqa: PT018 - folders are measured
    assert others.features is not None and others.indices is not None  # noqa: PT018
    distances, found = (
        x.cpu() for x in nearest(fake.features, others.features, k=min(len(labels), len(others.features)))
    )
    chosen = distances[:, 0].argsort(stable=True)[:SHOWN] if closest else _spread(len(distances), SHOWN)
    positions = others.indices.cpu()[found[chosen]]
    rows = [_pictures(fake_source, fake.indices.cpu()[chosen]), *(_pictures(source, column) for column in positions.T)]
    columns = [f"{distance:.3g}" for distance in distances[chosen, 0].tolist()]
    return image_grid(rows, row_labels=["generated", *labels[: len(rows) - 1]], column_labels=columns)


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
