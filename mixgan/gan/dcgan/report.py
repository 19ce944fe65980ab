"""report.html of a DCGAN run."""

import dataclasses
from typing import Any

from mixgan.engine.run import Run
from mixgan.engine.run_folder import read_metrics
from mixgan.evaluate.features import distance_name
from mixgan.gan.report import add_curves
from mixgan.report.page import Page

ROWS = {
    "fid": "Frechet distance",
    "kid": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "diversity": "distance between two images (RMSE, 0..255)",
    "diversity_real": "distance between two real images",
}
#: title -> label of the y axis and names in metrics.jsonl
CURVES = {
    "Losses": ("loss", ("G", "D")),
    "Discriminator's answers": ("1 = real", ("D_real", "D_fake", "D_mixed")),
    "Gradient norms": ("norm", ("grad_G", "grad_D")),
}
#: the same for what is measured at evaluations
OVER_EVALUATIONS = {
    "Frechet distance": ("distance", ("fid",)),
    "Precision and recall": ("share", ("precision", "recall")),
}


def write_report(run: Run, summary: dict[str, Any]) -> None:
    """One page: figures, samples, curves, settings."""
    settings = run.settings
    records = read_metrics(run.folder.metrics)
    page = Page(f"DCGAN, {settings.mixing}, on {settings.dataset}", f"{settings.image_size} px, seed {settings.seed}")
    counts = f"{summary['n_fake']} generated against {summary['n_real']} test images"
    page.warning(f"{distance_name(summary['features'])}: {counts}.")
    for text in summary.get("warnings", ()):
        page.warning(text)
    page.table("Result", result_rows(summary, records))
    if settings.ema:
        page.text("", f"Figures and samples are of a moving average of the generator's weights (decay {settings.ema}).")
    samples = sorted(run.folder.samples.glob("step-*.png"))
    if samples:
        page.figure("Generated images", samples[-1])
    if len(samples) > 1:
        page.figure("The same noise at the first evaluation", samples[0])
    training = run.folder.samples / "training.png"
    if training.is_file():
        page.figure("What the discriminator sees in a training step", training)
    add_curves(page, records, CURVES, OVER_EVALUATIONS)
    page.table("Run", {key: summary[key] for key in ("steps", "epochs", "images_per_second", "seconds")})
    page.table("Settings", {key: str(value) for key, value in dataclasses.asdict(settings).items()})
    page.write(run.folder.report)


def result_rows(summary: dict[str, Any], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per figure, with the untrained generator's where it was evaluated."""
    start = next((r for r in records if r["step"] == 0 and "fid" in r), None)
    rows = []
    for key, title in ROWS.items():
        if summary.get(key) is not None:
            untrained = {"untrained": start[key]} if start else {}
            rows.append({"": title, "trained": summary[key], **untrained})
    return rows
