"""report.html of a MixCycleGAN run, and its pictures: translations of test images, and what the networks train on."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
from mixgan.report.grid import image_grid
from mixgan.report.page import Page
from mixgan.report.plots import line_plot, series_from_records

ROWS = {
    "fd": "Frechet distance",
    "kid": "kernel distance",
    "rmse": "RMSE (0..255)",
    "rmse_gcgan": "RMSE, GcGAN's convention",
    "acc5": "pixels within 5",
    "acc10": "pixels within 10",
    "ssim": "SSIM",
    "diversity": "distance between two outputs (RMSE, 0..255)",
    "diversity_real": "distance between two real images",
    "luminance_correlation": "correlation of light and dark, input and output",
}

#: Images of each domain on a grid.
GRID_IMAGES = 4

Curves = Mapping[str, tuple[str, Sequence[str]]]
#: title -> label of the y axis and names in metrics.jsonl, logged every few steps
CURVES = {
    "Adversarial losses": ("loss", ("G_A", "G_B", "D_A", "D_B")),
    "Cycle and identity losses": ("loss", ("cycle_A", "cycle_B", "idt_A", "idt_B")),
    "Mean logits of the discriminators": (
        "1 = real",
        [f"{d}_{images}" for d in ("D_A", "D_B") for images in ("real", "fake", "mixed")],
    ),
    "Gradient norms": ("norm", ("grad_G", "grad_D")),
}
#: the same for what is measured at evaluations
OVER_EVALUATIONS = {
    "Frechet distance": ("distance", ("fd_AtoB", "fd_BtoA")),
    "Distance between two outputs": ("RMSE, 0..255", ("diversity_AtoB", "diversity_BtoA")),
}


def write_report(run: Run, settings: GanSettings, summary: dict[str, Any]) -> None:
    """report.html: metrics, samples, curves, settings."""
    ways = directions(settings.domain_names)
    note = " ".join(
        f"{way}: quality of the generated {way.rpartition(' to ')[2]} images ({key})." for key, way in ways.items()
    )
    if settings.ema:
        note += f" Metrics and translations are of a moving average of the generators' weights (decay {settings.ema})."
    folder = shlex.quote(str(settings.output_dir or run.folder.path))
    command = Markup("<code>mixgan translate {} INPUT_DIR OUTPUT_DIR</code>").format(folder)
    use = (
        Markup("Translate a folder of images with these weights, {}: {}").format(ways["AtoB"], command),
        Markup('{}: add <code>--direction BtoA</code>. <a href="weights/last/README.md">Model card</a>').format(
            ways["BtoA"]
        ),
    )
    write_page(
        run,
        summary,
        settings=settings,
        rows=partial(result_rows, names=settings.domain_names),
        note=note,
        samples={"Translations of test images": -1},
        use=use,
        best=run.best["step"] if run.best else None,
        curves=CURVES,
        over_evaluations=OVER_EVALUATIONS,
        data=" and ".join(settings.domain_names) if settings.dataset == "folders" else "",
        ways=ways,
    )


def write_page(
    run: Run,
    summary: dict[str, Any],
    *,
    settings: GanSettings | DcganSettings,
    rows: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], list[dict[str, Any]]],
    note: str,
    samples: Mapping[str, int],
    curves: Curves,
    over_evaluations: Curves,
    title: str = "",
    data: str = "",
    ways: Mapping[str, str] = MappingProxyType({}),
    use: Sequence[Markup] = (),
    best: int | None = None,
) -> None:
    """The page of a GAN's run.

    Args:
        rows: summary and records of metrics.jsonl -> the table of results.
        note: below it.
        samples: headings, and which of the sample grids (0 for the first, -1 for the last) is shown below.
        use: how to use the weights.
        best: step of the best weights; its sample grid is shown beside the last one.
        curves, over_evaluations: title -> label of the y axis and names in metrics.jsonl; logged every few steps, or measured.
        title: comes before the mixing.
        data: what the images are called, where that is not the data set's name.
        ways: what the directions at the end of the names of measured metrics are called.
    """
    records = read_metrics(run.folder.metrics)
    page = Page(
        f"{title}{settings.mixing} on {data or settings.dataset}", f"{settings.image_size} px, seed {settings.seed}"
    )
    counts = f"{summary['n_fake']} generated against {summary['n_real']} real images"
    spaces = {distance_name(summary): (summary, records)}
    for name, one in summary.get("others", {}).items():
        spaces[distance_name(one)] = one, [record | record.get("others", {}).get(name, {}) for record in records]
    for distance in spaces:
        published = not distance.startswith("FD (")
        page.warning(f"{distance}: {counts}" + ("." if published else "; not comparable with published FID."))
    for text in summary.get("warnings", ()):
        page.warning(text)
    for distance, (one, own) in spaces.items():
        page.table(f"Result, {distance}" if len(spaces) > 1 else "Result", rows(one, own))
    if note:
        page.text("", note)
    if use:
        page.markup("Use", *use)
    grids, training = sorted(run.folder.samples.glob("step-*.png")), run.folder.samples / "training.png"
    shown: dict[Path, str] = {}
    for heading, index in samples.items():
        if grids:
            shown.setdefault(grids[index], heading)
    if training.is_file():
        shown[training] = "What the networks see in a training step"
    best_grid = run.folder.samples / f"step-{best or 0:08d}.png"
    for path, heading in shown.items():
        beside = best is not None and path == grids[-1] != best_grid and best_grid.is_file()
        page.figure(heading, path, caption="The last weights." if beside else "")
        if beside:
            page.figure("", best_grid, caption=f"The best weights, of step {best}.")
    smooth = max(1, len(records) // 50)
    heading = "Curves"
    for name, (y_label, names) in {**curves, **over_evaluations}.items():
        for distance, (one, own) in spaces.items():
            first, curve = one is summary, name in curves
            found = series_from_records(own, [key for key in names if first or (key in one and not curve)])
            series = {ways.get(metric.rpartition("_")[2], metric): points for metric, points in found.items()}
            if any(len(x) >= (1 if curve else 2) for x, _ in series.values()):
                text = name if first else f"{name}, {distance}"
                smoothed = smooth if curve else 1
                page.figure(heading, line_plot(series, title=text, x_label="step", y_label=y_label, smooth=smoothed))
                heading = ""
    keys = ("steps", "epochs", "images_per_second", "seconds")
    page.table("Run", {key.replace("_", " "): summary[key] for key in keys})
    page.settings(by_flag(to_json(settings), every=True))
    page.write(run.folder.report)


def result_rows(
    summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]] = (), *, names: tuple[str, str] = ("photo", "map")
) -> list[dict[str, Any]]:
    """One row per metric: both directions, and the untrained networks' where they were evaluated (older runs measured less)."""
    ways = directions(names)
    start = next((record for record in records if record["step"] == 0 and "fd_AtoB" in record), None)
    columns = [("", summary)] if start is None else [("", summary), ("untrained ", start)]
    return [
        {"": title}
        | {when + name: values.get(f"{key}_{way}") for when, values in columns for way, name in ways.items()}
        for key, title in ROWS.items()
        if f"{key}_AtoB" in summary
    ]


@torch.no_grad()
def translation_grid(
    generators: nn.Module,
    domains: Domains,
    accelerator: Accelerator,
    *,
    title: str,
    names: tuple[str, str] = ("photo", "map"),
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
    labels = [way.replace(" to ", " → ") for way in directions(names).values() for _ in range(count)]
    return image_grid(_rows(a_to_b, b_to_a), row_labels=labels, column_labels=columns, title=title)


@torch.no_grad()
def training_grid(
    model: MixCycleGAN, batch: DomainBatch, *, title: str, names: tuple[str, str] = ("A", "B")
) -> Image.Image:
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
    labels = [way.replace(" to ", " → ") for way in directions(names).values() for _ in a]
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
