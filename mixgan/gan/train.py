"""The MixCycleGAN command, from data to report, and the training loop that it shares with DCGAN."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, get_args

from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mixgan.data.stream import cache_bytes, where_images_are, worker_count
from mixgan.engine.accelerator import log_picture, main_first, on_main
from mixgan.engine.config import to_json
from mixgan.engine.run import Loader, Run
from mixgan.engine.run_folder import distance_name, export_networks, write_picture
from mixgan.evaluate.features import FeatureExtractor
from mixgan.gan.card import model_card
from mixgan.gan.config import DcganSettings, GanSettings, directions, domain_metadata, unet_depth
from mixgan.gan.data import DomainLoader, crop_size, fetch, own_splits, test_domains, training_domains
from mixgan.gan.evaluation import Health, Spikes, TestSet, collapse_warnings, test_features
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.networks import Patch, PatchDiscriminator, ResnetGenerator, UnetGenerator, init_weights
from mixgan.gan.report import training_grid, translation_grid, write_report
from mixgan.gan.weights import init_networks


def train(settings: GanSettings) -> dict[str, Any]:
    """One training run; returns its summary.

    Raises:
        ValueError: wrong settings, missing data, a folder that cannot be used, a diverged training.
    """
    run = Run.start(settings, recipe="mixcyclegan_maps")
    accelerator = run.accelerator
    on_main(accelerator, lambda: fetch(settings))
    cache = cache_bytes(settings.cache_gb, accelerator.device)
    training, domains = training_domains(settings, cache_bytes=cache), test_domains(settings)
    if settings.dataset == "folders":
        counts = zip(settings.domain_names, (training.a, training.b), (domains.a, domains.b), strict=True)
        run.print(
            "; ".join(f"{name}: {len(train)} training and {len(test)} test images" for name, train, test in counts)
        )
    for folder in filter(None, (settings.domain_a, settings.domain_b)):
        if found := own_splits(folder):
            run.print(
                f"warning: {folder} has splits of its own ({', '.join(found)}), whose images are mixed, so that test images are"
                " trained on; trainA, trainB, testA and testB in --data-root (links will do) keep them apart"
            )
    if training.files:
        run.print(where_images_are("Training images", training.bytes, cache))
    loader = DomainLoader(
        training,
        size=crop_size(settings, training),
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        flip=settings.flip,
        workers=worker_count(settings.num_workers),
    )
    model = build_model(settings, accelerator, initialise=not run.resumes)
    schedules = [decay(optimizer, loader, settings) for optimizer in (model.optimizer_g, model.optimizer_d)]
    run.register_for_checkpointing("schedule_g", schedules[0])
    run.register_for_checkpointing("schedule_d", schedules[1])
    run.register_for_checkpointing("pool_a", model.pool_a, own=True)
    run.register_for_checkpointing("pool_b", model.pool_b, own=True)
    if model.average:
        run.register_for_checkpointing("average", model.average)
    extractors = features_of(run, settings)
    ways = directions(settings.domain_names)
    test = TestSet(domains, extractors, accelerator, batch_size=settings.batch_size)

    def step(batch: Sequence[Tensor]) -> dict[str, Tensor | float]:
        model.steps = run.step  # that of a resumed run, too
        logs: dict[str, Tensor | float] = {**model.step(*batch)}
        if accelerator.sync_gradients:
            logs["lr"] = schedules[0].get_last_lr()[0]
            for schedule in schedules:
                schedule.step()
        return logs

    return Training(
        run=run,
        settings=settings,
        loader=loader,
        data=lambda: {"train": training.describe(), "test": domains.describe()},
        step=step,
        measure=lambda: measure(model, test),
        distances=("fd_AtoB", "fd_BtoA"),
        on_progress_bar=("G_A", "G_B", "D_A", "D_B", "cycle_A", "cycle_B"),
        printed={f"{key}_{way}": f"{key} {name}" for key in ("fd", "rmse") for way, name in ways.items()},
        networks=lambda: saved_networks(settings, model, deep=training.deep),
        card=model_card,
        samples=lambda title: translation_grid(model.eval_generators, domains, accelerator, title=title, ways=ways),
        inputs=lambda: training_grid(model, next(loader.epoch(0)), title="Inputs of one training step", ways=ways),
        health=Health(run.print),
    ).train()


def build_generator(settings: GanSettings, in_channels: int, out_channels: int) -> nn.Module:
    """A generator from images of one number of channels to another."""
    if settings.generator == "unet":
        depth = unet_depth(settings.image_size)
        return UnetGenerator(in_channels, out_channels, depth=depth, **arguments_of(UnetGenerator, settings))
    return ResnetGenerator(in_channels, out_channels, **arguments_of(ResnetGenerator, settings))


def build_model(settings: GanSettings, accelerator: Accelerator, *, initialise: bool = True) -> MixCycleGAN:
    """CycleGAN's four networks, with random weights or (``initialise``) those of --init-from, and the method that trains them.

    Raises:
        ValueError: fp16 where there is no GPU; no weights in --init-from, or of other networks.
    """
    channels = settings.channels_a, settings.channels_b
    generators = [build_generator(settings, *ends) for ends in (channels, channels[::-1])]
    for generator in generators:
        init_weights(generator)
    shape = {"layers": get_args(Patch).index(settings.patch) + 1, **arguments_of(PatchDiscriminator, settings)}
    discriminators = [PatchDiscriminator(count, **shape) for count in channels[::-1]]
    for discriminator in discriminators:
        init_weights(discriminator)
    if settings.init_from and initialise:
        names = ("G_A", "G_B", "D_A", "D_B")
        filled = init_networks(dict(zip(names, (*generators, *discriminators), strict=True)), settings.init_from)
        accelerator.print(f"{', '.join(filled)} begin with the weights of {settings.init_from}")
    if settings.compile:
        for network in (*generators, *discriminators):
            network.compile()
    return MixCycleGAN(*generators, *discriminators, accelerator=accelerator, **arguments_of(MixCycleGAN, settings))


def features_of(run: Run, settings: GanSettings | DcganSettings) -> list[FeatureExtractor]:
    """The features of a run's metrics; prints which they are."""
    where = settings.dataset, settings.features, settings.feature_weights
    extractors = main_first(run.accelerator, lambda: test_features(*where))
    run.print("\n".join(extractor.note for extractor in extractors))
    return extractors


