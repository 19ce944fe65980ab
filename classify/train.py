"""One run of the classify command, from the data sets to the report; it trains any method without knowing which."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from classify.config import ClassifySettings
from classify.data import FolderSet, ImageSet, describe, label_record, load_dataset
from classify.evaluation import confusion_matrix, evaluate, training_accuracy
from classify.loaders import TrainingLoader, eval_batches
from classify.methods import Method, build_method
from classify.networks import build_network
from classify.networks.contract import Network, first_convolution, linear_classifier
from classify.optimizer import averaged, make_optimizer, make_schedule, moving_average
from classify.report import picture_mixing, summarise, write_report
from classify.weights import classifier_card, load_pretrained, network_for_finetuning, trained_data
from mixgan.data.stream import cache_bytes, where_images_are, worker_count
from mixgan.engine.accelerator import on_main, synchronise_buffers
from mixgan.engine.config import to_json
from mixgan.engine.ema import MovingAverage
from mixgan.engine.fingerprint import check_same_data
from mixgan.engine.run import Run
from mixgan.engine.run_folder import export_networks, write_json

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def train(settings: ClassifySettings) -> dict[str, Any]:
    """Train and test one classifier; returns the run's summary.

    Raises:
        ValueError: invalid settings, missing data, an output folder that cannot be used.
    """
    run = Run.start(settings, recipe="classify")
    accelerator = run.accelerator
    training, test = load_sets(settings, run)
    data = cache(lambda: {"train": describe(training), "test": describe(test)})
    device, workers = accelerator.device, worker_count(settings.num_workers)
    share: dict[str, Any] = {"rank": accelerator.process_index, "world": accelerator.num_processes}
    share |= {"device": device, "workers": workers}
    loader = TrainingLoader(
        training,
        batch_size=settings.batch_size,
        seed=settings.seed,
        padding=settings.crop_padding,
        crop=settings.crop,
        **share,
    )
    test_batches = partial(eval_batches, test, batch_size=settings.eval_batch_size, **share)
    training_batches = None  # of small or wrongly labelled training sets, whose memorisation is measured
    if settings.labels_per_class is not None or training.true_labels is not None:
        both = labelled_twice(training)
        training_batches = partial(eval_batches, both, batch_size=settings.eval_batch_size, **share)
    method = build_method(
        settings.method,
        starting_network(settings, training, run),
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
    run.begin(loader.steps_per_epoch, data=data, **finetuning_facts(settings, run, data))
    if (training.positions is not None or training.true_labels is not None) and not settings.dry_run:
        on_main(accelerator, lambda: write_json(run.folder.path / "labels.json", label_record(training)))
    run.export = partial(export_weights, settings, run, method, training, average)
    picture_mixing(run, method, training)

    def evaluation_is_due() -> bool:
        return run.at_end or (run.at_epoch_end and run.epoch % settings.eval_every_epochs == 0)

    measure = partial(test_metrics, run, method, test_batches, average, training_batches)
    metrics = None
    if run.just_resumed and evaluation_is_due() and not recorded_evaluation(run):
        metrics = evaluate_epoch(run, method, measure)
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
            lr = schedule.get_last_lr()[0]
            schedule.step()
            run.end_step({**output.logs, "lr": lr}, images=len(images) * settings.accumulation_steps)
            if evaluation_is_due():
                metrics = evaluate_epoch(run, method, measure)
    if metrics is None:  # a resumed run that was complete; else the last evaluation has written the weights
        metrics = measure()
        run.export(metrics)
    summary = summarise(settings, run, metrics)
    if settings.dry_run:
        run.print("Dry run: settings resolve, everything builds, one batch trained and evaluated.")
    else:
        run.write_summary(summary)
        picture_mixing(run, method, training)  # again: saliency and learned masks have changed
        report(settings, run, summary, method, average, test_batches, training.classes)
    run.finish()
    return summary


def recorded_evaluation(run: Run) -> bool:
    """Take up the evaluation of the step that a run resumes at; False where a kill came before it was recorded."""
    if (record := run.recorded("test_accuracy")) is None:
        return False
    run.export(record)  # weights/last may be of a later step, whose checkpoint is damaged, or missing
    run.track_best("test_accuracy", record["test_accuracy"], higher_is_better=True)
    return True


def labelled_twice(training: ImageSet | FolderSet) -> ImageSet | FolderSet:
    """The training images with labels (N,2): the given ones, and the true ones."""
    true_labels = training.labels if training.true_labels is None else training.true_labels
    return replace(training, labels=torch.stack((training.labels, true_labels), 1))


def report(
    settings: ClassifySettings,
    run: Run,
    summary: dict[str, Any],
    method: Method,
    average: MovingAverage | None,
    test_batches: Batches,
    classes: Sequence[str],
) -> None:
    """Write the run's page, with the confusion matrix (K,K) of the test images; all processes call it."""
    with averaged(method, average):
        confusion = confusion_matrix(
            method.predictor(), test_batches(), classes=len(classes), accelerator=run.accelerator
        )
    on_main(run.accelerator, lambda: write_report(settings, run, summary, confusion, classes))
    run.print(f"Test accuracy {summary['test_accuracy']:.4f}. Report: {run.folder.report}")


