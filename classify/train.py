"""The classify command: data -> method -> prepare -> loop -> summary, on one page."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from classify.config import ClassifySettings, settings_from
from classify.data import FolderSet, ImageSet, load_dataset
from classify.evaluation import evaluate
from classify.loaders import eval_batches, training_loader
from classify.methods import Method, build_method
from classify.networks import build_network
from classify.networks.contract import first_convolution
from classify.optimizer import averaged, make_optimizer, make_schedule, moving_average
from classify.report import picture_mixing, print_methods, print_presets, summarise, write_report
from classify.weights import load_pretrained, network_for_finetuning
from mixgan.engine.accelerator import on_main, synchronise_buffers
from mixgan.engine.ema import MovingAverage
from mixgan.engine.run import Run
from mixgan.engine.run_folder import save_weights


def main(argv: Sequence[str]) -> None:
    """Train one classifier as the command line says."""
    settings = settings_from(argv)
    if settings.list_methods:
        print_methods()
    elif settings.list_presets:
        print_presets()
    else:
        train(settings)


def train(settings: ClassifySettings) -> dict[str, Any]:
    """One training run; returns its summary.

    Raises:
        ValueError: wrong settings, missing data, a folder that cannot be used.
    """
    run = Run.start(settings, recipe="classify")
    accelerator = run.accelerator
    training, test = load_sets(settings, run)
    loader = training_loader(training, batch_size=settings.batch_size, seed=settings.seed, **place(run))

    network = starting_network(settings, training, run)
    method = build_method(
        settings.method,
        network,
        num_classes=len(training.classes),
        mixer=settings.mixer,
        options=settings.method_options,
        schedule=settings.mix_schedule(),
        mean=training.mean,
        std=training.std,
    )
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    method = method.to(memory_format=layout)
    optimizer = make_optimizer(method, settings)
    horizon = settings.epochs * (loader.steps_per_epoch // settings.accumulation_steps)
    schedule = make_schedule(optimizer, settings, horizon=horizon)
    trained, optimizer = accelerator.prepare(method, optimizer)
    run.register_for_checkpointing("schedule", schedule)
    average = moving_average(method, settings.ema)
    if average is not None:
        run.register_for_checkpointing("average", average)
    if settings.compile:
        compile_networks(method)
    run.begin(loader.steps_per_epoch)
    picture_mixing(run, method, training)

    figures = None
    for images, labels in run.batches(loader, description=f"{settings.method} on {settings.dataset}"):
        method.before_step(run.epoch, min(1.0, run.step / max(1, horizon)))
        with accelerator.accumulate(trained):
            output = trained(images.to(memory_format=layout), labels)
            accelerator.backward(output.loss)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            method.after_step()
            if average is not None:
                average.update(method.network)
            rate = schedule.get_last_lr()[0]
            schedule.step()
            run.end_step({**output.logs, "lr": rate}, images=len(images) * settings.accumulation_steps)
            if run.at_epoch_end or run.at_end:
                figures = evaluate_epoch(run, method, test, average)
    return finish(run, method, figures or test_figures(run, method, test, average), training, average)


def compile_networks(method: Method) -> None:
    """Compile the network, and the copies of it that a method has (AutoMix's teacher), in place: weights keep their names."""
    networks = [module for module in method.modules() if type(module) is type(method.network)]
    for network in networks:
        network.compile()
        if hasattr(network, "embedding"):  # LaMix classifies by it
            network.embedding = torch.compile(network.embedding)


def starting_network(settings: ClassifySettings, training: ImageSet | FolderSet, run: Run) -> nn.Module:
    """A new network, or one with the weights that a flag names; a resumed run fills it from its checkpoint."""
    shape = {"num_classes": len(training.classes), "in_channels": training.channels}
    if settings.finetune_from is not None and not settings.resume:
        return network_for_finetuning(settings.finetune_from, **shape)
    network = build_network(settings.network, **shape)
    if settings.init_from is not None and not settings.resume:
        # The other processes get the main one's weights when the network is prepared.
        load = partial(load_pretrained, network, settings.init_from, network_name=settings.network)
        on_main(run.accelerator, load)
    return network


def load_sets(settings: ClassifySettings, run: Run) -> tuple[ImageSet | FolderSet, ImageSet | FolderSet]:
    """Training and test set; with --download the main process fetches them first."""
    tiles = {"tiles_view": settings.tiles_view} if settings.dataset == "tiles" else {}
    common: dict[str, Any] = {
        "size": settings.image_size,
        "on_bad_image": settings.on_bad_image,
        "normalise": settings.normalise,
        **tiles,
    }
    if settings.download:
        on_main(run.accelerator, lambda: fetch(settings, common))
    count = {"count": settings.train_count} if tiles else {}
    training = load_dataset(settings.dataset, settings.data_root, split="train", **common, **count)
    test = load_dataset(settings.dataset, settings.data_root, split="test", **common)
    return training, test


def fetch(settings: ClassifySettings, common: dict[str, Any]) -> None:
    """Download what is missing; SVHN has a file for each split."""
    for split in ("train", "test"):
        load_dataset(settings.dataset, settings.data_root, split=split, download=True, **common)


def place(run: Run) -> dict[str, Any]:
    """What training and test batches have in common: this process's device and share, and who reads the files."""
    accelerator = run.accelerator
    share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    return {"device": accelerator.device, "workers": run.settings.num_workers, **share}


def evaluate_epoch(
    run: Run, method: Method, test: ImageSet | FolderSet, average: MovingAverage | None
) -> dict[str, Any]:
    """Test figures into metrics.jsonl; the best accuracy keeps its checkpoint."""
    with run.pause():
        figures = test_figures(run, method, test, average)
    run.record({"epoch": run.epoch, **figures, **method.epoch_records()})
    run.print(f"epoch {run.epoch}: test accuracy {figures['test_accuracy']:.4f}, loss {figures['test_loss']:.4f}")
    run.track_best("test_accuracy", figures["test_accuracy"], higher_is_better=True)
    return figures


def test_figures(run: Run, method: Method, test: ImageSet | FolderSet, average: MovingAverage | None) -> dict[str, Any]:
    """Accuracy, loss and calibration error of the network as it is now, or of its moving average, which "weights" says; and
    what else the method measures."""
    accelerator = run.accelerator
    batches = partial(eval_batches, test, batch_size=run.settings.eval_batch_size, **place(run))
    with averaged(method, average):
        synchronise_buffers(accelerator, method)  # batch-norm statistics differ by process between two steps
        figures = evaluate(method.predictor(), batches(), accelerator=accelerator)
        figures |= method.test_figures(batches(), accelerator)
    return {**figures, "weights": "plain" if average is None else "ema"}


def finish(
    run: Run, method: Method, figures: dict[str, Any], training: ImageSet | FolderSet, average: MovingAverage | None
) -> dict[str, Any]:
    """Weights, summary and report."""
    settings = run.settings
    summary = summarise(run, figures)
    about = {
        "network": settings.network,
        "num_classes": method.network.classifier.out_features,  # a method may have doubled input and output
        "in_channels": first_convolution(method.network).in_channels,
        "classes": training.classes,
        "mean": training.mean,
        "std": training.std,
        "image_size": training.size,
        "method": settings.method,
        "dataset": settings.dataset,
    }
    if not settings.dry_run:
        on_main(run.accelerator, lambda: save_networks(run, method.saved_network(), average, about))
        run.write_summary(summary)
        picture_mixing(run, method, training)  # again: what saliency and learned masks make of it after training
        on_main(run.accelerator, lambda: write_report(run, summary))
        run.print(f"Test accuracy {summary['test_accuracy']:.4f}. Report: {run.folder.report}")
    else:
        run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    run.finish()
    return summary


def save_networks(run: Run, network: nn.Module, average: MovingAverage | None, about: dict[str, Any]) -> None:
    """weights/network.safetensors and, where there is an average, network_ema.safetensors."""
    save_weights(run.folder.weights / "network.safetensors", network, about)
    if average is not None:
        save_weights(run.folder.weights / "network_ema.safetensors", average.network, about | {"ema": average.decay})
