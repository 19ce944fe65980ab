"""report.html of a GAN's run, and a MixCycleGAN's pictures: translations of test images, and what the networks train on."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from markupsafe import Markup
from PIL import Image
from torch import Tensor, nn

from mixgan.data.domains import Domains
from mixgan.engine.config import by_flag, to_json
from mixgan.engine.run import Run
from mixgan.engine.run_folder import distance_name, read_metrics
from mixgan.gan.config import DcganSettings, GanSettings, directions
from mixgan.gan.data import DomainBatch
from mixgan.gan.evaluation import rgb_bytes
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.ops.transforms import to_signed
from mixgan.report.page import Page
from mixgan.report.plots import image_grid, line_plot, series_from_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "fd": "Frechet distance",
    "kid": "kernel distance",
    "rmse": "RMSE (0..255)",
    "rmse_gcgan": "RMSE, GcGAN's convention",
    "acc5": "pixels within 5",
    "acc10": "pixels within 10",
    "ssim": "SSIM",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "diversity": "distance between two outputs (RMSE, 0..255)",
    "diversity_real": "distance between two real images",
    "luminance_correlation": "correlation of light and dark, input and output",
}

#: Images of each domain on a grid.
GRID_IMAGES = 4

#: title -> label of the y axis and names in metrics.jsonl, logged every few steps; a run has those of its own losses
CURVES: dict[str, tuple[str, Sequence[str]]] = {
    "Adversarial losses": ("loss", ("G_A", "G_B", "D_A", "D_B")),
    "Cycle and identity losses": ("loss", ("cycle_A", "cycle_B", "idt_A", "idt_B")),
    "Losses": ("loss", ("G", "D")),
    "Mean logits of the discriminators": (
        "1 = real",
        [f"{d}_{images}" for d in ("D_A", "D_B", "D") for images in ("real", "fake", "mixed")],
    ),
    "Gradient norms": ("norm", ("grad_G", "grad_D")),
}
#: the same for what is measured at evaluations
OVER_EVALUATIONS: dict[str, tuple[str, Sequence[str]]] = {
    "Frechet distance": ("distance", ("fd_AtoB", "fd_BtoA", "fd")),
    "Distance between two outputs": ("RMSE, 0..255", ("diversity_AtoB", "diversity_BtoA")),
    "Precision, recall": ("share", ("precision", "recall")),
}


def write_report(run: Run, settings: GanSettings | DcganSettings, summary: dict[str, Any]) -> None:
    """report.html of a run of MixCycleGAN or DCGAN: metrics, samples, curves, settings."""
    records = read_metrics(run.folder.metrics)
    spaces = {distance_name(summary): (summary, records)}
    for name, one in summary.get("others", {}).items():
        spaces[distance_name(one)] = one, [record | record.get("others", {}).get(name, {}) for record in records]
    if isinstance(settings, GanSettings):
        names = settings.domain_names
        ways, data = directions(names), " and ".join(names) if settings.dataset == "folders" else settings.dataset
        title, best = f"{settings.mixing} on {data}", run.best["step"] if run.best else None
        headings = {"Translations of test images": -1}
        generated = {"AtoB": names[1], "BtoA": names[0]}
        note = " ".join(
            f"{way}: quality of the generated {generated[key]} images ({key})." for key, way in ways.items()
        )
        averaged = "translations are of a moving average of the generators'"
    else:
        ways, title, best = {}, f"DCGAN, {settings.mixing} on {settings.dataset}", None
        headings = {"Generated images": -1, "The same noise at the first evaluation": 0}
        note, averaged = "", "samples are of a moving average of the generator's"
    if settings.ema:
        note += f" Metrics and {averaged} weights (decay {settings.ema})."

    page = Page(title, f"{settings.image_size} px, seed {settings.seed}")
    counts = f"{summary['n_fake']} generated against {summary['n_real']} real images"
    for distance in spaces:
        published = not distance.startswith("FD (")
        page.warning(f"{distance}: {counts}" + ("." if published else "; not comparable with published FID."))
    for text in summary.get("warnings", ()):
        page.warning(text)
    for distance, (one, own) in spaces.items():
        page.table(f"Result, {distance}" if len(spaces) > 1 else "Result", result_rows(one, own, ways=ways))
    if note:
        page.text("", note.strip())
    if ways:
        folder = str(settings.output_dir or run.folder.path)
        command = Markup("<code>mixgan translate {} INPUT_DIR OUTPUT_DIR</code>").format(shlex.quote(folder))
        card = Markup('<a href="weights/last/README.md">Model card</a>')
        page.markup(
            "Use",
            Markup("Translate a folder of images with these weights, {}: {}").format(ways["AtoB"], command),
            Markup("{}: add <code>--direction BtoA</code>. {}").format(ways["BtoA"], card),
        )
    add_pictures(page, run.folder.samples, headings, best)
    for index, plot in enumerate(curves(spaces, ways)):
        page.figure("" if index else "Curves", plot)
    keys = ("steps", "epochs", "images_per_second", "seconds")
    page.table("Run", {key.replace("_", " "): summary[key] for key in keys})
    page.settings(by_flag(to_json(settings), every=True))
    page.write(run.folder.report)


def result_rows(
    summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = (), *, ways: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row per metric, and a column per direction; also the untrained networks' where they were evaluated.

    Args:
        records: of metrics.jsonl; those of older runs measured less.
        ways: what the directions are called, by the ends of the metrics' names; DCGAN has none.
    """
    columns = {f"_{way}": (name, f"untrained {name}") for way, name in ways.items()} or {"": ("trained", "untrained")}
    first = next(iter(columns))
    start = next((record for record in records if record["step"] == 0 and f"fd{first}" in record), None)
    measured = [key for key in ROWS if (f"{key}_AtoB" in summary if ways else summary.get(key) is not None)]
    return [
        {"": ROWS[key]}
        | {now: summary.get(key + end) for end, (now, _) in columns.items()}
        | ({before: start.get(key + end) for end, (_, before) in columns.items()} if start else {})
        for key in measured
    ]