def arguments_of(method: type, settings: GanSettings | DcganSettings) -> dict[str, Any]:
    """The settings that a GAN, or a network, takes as keywords of the same name."""
    names = signature(method.__init__).parameters  # type: ignore[misc]  # a class's own signature may be that of a mixin
    return {name: getattr(settings, name) for name in names if name in settings.hints()}


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
    metrics = test.metrics(model.eval_generators)
    if warnings := collapse_warnings(metrics):
        metrics["warnings"] = [*metrics.get("warnings", ()), *warnings]
    return {**metrics, "weights": "ema" if model.average else "plain"}


def saved_networks(
    settings: GanSettings, model: MixCycleGAN, *, deep: tuple[bool, bool] = (False, False)
) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """G_A, G_B, D_A, D_B and, where there are averages, G_A_ema, G_B_ema; metadata says how to build and use each network.

    ``deep`` says whether the images of A, and of B, have more than 8 bits.
    """
    networks = [*model.generators.named_children(), *model.discriminators.named_children()]
    if model.average:
        networks += [(f"{name}_ema", network) for name, network in model.average.network.named_children()]
    result: dict[str, tuple[nn.Module, dict[str, Any]]] = {}
    for name, network in networks:
        shape = {"name": name, "width": settings.width, "norm": settings.norm}
        if name.startswith("D_"):
            result[name] = network, {"role": "discriminator", **shape, "patch": settings.patch}
            continue
        direction = "AtoB" if name.startswith("G_A") else "BtoA"
        kept = {key: getattr(settings, key) for key in ("generator", "blocks", "upsample", "skip", "clip_grad")}
        metadata = {"role": "generator", **shape, **kept, "direction": direction}
        metadata |= domain_metadata(dataclasses.asdict(settings), direction)
        metadata["bits_out"] = 16 if deep[direction == "AtoB"] else 8
        result[name] = network, metadata | ({"ema": settings.ema} if name.endswith("_ema") else {})
    return result