def compile_networks(method: Method) -> None:
    """Compile a method's network, and copies of it such as AutoMix's teacher, in place: weights keep their names."""
    networks = [module for module in method.modules() if type(module) is type(method.network)]
    for network in networks:
        network.compile()
        if isinstance(network, Network):  # LaMix classifies by the embedding
            network.embedding = torch.compile(network.embedding)  # type: ignore[method-assign]


def starting_network(settings: ClassifySettings, training: ImageSet | FolderSet, run: Run) -> nn.Module:
    """A new network, or one with the weights that a flag names; a resumed run fills it from its checkpoint."""
    num_classes, channels = len(training.classes), training.channels
    if settings.finetune_from is not None and not run.resumes:
        return network_for_finetuning(settings.finetune_from, num_classes=num_classes, in_channels=channels)
    network = build_network(settings.network, num_classes=num_classes, in_channels=channels)
    if settings.init_from is not None and not run.resumes:
        # Preparing the network copies the main process's weights to the others.
        on_main(run.accelerator, partial(load_pretrained, network, settings.init_from, network_name=settings.network))
    return network


def finetuning_facts(settings: ClassifySettings, run: Run, data: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """For config.json, how the data differ from those of the run in --finetune-from; ValueError where they may not."""
    source = settings.finetune_from
    if source is None or run.resumes:
        return {}
    found = on_main(
        run.accelerator,
        lambda: check_same_data(trained_data(source), data(), run=source, allowed=settings.allow_data_change),
    )
    if found:
        run.print(f"Warning: {'; '.join(found)}.")
    return {"data_changes": [{"finetune_from": str(source), "differences": found}]} if found else {}


def load_sets(settings: ClassifySettings, run: Run) -> tuple[ImageSet | FolderSet, ImageSet | FolderSet]:
    """Training and test set, files decoded where --cache-gb allows; with --download the main process fetches them first."""
    load = partial(load_dataset, settings.dataset, settings.data_root, size=settings.image_size)
    if settings.download:  # both splits, as SVHN has a file for each
        on_main(run.accelerator, lambda: [load(split="train", download=True), load(split="test", download=True)])
    sets = [load(split=split, **settings.data_options(split)) for split in ("train", "test")]
    cache = cache_bytes(settings.cache_gb)
    for number, (dataset, what) in enumerate(zip(sets, ("Training", "Test"), strict=True)):
        if isinstance(dataset, FolderSet) and not settings.dry_run:
            size = dataset.decoded_bytes()
            run.print(where_images_are(f"{what} images", size, cache))
            if size <= cache:
                sets[number], cache = dataset.in_memory(), cache - size
    return sets[0], sets[1]


def evaluate_epoch(run: Run, method: Method, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Test the network, write weights/last and the metrics, and keep checkpoint and weights of the best accuracy."""
    with run.pause():
        metrics = measure()
        run.export(metrics)
    run.record({"epoch": run.epoch, **metrics, **method.epoch_records()})
    run.print(f"epoch {run.epoch}: test accuracy {metrics['test_accuracy']:.4f}, loss {metrics['test_loss']:.4f}")
    run.track_best("test_accuracy", metrics["test_accuracy"], higher_is_better=True)
    return metrics


def test_metrics(
    run: Run,
    method: Method,
    batches: Batches,
    average: MovingAverage | None,
    training_batches: Batches | None,
) -> dict[str, Any]:
    """Accuracy, loss, calibration error, and what else the method measures; of the moving average where there is one.

    With ``training_batches``, also the accuracy on the training set, ``train_accuracy``, and on its labels before
    --label-noise, ``train_accuracy_true``.
    """
    with averaged(method, average):
        synchronise_buffers(run.accelerator, method)  # batch-norm statistics differ by process between two steps
        metrics: dict[str, Any] = evaluate(method.predictor(), batches(), accelerator=run.accelerator)
        metrics |= method.test_metrics(batches(), run.accelerator)
        if training_batches is not None:
            names = ("train_accuracy", "train_accuracy_true")
            found = training_accuracy(method.predictor(), training_batches(), accelerator=run.accelerator)
            metrics |= dict(zip(names, found, strict=True))
    return {**metrics, "weights": "plain" if average is None else "ema"}


def export_weights(
    settings: ClassifySettings,
    run: Run,
    method: Method,
    training: ImageSet | FolderSet,
    average: MovingAverage | None,
    metrics: Mapping[str, Any],
) -> None:
    """Write weights/last: network.safetensors, network_ema.safetensors where there is an average, and the model card."""
    metadata = {
        "network": settings.network,
        "num_classes": linear_classifier(method.network).out_features,  # a method may have doubled input and output
        "in_channels": first_convolution(method.network).in_channels,
        "classes": training.classes,
        "mean": training.mean,
        "std": training.std,
        "image_size": training.size,
        "method": settings.method,
        "dataset": settings.dataset,
    }
    networks = {"network": (method.saved_network(), metadata)}
    if average is not None:
        networks["network_ema"] = (average.network, metadata | {"ema": average.decay})
    summary = {**run.speed(), **metrics, "n_test": metrics.get("n")}

    def write() -> None:
        readme = classifier_card(
            to_json(settings), summary, metadata, files=[f"{name}.safetensors" for name in networks]
        )
        export_networks(run.folder.weights / "last", networks, readme=readme)

    if not settings.dry_run:
        on_main(run.accelerator, write)