def add_pictures(page: Page, folder: Path, headings: Mapping[str, int], best: int | None) -> None:
    """The pictures of a run's samples/.

    Args:
        headings: and which of the evaluations' grids is shown below: 0 for the first, -1 for the last.
        best: step of the best weights, whose grid is shown beside the last one.
    """
    grids, training, best_grid = (
        sorted(folder.glob("step-*.png")),
        folder / "training.png",
        folder / f"step-{best or 0:08d}.png",
    )
    shown: dict[Path, str] = {}
    for heading, index in headings.items() if grids else ():
        shown.setdefault(grids[index], heading)
    if training.is_file():
        shown[training] = "What the networks see in a training step"
    for path, heading in shown.items():
        beside = best is not None and path == grids[-1] != best_grid and best_grid.is_file()
        page.figure(heading, path, caption="The last weights." if beside else "")
        if beside:
            page.figure("", best_grid, caption=f"The best weights, of step {best}.")


def curves(
    spaces: Mapping[str, tuple[Mapping[str, Any], Sequence[Any]]], ways: Mapping[str, str]
) -> Iterator["Figure"]:
    """What a run has of ``CURVES``, and of ``OVER_EVALUATIONS`` in every feature space.

    Args:
        spaces: by the name of the distance, the first one first: summary and records.
        ways: as in ``result_rows``.
    """
    first = next(iter(spaces))
    for name, (y_label, names) in CURVES.items():
        records = spaces[first][1]
        if series := series_from_records(records, names):
            yield line_plot(series, title=name, x_label="step", y_label=y_label, smooth=max(1, len(records) // 50))
    for name, (y_label, names) in OVER_EVALUATIONS.items():
        for distance, (one, records) in spaces.items():
            found = series_from_records(records, [key for key in names if distance == first or key in one])
            if any(len(x) > 1 for x, _ in found.values()):
                title = name if distance == first else f"{name}, {distance}"
                series = {ways.get(metric.rpartition("_")[2], metric): points for metric, points in found.items()}
                yield line_plot(series, title=title, x_label="step", y_label=y_label)


@torch.no_grad()
def translation_grid(
    generators: nn.Module, domains: Domains, accelerator: Accelerator, *, title: str, ways: Mapping[str, str]
) -> Image.Image:
    """Both ways for the first test images: input, fake, cycled back, identity, and the truth if paired."""
    count = min(len(domains.a), len(domains.b), GRID_IMAGES)
    a, b = (to_signed(torch.stack([*images[:count]]).to(accelerator.device)) for images in (domains.a, domains.b))
    with accelerator.autocast():
        fake_b, cycled_a, same_b, fake_a, cycled_b, same_a = generators(a, b)
    columns = ["input", "fake", "cycled back"]
    a_to_b, b_to_a = [a, fake_b, cycled_a], [b, fake_a, cycled_b]
    if same_a is not None:  # else the domains have unequal numbers of channels
        columns.append("identity")
        a_to_b.append(same_a)
        b_to_a.append(same_b)
    if domains.paired:
        columns.append("real pair")
        a_to_b.append(b)
        b_to_a.append(a)
    labels = [way.replace(" to ", " → ") for way in ways.values() for _ in range(count)]
    return image_grid(_rows(a_to_b, b_to_a), row_labels=labels, column_labels=columns, title=title)


@torch.no_grad()
def training_grid(model: MixCycleGAN, batch: DomainBatch, *, title: str, ways: Mapping[str, str]) -> Image.Image:
    """What the networks see in a step: both draws, the generator's input, its output, and the discriminator's mix.

    Lambda is set to values that show something (0.35 to 0.65), not drawn.
    """
    a, b, a_second, b_second = (images[:GRID_IMAGES] for images in batch)
    lam = torch.linspace(0.35, 0.65, len(a), device=a.device)
    inputs = model.stitch(a, b, a_second, b_second, lam=lam)
    with model.accelerator.autocast():
        fake_b, cycled_a, _, fake_a, cycled_b, _ = model.generators(inputs.a, inputs.b)
    columns = ["first draw", "second draw", "generator input", "fake", "cycled back"]
    a_to_b = [a, a_second, inputs.a, fake_b, cycled_a]
    b_to_a = [b, b_second, inputs.b, fake_a, cycled_b]
    labels = [way.replace(" to ", " → ") for way in ways.values() for _ in a]
    if model.d_mixer and inputs.plan_d_a and inputs.plan_d_b:
        how = "real | fake along a cut" if model.mixing == "stitch-d" else "lam · real + (1 − lam) · fake"
        columns.append(f"discriminator input: {how}")
        a_to_b.append(model.d_mixer.mix_images(inputs.b, inputs.plan_d_a, others=fake_b.float()))
        b_to_a.append(model.d_mixer.mix_images(inputs.a, inputs.plan_d_b, others=fake_a.float()))
        labels = [f"{label}, lam {share:.2f}" for label, share in zip(labels, [*lam.tolist()] * 2, strict=True)]
    return image_grid(_rows(a_to_b, b_to_a), row_labels=labels, column_labels=columns, title=title)


def _rows(*ways: list[Tensor]) -> list[Tensor]:
    """For each direction columns (B,C,S,S) in [-1,1] -> B rows (len(columns),3,S,S) uint8; the directions' rows in turn."""
    return [row for columns in ways for row in torch.stack([rgb_bytes(column) for column in columns], 1).cpu()]