@dataclass(kw_only=True)
class Training:
    """The loop of a GAN command: steps, evaluations with their records, pictures and weights, and the results at the end."""

    run: Run
    settings: GanSettings | DcganSettings
    loader: Loader[Any]
    data: Callable[[], dict[str, Any]]  # -> description of the training and test images, for config.json
    step: Callable[[Any], Mapping[str, Tensor | float]]  # one batch -> detached scalars
    measure: Callable[[], dict[str, Any]]  # -> metrics of the networks as they are now, with weights: plain or ema
    distances: Sequence[str]  # the metrics whose mean is lowest for the best weights
    on_progress_bar: Sequence[str]  # names of losses
    printed: Mapping[str, str]  # metrics that are printed after an evaluation, and what they are called there
    #: -> the networks to export, with metadata, by file name
    networks: Callable[[], dict[str, tuple[nn.Module, dict[str, Any]]]]
    card: Callable[[dict[str, Any], dict[str, Any], list[str]], str]  # settings, summary, weight files -> model card
    samples: Callable[[str], Image.Image]  # title -> picture of what the networks generate
    inputs: Callable[[], Image.Image]  # -> picture of what they train on
    health: Health | None = None  # warns when training goes wrong

    def train(self) -> dict[str, Any]:
        """Train from the beginning or the checkpoint to the end; returns the summary."""
        run, settings = self.run, self.settings
        run.begin(self.loader.steps_per_epoch, data=self.data)
        run.export = self.export
        if settings.eval_at_start and run.step == 0:
            self.evaluate()
        metrics, spikes = None, Spikes(run, self.on_progress_bar, settings.spike_factor)
        if run.just_resumed and self.evaluation_is_due:
            if (record := run.recorded(*self.distances)) is None:  # a kill came before the evaluation was recorded
                metrics = record = self.evaluate()
            else:
                self.export(record)  # weights/last may be of a later step, whose checkpoint is damaged, or missing
            self.keep_best(record)
        for batch in run.batches(self.loader, description=f"{settings.mixing} on {settings.dataset}"):
            logs = self.step(batch)
            if not run.accelerator.sync_gradients:
                continue
            run.end_step(logs, images=settings.batch_size * settings.accumulation_steps, shown=self.on_progress_bar)
            spikes.after_step(logs)
            events = settings.log_every, settings.checkpoint_every, settings.eval_every
            if run.at_end or any(every and run.step % every == 0 for every in events):
                spikes.report()  # before a new checkpoint replaces the one to keep
            if self.health and run.step % settings.log_every == 0:
                self.health.after_log(run.step, logs)
            if self.evaluation_is_due:
                metrics = self.evaluate()
                self.keep_best(metrics)
        if metrics is None:  # a resumed run that was complete; else the last evaluation has written the weights
            metrics = self.measure()
            self.export(metrics)
        return self.finish(metrics)

    @property
    def evaluation_is_due(self) -> bool:
        """Whether the networks are evaluated after the last step."""
        every = self.settings.eval_every
        return self.run.at_end or bool(every and self.run.step % every == 0)

    def evaluate(self) -> dict[str, Any]:
        """Metrics into metrics.jsonl, weights into weights/last, and a picture into samples/."""
        run = self.run
        with run.pause():
            metrics = self.measure()
            self.export(metrics)
            average = ", moving average of the weights" if metrics["weights"] == "ema" else ""
            if not self.settings.dry_run:
                title = f"{self.settings.mixing}, step {run.step}{average}"
                file = run.folder.samples / f"step-{run.step:08d}.png"

                def picture() -> None:
                    samples = self.samples(title)
                    write_picture(file, samples)
                    log_picture(run.accelerator, "samples", samples, run.step)

                on_main(run.accelerator, picture)
            run.record({"epoch": run.epoch, **metrics})  # last: a resumed run repeats an evaluation without record
        for one in (metrics, *metrics.get("others", {}).values()):
            named = {name: text.replace("fd", distance_name(one), 1) for name, text in self.printed.items()}
            values = [f"{text} {one[name]:.2f}" for name, text in named.items() if one.get(name) is not None]
            run.print(f"step {run.step} ({one['features']} features{average}): {'  '.join(values)}")
        if self.health and run.step:
            self.health.after_evaluation(metrics)
        return metrics

    def keep_best(self, metrics: Mapping[str, Any]) -> None:
        """Keep checkpoint and weights of this step if their mean distance is the lowest so far."""
        run, names = self.run, self.distances
        mean = sum(metrics[name] for name in names) / len(names)
        metric = names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"
        run.track_best(f"{metric}: {distance_name(metrics)}", mean, higher_is_better=False)

    def export(self, metrics: Mapping[str, Any]) -> None:
        """Write the networks and their model card into weights/last."""
        run = self.run
        summary = {**run.speed(), **metrics}

        def write() -> None:
            networks = self.networks()
            readme = self.card(to_json(self.settings), summary, [f"{name}.safetensors" for name in sorted(networks)])
            export_networks(run.folder.weights / "last", networks, readme=readme)

        if not self.settings.dry_run:
            on_main(run.accelerator, write)

    def finish(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """A picture of the training inputs, summary and report."""
        run, settings = self.run, self.settings
        facts = {"mixing": settings.mixing, "dataset": settings.dataset, "seed": settings.seed}
        summary = {**facts, **run.speed(), **metrics}
        if settings.dry_run:
            run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
        else:
            on_main(run.accelerator, lambda: write_picture(run.folder.samples / "training.png", self.inputs()))
            run.write_summary(summary)
            on_main(run.accelerator, lambda: write_report(run, settings, summary))
            run.print(f"Report: {run.folder.report}")
        run.finish()
        return summary
