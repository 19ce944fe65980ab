"""The DCGAN command: data -> networks -> prepare -> loop -> evaluation, on one page."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixgan.data.order import seeded_generator
from mixgan.engine.accelerator import main_first, on_main
from mixgan.engine.run import Run
from mixgan.engine.run_folder import save_weights
from mixgan.gan.data import DRY_RUN_TESTS
from mixgan.gan.dcgan.evaluation import TestImages
from mixgan.gan.dcgan.feed import ImageLoader
from mixgan.gan.dcgan.images import Split, find_cifar10, load_images
from mixgan.gan.dcgan.report import write_report
from mixgan.gan.dcgan.samples import sample_grid, training_grid
from mixgan.gan.dcgan.settings import DcganSettings, settings_from
from mixgan.gan.dcgan.step import Dcgan
from mixgan.gan.evaluation import test_features
from mixgan.gan.report import sample_path

#: On the progress bar; metrics.jsonl and the report have all values.
SHOWN = ("G", "D")


def main(argv: Sequence[str]) -> None:
    """Train one DCGAN as the command line says."""
    train(settings_from(argv))


def train(settings: DcganSettings) -> dict[str, Any]:
    """One training run; returns its summary.

    Raises:
        ValueError: wrong settings, missing data, a folder that cannot be used.
    """
    run = Run.start(settings, recipe="dcgan")
    accelerator = run.accelerator
    if settings.download and settings.dataset != "tiles":
        on_main(accelerator, lambda: fetch(settings))
    loader = training_loader(settings, run)
    model = Dcgan(settings, accelerator, channels=loader.images.shape[1])
    model.prepare()
    if model.average:
        run.register_for_checkpointing("average", model.average)
    features = settings.dataset, settings.features, settings.inception_weights
    extractor = main_first(accelerator, lambda: test_features(*features))
    run.print(extractor.note)
    tests = images_of(settings, "test")
    noise = torch.randn(len(tests), settings.latent, generator=seeded_generator(settings.seed, "evaluation"))
    test = TestImages(tests, noise, extractor, accelerator)
    run.begin(loader.steps_per_epoch)
    if settings.eval_at_start and run.step == 0:
        evaluate(run, model, test)

    def evaluation_is_due() -> bool:
        return run.at_end or bool(settings.eval_every and run.step % settings.eval_every == 0)

    figures = None
    if run.just_resumed and evaluation_is_due():
        if (fid := run.recorded("fid")) is None:  # a kill came before the evaluation was recorded
            figures = evaluate(run, model, test)
            fid = figures["fid"]
        run.track_best("fid", fid, higher_is_better=False)
    for real in run.batches(loader, description=f"{settings.mixing} on {settings.dataset}"):
        logs = model.step(real)
        if accelerator.sync_gradients:
            run.end_step(logs, images=len(real) * settings.accumulation_steps, shown=SHOWN)
            if evaluation_is_due():
                figures = evaluate(run, model, test)
                run.track_best("fid", figures["fid"], higher_is_better=False)
    return finish(run, model, figures or measure(model, test), test, next(loader.epoch(0)))


def fetch(settings: DcganSettings) -> None:
    """Download the data set where it is not there; torchvision itself leaves files that are."""
    if settings.dataset == "cifar10" and find_cifar10(settings.data_root) == settings.data_root / "cifar10":
        return  # as class folders
    for split in ("train", "test"):
        load_images(settings.dataset, settings.data_root, split=split, size=settings.image_size, count=1, download=True)


def training_loader(settings: DcganSettings, run: Run) -> ImageLoader:
    """Batches for this process."""
    accelerator = run.accelerator
    return ImageLoader(
        images_of(settings, "train", world=accelerator.num_processes),
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )


def images_of(settings: DcganSettings, split: Split, *, world: int = 1) -> Tensor:
    """Training or test images; a dry run takes only those of one step of ``world`` processes, and a few to test on."""
    count = settings.train_count if split == "train" else settings.eval_count
    if settings.dry_run:
        step = settings.batch_size * settings.accumulation_steps * world
        count = min(step, count or step) if split == "train" else DRY_RUN_TESTS
    where = {"split": split, "size": settings.image_size, "count": count, "on_bad_image": settings.on_bad_image}
    return load_images(settings.dataset, settings.data_root, **where)


def measure(model: Dcgan, test: TestImages) -> dict[str, Any]:
    """All figures of the generator as it is now, and which weights they are of."""
    return {**test.figures(model.shown_generator), "weights": "ema" if model.average else "plain"}


def evaluate(run: Run, model: Dcgan, test: TestImages) -> dict[str, Any]:
    """Figures into metrics.jsonl, and a grid of generated images into samples/."""
    average = ", moving average of the weights" if model.average else ""
    with run.pause():
        figures = measure(model, test)
        run.record({"epoch": run.epoch, **figures})
        if run.accelerator.is_main_process and not run.settings.dry_run:
            title = f"{run.settings.mixing}, step {run.step}{average}"
            sample_grid(model, test.noise, title=title).save(sample_path(run))
    shown = [f"{key} {figures[key]:.2f}" for key in ("fid", "precision", "recall") if figures[key] is not None]
    run.print(f"step {run.step} ({figures['features']} features{average}): {'  '.join(shown)}")
    return figures


def finish(run: Run, model: Dcgan, figures: dict[str, Any], test: TestImages, real: Tensor) -> dict[str, Any]:
    """Weights, a picture of the training inputs, summary and report."""
    settings = run.settings
    summary = {"mixing": settings.mixing, "dataset": settings.dataset, "seed": settings.seed, **run.speed(), **figures}
    if settings.dry_run:
        run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    else:
        on_main(run.accelerator, lambda: save_networks(run, model))
        if run.accelerator.is_main_process:
            title = "Inputs of one training step"
            training_grid(model, real, test.noise, title=title).save(run.folder.samples / "training.png")
        run.write_summary(summary)
        on_main(run.accelerator, lambda: write_report(run, summary))
        run.print(f"Report: {run.folder.report}")
    run.finish()
    return summary


def save_networks(run: Run, model: Dcgan) -> None:
    """weights/G, D and, where there is an average, G_ema, each saying how to build its network."""
    settings = run.settings
    files: dict[str, nn.Module] = {"G": model.generator, "D": model.discriminator}
    if model.average:
        files["G_ema"] = model.average.network
    channels = model.discriminator.layers[0].in_channels
    shape = {"size": settings.image_size, "channels": channels, "width": settings.width}
    for name, network in files.items():
        about: dict[str, Any] = {"role": "discriminator", "name": name, **shape}
        if name != "D":
            about |= {"role": "noise generator", "latent": settings.latent}
        if name.endswith("_ema"):
            about["ema"] = settings.ema
        save_weights(run.folder.weights / f"{name}.safetensors", network, about)
