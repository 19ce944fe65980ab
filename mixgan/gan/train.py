"""The MixCycleGAN command: data -> networks -> prepare -> loop -> evaluation, on one page."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mixgan.data.maps import Domains
from mixgan.engine.accelerator import on_main
from mixgan.engine.command_line import to_json
from mixgan.engine.run import Run
from mixgan.engine.weights import save_weights
from mixgan.evaluate.processes import main_first
from mixgan.gan.data import DomainFeed, fetch, test_domains, training_domains
from mixgan.gan.diversity import WatchedGenerators
from mixgan.gan.evaluation import TestSet, test_features
from mixgan.gan.health import Health, collapse_warnings
from mixgan.gan.model_card import write_model_card
from mixgan.gan.report import sample_path, write_report
from mixgan.gan.samples import training_grid, translation_grid
from mixgan.gan.settings import GanSettings, settings_from
from mixgan.gan.step import MixCycleGan

#: Losses on the progress bar; metrics.jsonl and the report have all values.
SHOWN = ("G_A", "G_B", "D_A", "D_B", "cycle_A", "cycle_B")


def main(argv: Sequence[str]) -> None:
    """Train one MixCycleGAN as the command line says."""
    train(settings_from(argv))


def train(settings: GanSettings) -> dict[str, Any]:
    """One training run; returns its summary.

    Raises:
        ValueError: wrong settings, missing data, a folder that cannot be used.
    """
    run = Run.start(settings, recipe="mixcyclegan_maps")
    accelerator = run.accelerator
    on_main(accelerator, lambda: fetch(settings))
    feed = training_feed(settings, run)
    domains = test_domains(settings)
    model = MixCycleGan(settings, accelerator)
    schedules = [decay(opt, feed, settings) for opt in (model.optimizer_g, model.optimizer_d)]
    model.prepare()
    for name, schedule in zip(("schedule_g", "schedule_d"), schedules, strict=True):
        run.remember(name, schedule)
    run.remember("pool_a", model.pool_a, own=True)
    run.remember("pool_b", model.pool_b, own=True)
    if model.average:
        run.remember("average", model.average)
    features = settings.dataset, settings.features, settings.inception_weights
    extractor = main_first(accelerator, lambda: test_features(*features))
    run.say(extractor.note)
    test = TestSet(domains, extractor, accelerator, batch_size=settings.batch_size)
    health = Health(run.say)
    run.begin(feed.steps_per_epoch)
    if settings.eval_at_start and run.step == 0:
        evaluate(run, model, test, domains)

    figures = None
    for batch in run.batches(feed, description=f"{settings.mixing} on {settings.dataset}"):
        logs = model.step(batch)
        if accelerator.sync_gradients:
            rate = schedules[0].get_last_lr()[0]
            for schedule in schedules:
                schedule.step()
            run.end_step({**logs, "lr": rate}, images=len(batch.a) * settings.accumulation_steps, shown=SHOWN)
            if run.step % settings.log_every == 0:
                health.after_log(run.step, logs)
            if run.at_end or (settings.eval_every and run.step % settings.eval_every == 0):
                figures = evaluate(run, model, test, domains)
                health.after_evaluation(figures)
                mean_distance = (figures["fid_AtoB"] + figures["fid_BtoA"]) / 2
                run.watch("mean of fid_AtoB and fid_BtoA", mean_distance, higher_is_better=False)
    return finish(run, model, figures or measure(model, test), feed)


def training_feed(settings: GanSettings, run: Run) -> DomainFeed:
    """Unpaired batches for this process."""
    accelerator = run.accelerator
    return DomainFeed(
        training_domains(settings),
        size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )


def decay(optimizer: Optimizer, feed: DomainFeed, settings: GanSettings) -> LambdaLR:
    """CycleGAN's schedule, changed at the end of an epoch: constant, then linear towards 0.

    Not handed to the Accelerator, which would step it once per process.
    """
    per_epoch = feed.steps_per_epoch // settings.accumulation_steps
    constant = int(settings.epochs * settings.constant_share + 0.5)  # half up: a single epoch has the full rate
    falling = settings.epochs - constant
    return LambdaLR(optimizer, lambda step: 1.0 - max(0, step // max(1, per_epoch) + 1 - constant) / (falling + 1))


def measure(model: MixCycleGan, test: TestSet) -> dict[str, Any]:
    """All figures of the generators as they are now, and which weights they are of."""
    watched = WatchedGenerators(model.shown_generators, size=model.settings.image_size)
    figures = test.figures(watched)
    return {**figures, **watched.figures(model.accelerator), "weights": "ema" if model.average else "plain"}


def evaluate(run: Run, model: MixCycleGan, test: TestSet, domains: Domains) -> dict[str, Any]:
    """Figures into metrics.jsonl, and a grid of translations into samples/."""
    average = ", moving average of the weights" if model.average else ""
    with run.pause():
        figures = measure(model, test)
        run.record({"epoch": run.epoch, **figures})
        if run.accelerator.is_main_process and not run.settings.dry_run:
            title = f"{run.settings.mixing}, step {run.step}{average}"
            translation_grid(model.shown_generators, domains, run.accelerator, title=title).save(sample_path(run))
    shown = [
        f"{key} {figures[key]:.2f}" for key in ("fid_AtoB", "fid_BtoA", "rmse_AtoB", "rmse_BtoA") if key in figures
    ]
    run.say(f"step {run.step} ({figures['features']} features{average}): {'  '.join(shown)}")
    return figures


def finish(run: Run, model: MixCycleGan, figures: dict[str, Any], feed: DomainFeed) -> dict[str, Any]:
    """Weights, a picture of the training inputs, summary and report."""
    settings = run.settings
    summary = {"mixing": settings.mixing, "dataset": settings.dataset, "seed": settings.seed, **run.speed(), **figures}
    if troubles := collapse_warnings(figures):
        summary["warnings"] = [*summary.get("warnings", ()), *troubles]
    if settings.dry_run:
        run.say("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    else:
        on_main(run.accelerator, lambda: save_networks(run, model))
        on_main(run.accelerator, lambda: write_model_card(run.folder.weights, to_json(settings), summary))
        if run.accelerator.is_main_process:
            first = next(feed.epoch(0))
            training_grid(model, first, title="Inputs of one training step").save(run.folder.samples / "training.png")
        run.write_summary(summary)
        on_main(run.accelerator, lambda: write_report(run, summary))
        run.say(f"Report: {run.folder.report}")
    run.finish()
    return summary


def save_networks(run: Run, model: MixCycleGan) -> None:
    """weights/G_A, G_B, D_A, D_B and, where there are averages, G_A_ema, G_B_ema, each saying how to build its network."""
    settings = run.settings
    files = {**dict(model.generators.named_children()), **dict(model.discriminators.named_children())}
    if model.average:
        files |= {f"{name}_ema": network for name, network in model.average.network.named_children()}
    for name, network in files.items():
        about: dict[str, Any] = {"role": "discriminator", "name": name, "width": settings.width}
        if name.startswith("G_"):
            direction = "AtoB" if name.startswith("G_A") else "BtoA"
            about |= {"role": "generator", "blocks": settings.blocks, "direction": direction}
        if name.endswith("_ema"):
            about["ema"] = settings.ema
        save_weights(run.folder.weights / f"{name}.safetensors", network, about)
