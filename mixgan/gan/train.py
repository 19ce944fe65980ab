"""Two ways in which GAN training goes wrong, each said in one line when it is first seen: collapse and saturation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mixgan.data.domains import Domains
from mixgan.engine.accelerator import main_first, on_main
from mixgan.engine.config import to_json
from mixgan.engine.run import Run
from mixgan.engine.run_folder import save_weights
from mixgan.gan.config import GanSettings, settings_from
from mixgan.gan.data import DomainLoader, fetch, test_domains, training_domains
from mixgan.gan.evaluation import TestSet, WatchedGenerators, test_features
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.report import sample_path, training_grid, translation_grid, write_report
from mixgan.gan.weights import write_model_card

#: Generated images count as collapsed below this share of the real ones' pairwise distance.
COLLAPSED = 0.1
#: A discriminator is saturated when its loss stays below this for that many steps.
LOW_LOSS = 0.01
LONG = 200


def collapse_warnings(figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each generator whose images of the test set are nearly all the same."""
    texts = []
    for way, name in (("AtoB", "G_A"), ("BtoA", "G_B")):
        made, real = figures[f"diversity_{way}"], figures[f"diversity_real_{way}"]
        if made < COLLAPSED * real:
            texts.append(
                f"{name} has collapsed: its images differ by {made:.1f} of 255 on average, real ones by {real:.1f}; "
                "a lower --lr or another --seed may help"
            )
    return texts


class Health:
    """Watches a run and tells each trouble once.

    Args:
        say: takes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._low_since: dict[str, int] = {}
        self._told: set[str] = set()

    def after_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Looks for collapse."""
        for text in collapse_warnings(figures):
            self._tell(text.partition(":")[0], text)

    def after_log(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Looks for saturation. Reads D_A and D_B from the device, so call it where the log has just done so anyway."""
        names = ("D_A", "D_B")
        for name, loss in zip(names, torch.stack([losses[name] for name in names]).tolist(), strict=True):
            if loss >= LOW_LOSS:
                self._low_since.pop(name, None)
            elif step - self._low_since.setdefault(name, step) >= LONG:
                self._tell(
                    name,
                    f"{name} is saturated: its loss has stayed below {LOW_LOSS} since step {self._low_since[name]}, so its "
                    "generator learns little from it; a lower --lr may help",
                )

    def _tell(self, trouble: str, text: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._say(f"warning: {text}")


# The MixCycleGAN command: data -> networks -> prepare -> loop -> evaluation, on one page.


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
    loader = training_loader(settings, run)
    domains = test_domains(settings)
    model = MixCycleGAN(settings, accelerator)
    schedules = [decay(opt, loader, settings) for opt in (model.optimizer_g, model.optimizer_d)]
    model.prepare()
    for name, schedule in zip(("schedule_g", "schedule_d"), schedules, strict=True):
        run.register_for_checkpointing(name, schedule)
    run.register_for_checkpointing("pool_a", model.pool_a, own=True)
    run.register_for_checkpointing("pool_b", model.pool_b, own=True)
    if model.average:
        run.register_for_checkpointing("average", model.average)
    features = settings.dataset, settings.features, settings.inception_weights
    extractor = main_first(accelerator, lambda: test_features(*features))
    run.print(extractor.note)
    test = TestSet(domains, extractor, accelerator, batch_size=settings.batch_size)
    health = Health(run.say)
    run.begin(loader.steps_per_epoch)
    if settings.eval_at_start and run.step == 0:
        evaluate(run, model, test, domains)

    figures = None
    for batch in run.batches(loader, description=f"{settings.mixing} on {settings.dataset}"):
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
                run.track_best("mean of fid_AtoB and fid_BtoA", mean_distance, higher_is_better=False)
    return finish(run, model, figures or measure(model, test), loader)


def training_loader(settings: GanSettings, run: Run) -> DomainLoader:
    """Unpaired batches for this process."""
    accelerator = run.accelerator
    return DomainLoader(
        training_domains(settings),
        size=settings.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
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
    """All figures of the generators as they are now, and which weights they are of."""
    watched = WatchedGenerators(model.shown_generators, size=model.settings.image_size)
    figures = test.figures(watched)
    return {**figures, **watched.figures(model.accelerator), "weights": "ema" if model.average else "plain"}


def evaluate(run: Run, model: MixCycleGAN, test: TestSet, domains: Domains) -> dict[str, Any]:
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
    run.print(f"step {run.step} ({figures['features']} features{average}): {'  '.join(shown)}")
    return figures


def finish(run: Run, model: MixCycleGAN, figures: dict[str, Any], loader: DomainLoader) -> dict[str, Any]:
    """Weights, a picture of the training inputs, summary and report."""
    settings = run.settings
    summary = {"mixing": settings.mixing, "dataset": settings.dataset, "seed": settings.seed, **run.speed(), **figures}
    if troubles := collapse_warnings(figures):
        summary["warnings"] = [*summary.get("warnings", ()), *troubles]
    if settings.dry_run:
        run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    else:
        on_main(run.accelerator, lambda: save_networks(run, model))
        on_main(run.accelerator, lambda: write_model_card(run.folder.weights, to_json(settings), summary))
        if run.accelerator.is_main_process:
            first = next(loader.epoch(0))
            training_grid(model, first, title="Inputs of one training step").save(run.folder.samples / "training.png")
        run.write_summary(summary)
        on_main(run.accelerator, lambda: write_report(run, summary))
        run.print(f"Report: {run.folder.report}")
    run.finish()
    return summary


def save_networks(run: Run, model: MixCycleGAN) -> None:
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
