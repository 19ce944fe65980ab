"""The MixCycleGAN command: data -> networks -> loop -> evaluation, on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mixgan.data.domains import Domains
from mixgan.engine.accelerator import main_first, on_main
from mixgan.engine.config import to_json
from mixgan.engine.fingerprint import describe_tensors
from mixgan.engine.run import Run
from mixgan.engine.run_folder import save_weights
from mixgan.gan.config import GanSettings, settings_from
from mixgan.gan.data import DomainBatch, DomainLoader, fetch, test_domains, training_domains
from mixgan.gan.evaluation import Health, TestSet, collapse_warnings, test_features
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights
from mixgan.gan.report import sample_path, training_grid, translation_grid, write_report
from mixgan.gan.weights import write_model_card

#: Losses on the progress bar; metrics.jsonl and the report have all values.
ON_PROGRESS_BAR = ("G_A", "G_B", "D_A", "D_B", "cycle_A", "cycle_B")


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
    training, domains = training_domains(settings), test_domains(settings)
    loader = DomainLoader(
        training,
        size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    model = build_model(settings, accelerator)
    schedules = [decay(optimizer, loader, settings) for optimizer in (model.optimizer_g, model.optimizer_d)]
    run.register_for_checkpointing("schedule_g", schedules[0])
    run.register_for_checkpointing("schedule_d", schedules[1])
    run.register_for_checkpointing("pool_a", model.pool_a, own=True)
    run.register_for_checkpointing("pool_b", model.pool_b, own=True)
    if model.average:
        run.register_for_checkpointing("average", model.average)
    extractor = main_first(
        accelerator, lambda: test_features(settings.dataset, settings.features, settings.inception_weights)
    )
    run.print(extractor.note)
    test = TestSet(domains, extractor, accelerator, batch_size=settings.batch_size)
    health = Health(run.print)
    data = {"train": training, "test": domains}
    run.begin(loader.steps_per_epoch, data=lambda: {name: describe_tensors(d.a, d.b) for name, d in data.items()})
    if settings.eval_at_start and run.step == 0:
        evaluate(run, model, test, domains)

    def evaluation_is_due() -> bool:
        return run.at_end or bool(settings.eval_every and run.step % settings.eval_every == 0)

    def keep_best(fid_a_to_b: float, fid_b_to_a: float) -> None:
        mean = (fid_a_to_b + fid_b_to_a) / 2
        run.track_best("mean of fid_AtoB and fid_BtoA", mean, higher_is_better=False)

    metrics = None
    if run.just_resumed and evaluation_is_due():
        a_to_b, b_to_a = run.recorded("fid_AtoB"), run.recorded("fid_BtoA")
        if a_to_b is None or b_to_a is None:  # a kill came before the evaluation was recorded
            metrics = evaluate(run, model, test, domains)
            a_to_b, b_to_a = metrics["fid_AtoB"], metrics["fid_BtoA"]
        keep_best(a_to_b, b_to_a)
    for batch in run.batches(loader, description=f"{settings.mixing} on {settings.dataset}"):
        logs = model.step(*batch)
        if accelerator.sync_gradients:
            rate = schedules[0].get_last_lr()[0]
            for schedule in schedules:
                schedule.step()
            images = len(batch.a) * settings.accumulation_steps
            run.end_step({**logs, "lr": rate}, images=images, shown=ON_PROGRESS_BAR)
            if run.step % settings.log_every == 0:
                health.after_log(run.step, logs)
            if evaluation_is_due():
                metrics = evaluate(run, model, test, domains)
                health.after_evaluation(metrics)
                keep_best(metrics["fid_AtoB"], metrics["fid_BtoA"])
    return finish(run, settings, model, metrics or measure(model, test), next(loader.epoch(0)))


def build_model(settings: GanSettings, accelerator: Accelerator) -> MixCycleGAN:
    """CycleGAN's four networks, with random weights, and the method that trains them.

    Raises:
        ValueError: fp16 where there is no GPU.
    """
    width, blocks, checkpointing = settings.width, settings.blocks, settings.gradient_checkpointing
    generators = [ResnetGenerator(width=width, blocks=blocks, gradient_checkpointing=checkpointing) for _ in range(2)]
    for generator in generators:
        init_weights(generator)
    discriminators = [PatchDiscriminator(width=width) for _ in range(2)]
    for discriminator in discriminators:
        init_weights(discriminator)
    if settings.compile:
        for network in (*generators, *discriminators):
            network.compile()
    return MixCycleGAN(
        *generators,
        *discriminators,
        accelerator=accelerator,
        mixing=settings.mixing,
        alpha=settings.alpha,
        d_alpha=settings.d_alpha,
        shared_lambda=settings.shared_lambda,
        h_prob=settings.h_prob,
        unstitched=settings.unstitched,
        d_term=settings.d_term,
        gan_loss=settings.gan_loss,
        cycle_weight=settings.cycle_weight,
        identity_weight=settings.identity_weight,
        consistency_weight=settings.consistency_weight,
        pool_size=settings.pool_size,
        seed=settings.seed,
        ema=settings.ema,
        lr=settings.lr,
    )


def decay(optimizer: Optimizer, loader: DomainLoader, settings: GanSettings) -> LambdaLR:
    """CycleGAN's schedule, changed at the end of an epoch: constant, then linear towards 0.

    Not handed to the Accelerator, which would step it once per process.
    """
    per_epoch = loader.steps_per_epoch // settings.accumulation_steps
    constant = int(settings.epochs * settings.constant_share + 0.5)  # half up: a single epoch has the full rate
    falling = settings.epochs - constant
    return LambdaLR(optimizer, lambda step: 1.0 - max(0, step // max(1, per_epoch) + 1 - constant) / (falling + 1))


def measure(model: MixCycleGAN, test: TestSet) -> dict[str, Any]:
    """All metrics of the generators as they are now, and which weights they are of."""
    return {**test.metrics(model.eval_generators), "weights": "ema" if model.average else "plain"}


def evaluate(run: Run, model: MixCycleGAN, test: TestSet, domains: Domains) -> dict[str, Any]:
    """Metrics into metrics.jsonl, and a grid of translations into samples/."""
    average = ", moving average of the weights" if model.average else ""
    with run.pause():
        metrics = measure(model, test)
        run.record({"epoch": run.epoch, **metrics})
        if run.accelerator.is_main_process and not run.settings.dry_run:
            title = f"{model.mixing}, step {run.step}{average}"
            translation_grid(model.eval_generators, domains, run.accelerator, title=title).save(sample_path(run))
    keys = [key for key in ("fid_AtoB", "fid_BtoA", "rmse_AtoB", "rmse_BtoA") if key in metrics]
    values = "  ".join(f"{key} {metrics[key]:.2f}" for key in keys)
    run.print(f"step {run.step} ({metrics['features']} features{average}): {values}")
    return metrics


def finish(
    run: Run, settings: GanSettings, model: MixCycleGAN, metrics: dict[str, Any], batch: DomainBatch
) -> dict[str, Any]:
    """Weights, a picture of the training inputs, summary and report."""
    summary = {"mixing": model.mixing, "dataset": settings.dataset, "seed": settings.seed, **run.speed(), **metrics}
    if warnings := collapse_warnings(metrics):
        summary["warnings"] = [*summary.get("warnings", ()), *warnings]
    if settings.dry_run:
        run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    else:
        on_main(run.accelerator, lambda: save_networks(run.folder.weights, settings, model))
        on_main(run.accelerator, lambda: write_model_card(run.folder.weights, to_json(settings), summary))
        if run.accelerator.is_main_process:
            training_grid(model, batch, title="Inputs of one training step").save(run.folder.samples / "training.png")
        run.write_summary(summary)
        on_main(run.accelerator, lambda: write_report(run, settings, summary))
        run.print(f"Report: {run.folder.report}")
    run.finish()
    return summary


def save_networks(folder: Path, settings: GanSettings, model: MixCycleGAN) -> None:
    """G_A, G_B, D_A, D_B and, where there are averages, G_A_ema, G_B_ema; metadata says how to build each network."""
    files = {**dict(model.generators.named_children()), **dict(model.discriminators.named_children())}
    if model.average:
        files |= {f"{name}_ema": network for name, network in model.average.network.named_children()}
    for name, network in files.items():
        metadata: dict[str, Any] = {"role": "discriminator", "name": name, "width": settings.width}
        if name.startswith("G_"):
            direction = "AtoB" if name.startswith("G_A") else "BtoA"
            metadata |= {"role": "generator", "blocks": settings.blocks, "direction": direction}
        if name.endswith("_ema"):
            metadata["ema"] = settings.ema
        save_weights(folder / f"{name}.safetensors", network, metadata)
