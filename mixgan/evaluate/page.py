"""The page of an evaluation: every figure with its protocol, samples, neighbours, a map of both sets, the worst pairs."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mixgan.engine.run_folder import VERSIONED, version
from mixgan.evaluate.comparison import Evaluation, Figures
from mixgan.evaluate.neighbours import nearest
from mixgan.evaluate.sources import FolderSource
from mixgan.ops.transforms import resize
from mixgan.report.grid import image_grid
from mixgan.report.page import Page
from mixgan.report.plots import scatter_plot

CELL = 128
SHOWN = 8
LISTED = 20
SCATTERED = 1000

#: (key, name, how it is computed and which way is better)
ROWS = (
    (
        "kid",
        "kernel distance (KID)",
        "cubic kernel, 100 subsets of {kid_subset_size}; around 0 for equal sets, lower is better",
    ),
    ("precision", "precision", "k = 3, kept features; share of generated images among real ones"),
    ("recall", "recall", "k = 3, kept features; share of real images among generated ones"),
    ("density", "density", "k = 5, kept features; near 1 for equal sets"),
    ("coverage", "coverage", "k = 5, kept features; share of real images with a generated one near by"),
    (
        "inception_score",
        "Inception Score",
        "{features} classifier, 10 splits of the generated images; higher is better",
    ),
    ("rmse", "RMSE", "per channel, 0..255, mean over {n_pairs} pairs of one file name; lower is better"),
    ("rmse_gcgan", "RMSE, GcGAN's convention", "at 256 px, channels summed; lower is better"),
    ("acc5", "pixels within 5", "share of pixels with all channels closer than 5"),
    ("acc10", "pixels within 10", "share of pixels with all channels closer than 10"),
    ("psnr", "PSNR", "dB; higher is better"),
    ("ssim", "SSIM", "higher is better"),
)


def figure_rows(figures: Figures) -> list[dict[str, object]]:
    """One row per figure: its name, its value and how it was computed."""
    interval = ""
    if figures["fid_low"] is not None:
        interval = f", 95 % interval {figures['fid_low']:.4g} to {figures['fid_high']:.4g} by bootstrap"
    counts = f"{_count(figures['n_real'])} real, {_count(figures['n_fake'])} generated images"
    rows = [{"figure": figures["distance"], "value": figures["fid"], "how": f"{counts}{interval}; lower is better"}]
    for key, name, how in ROWS:
        if figures.get(key) is not None:
            spread = figures.get(f"{key}_std")
            about = how.format(**figures) + (f"; deviation {spread:.4g}" if spread is not None else "")
            rows.append({"figure": name, "value": figures[key], "how": about})
    return rows


def write_page(path: Path, evaluation: Evaluation) -> None:
    """A self-contained HTML file."""
    figures = evaluation.figures
    page = Page("Evaluation of generated images", f"{figures['fake']} against {figures['real']}")
    for text in figures["warnings"]:
        page.warning(text)
    page.table("Figures", figure_rows(figures))
    page.text("Protocol", _protocol(figures))
    if evaluation.real_source or evaluation.fake_source:
        page.figure("Samples", _samples(evaluation), "Evenly spread over each set, not chosen; all shown as squares.")
    if evaluation.pairs:
        page.figure("Worst pairs", _worst_pairs(evaluation), "Farthest apart first, by RMSE (0..255).")
        page.table("", _pair_rows(evaluation))
    if evaluation.real_source and evaluation.fake_source:
        page.figure("Nearest real images", *_neighbours(evaluation))
    if evaluation.real.features is not None and evaluation.fake.features is not None:
        page.figure(
            "Both sets in feature space", _scatter(evaluation), "First two principal components of both sets together."
        )
    page.table("Run", {"command": evaluation.command, "seconds": figures["seconds"], **_versions()})
    page.write(path)


def _protocol(figures: Figures) -> str:
    samples = [
        f"{figures[f'kept_{side}']} of {figures[f'n_{side}']} {name} images"
        for side, name in (("real", "real"), ("fake", "generated"))
        if figures[f"kept_{side}"] not in (None, figures[f"n_{side}"])
    ]
    kept = f" What needs the features themselves (kept features) is of a random sample: {' and '.join(samples)}."
    return (
        f"{_sentence(figures['note'])} Weights sha256 {figures['weights_sha256'][:16]}. {_sentence(figures['preprocessing'])}"
        f" Means and covariances in float64 over all images.{kept if samples else ''}\n\n"
        "The Frechet distance depends on the number of images, the resizing and the features: compare only figures for which"
        " all three are the same."
    )


def _samples(evaluation: Evaluation) -> Image.Image:
    rows = {}
    for name, one, source in (
        ("real", evaluation.real, evaluation.real_source),
        ("generated", evaluation.fake, evaluation.fake_source),
    ):
        if source:
            shown = _spread(len(one.indices), SHOWN)
            rows[name] = _same_size(source.read(one.indices[shown].tolist()))
    return image_grid([*rows.values()], row_labels=[*rows])


def _neighbours(evaluation: Evaluation) -> tuple[Image.Image, str]:
    """Some generated images, each with the real images nearest to it: copies of training images would show here."""
    real, fake = evaluation.real, evaluation.fake
    shown = _spread(len(fake.features), SHOWN).to(fake.features.device)
    count = min(3, len(real.features))
    distances, found = nearest(fake.features[shown], real.features, k=count)
    queries = evaluation.fake_source.read(fake.indices[shown].tolist())
    rows = [_same_size(queries)]
    for rank in range(count):
        rows.append(_same_size(evaluation.real_source.read(real.indices[found[:, rank]].tolist())))
    labels = ["generated", *("nearest", "second", "third")[:count]]
    texts = [f"{distance:.3g}" for distance in distances[:, 0].tolist()]
    caption = (
        "The real images nearest to some generated ones in feature space, with the distance to the nearest above. Distances near"
        " 0 would mean copies, if the real images are those the generator was trained on."
    )
    return image_grid(rows, row_labels=labels, column_labels=texts), caption


def _worst_pairs(evaluation: Evaluation) -> Image.Image:
    pairs = evaluation.pairs
    worst = pairs.worst_first()[:SHOWN]
    real, fake = (pairs.pairs[worst, side].tolist() for side in (0, 1))
    rows = [_same_size(evaluation.real_source.read(real)), _same_size(evaluation.fake_source.read(fake))]
    texts = [f"{value:.1f}" for value in pairs.rmse[worst].tolist()]
    return image_grid(rows, row_labels=("real", "generated"), column_labels=texts)


def _pair_rows(evaluation: Evaluation) -> list[dict[str, object]]:
    pairs = evaluation.pairs
    rows = []
    for position in pairs.worst_first()[:LISTED].tolist():
        real, fake = pairs.pairs[position].tolist()
        rows.append(
            {
                "real": _name(evaluation.real_source, real),
                "generated": _name(evaluation.fake_source, fake),
                "RMSE": float(pairs.rmse[position]),
            }
        )
    return rows


def _scatter(evaluation: Evaluation) -> Figure:
    sets = {}
    parts = [one.features.cpu().double() for one in (evaluation.real, evaluation.fake)]
    together = torch.cat(parts)
    mean = together.mean(0)
    axes = torch.linalg.eigh((together - mean).T @ (together - mean)).eigenvectors[:, [-1, -2]]
    for name, part in zip(("real", "generated"), parts, strict=True):
        points = (part[_spread(len(part), SCATTERED)] - mean) @ axes
        sets[name] = (points[:, 0].tolist(), points[:, 1].tolist())
    return scatter_plot(
        sets, title=f"{evaluation.figures['features']} features", x_label="first component", y_label="second component"
    )


def _spread(count: int, shown: int) -> Tensor:
    """Up to ``shown`` positions below ``count``, evenly apart; the kept features are a random sample in order of position."""
    return torch.linspace(0, count - 1, min(count, shown)).round().long()


def _same_size(images: list[Tensor]) -> Tensor:
    """(N,3,CELL,CELL) uint8."""
    return torch.cat([resize(image[None], CELL, antialias=True) for image in images])


def _name(source: FolderSource, position: int) -> str:
    return source.files[position].relative_to(source.folder).as_posix()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _versions() -> dict[str, str]:
    """Pillow decodes and resizes, and pytorch-fid has the network, so they can move a distance as torch can."""
    return {name: version(name) or "not installed" for name in (*VERSIONED, "pillow", "pytorch-fid")}


def _count(n: object) -> str:
    return "an unknown number of" if n is None else str(n)
