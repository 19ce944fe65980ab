"""A run of the classify command as the figures see it: settings, records, network, method and images, read on demand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from classify.config import ClassifySettings
from classify.data import FolderSet, ImageSet, describe, load_dataset, take
from classify.loaders import eval_batches
from classify.methods import Method, build_method
from classify.networks import build_network
from classify.weights import load, saved_network, trained_data
from mixgan.engine.checkpoint import pointed, step_of
from mixgan.engine.command import sentence_of
from mixgan.engine.config import read_config, run_settings
from mixgan.engine.fingerprint import check_same_data
from mixgan.engine.run_folder import RunFolder, load_weights, read_metrics, weights_folder
from mixgan.ops.transforms import Normalization

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run folder of the classify command.

    Attributes:
        path: the run's folder.
        label: its name in figures.
        device: where its network works.
        data_root: where its data set is now, None for the place it was trained from.
        weights: ``last``, ``best`` or ``step-N``.
        ema: use the moving average of the weights where the run has one.
        allow_data_change: use a data set that differs from the one it was trained on.
    """

    path: Path
    label: str
    device: torch.device
    data_root: Path | None = None
    weights: str = "last"
    ema: bool = True
    allow_data_change: bool = False

    @cached_property
    def settings(self) -> ClassifySettings:
        """The run's own settings; ValueError for a folder that is not a run of the classify command."""
        if not RunFolder(self.path).config.is_file():
            raise ValueError(f"{self.path} is not a run folder: it has no config.json")
        config = read_config(self.path)
        if config["recipe"] != "classify":
            raise ValueError(f"{self.path} is a run of {config['recipe']}, not of the classify command")
        return ClassifySettings(**run_settings(self.path, ClassifySettings))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the weight file stores beside the weights: network, classes, mean, std, image_size, method, dataset."""
        exported = "best" if self.weights == "best" else "last"  # a checkpoint has no metadata of its own
        return saved_network(self.path, weights=exported, ema=self.ema)[1]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The objects of metrics.jsonl."""
        return read_metrics(RunFolder(self.path).metrics)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations on the test set; ValueError where there is none."""
        found = [record for record in self.records if "test_accuracy" in record]
        if not found:
            raise ValueError(f"{self.label} has no evaluation in its metrics.jsonl")
        return found

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the labels."""
        return self.metadata["classes"]

    @cached_property
    def trained_network(self) -> Any:
        """The network in eval mode as it was trained: with doubled input or output where the method needs that."""
        network = load(self.path, weights=self.weights, ema=self.ema)
        return network.to(self.device).requires_grad_(False)

    @property
    def network(self) -> Any:
        """The network for single, normalised images, in eval mode, its weights without gradients.

        Raises:
            ValueError: it was trained on pairs of images.
        """
        shape = self.metadata["in_channels"], self.metadata["num_classes"]
        if shape != (len(self.metadata["mean"]), len(self.classes)):  # takes two images, or has outputs for two
            raise ValueError(
                f"{self.label} was trained with {self.settings.method} on pairs of images, "
                "and this figure needs a network for single images (--finetune-from makes one of it)"
            )
        return self.trained_network

    def new_method(self, name: str, *, mixer: dict[str, Any] | None = None, options: dict[str, Any]) -> Method:
        """A method with initial weights on a new network like the run's."""
        classes, (mean, std) = len(self.classes), (tuple(self.metadata[key]) for key in ("mean", "std"))
        network = build_network(self.metadata["network"], num_classes=classes, in_channels=len(mean))
        method = build_method(name, network, num_classes=classes, mixer=mixer, options=options, mean=mean, std=std)
        return method.to(self.device)

    @cached_property
    def method(self) -> Any:
        """The training method with everything that it learned, from the checkpoint of ``weights``, in eval mode.

        Raises:
            ValueError: the run has no checkpoint, or one of another step than the weights.
        """
        if self.weights in ("last", "best"):
            checkpoint = pointed(RunFolder(self.path).checkpoints, f"{self.weights}.json")
        else:
            checkpoint = weights_folder(self.path, self.weights)
        if checkpoint is None:
            raise ValueError(f"{self.path} has no checkpoint, and this figure needs what the method learned")
        settings, tested = self.settings, load(checkpoint, ema=self.ema).state_dict()
        if any(not torch.equal(tested[name], value.cpu()) for name, value in self.trained_network.state_dict().items()):
            raise ValueError(
                f"the {self.weights} weights of {self.path} are of another step than its checkpoint, as the run was killed in"
                f" between: use --weights step-{step_of(checkpoint)}, or --resume the run first"
            )
        with torch.random.fork_rng(devices=[]):
            method = self.new_method(settings.method, mixer=settings.mixer, options=settings.method_options)
        load_weights(checkpoint / "model.safetensors", method)
        if "ema" in self.metadata:  # the tested network is the moving average, which the method does not contain
            method.network.load_state_dict(self.trained_network.state_dict())
        return method.eval()

    @cached_property
    def normalise(self) -> Normalization:
        """Of images (B,C,H,W) in 0..1, as the network takes them; ``normalise.undo`` gives pictures again."""
        return Normalization(self.metadata["mean"], self.metadata["std"]).to(self.device)

    def as_pictures(self, images: Tensor) -> Tensor:
        """Undo ``normalise``."""
        return self.normalise.undo(images)

    @property
    def image_source(self) -> tuple[object, ...]:
        """What runs must have in common to be shown the same images with the same labels."""
        settings = self.settings
        return (
            settings.dataset,
            settings.tiles_view,
            settings.eval_count,
            self.metadata["image_size"],
            tuple(self.classes),
        )

    def data(self, split: str) -> ImageSet | FolderSet:
        """The split ``train`` or ``test`` of the run's data set, loaded once for all runs.

        Raises:
            ValueError: it is missing, or differs from what the run was trained on.
        """
        settings = self.settings
        options = settings.data_options(split)
        found = _load(settings.dataset, self.data_folder, split, self.metadata["image_size"], tuple(options.items()))
        now = {split: _described(found)}
        check_same_data(trained_data(self.path), now, run=self.path, allowed=self.allow_data_change)
        return found

    @property
    def data_folder(self) -> Path:
        """Where data sets are."""
        return Path(self.data_root or self.settings.data_root)

    def data_changes(self) -> list[str]:
        """How the present data set differs from the one that the run was trained on; ValueError where it may not."""
        now = {split: _described(self.data(split)) for split in trained_data(self.path)}
        return check_same_data(trained_data(self.path), now, run=self.path, allowed=True)

    def batches(
        self, *, count: int, batch_size: int, split: str = "test", labels: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``count`` images of a split (all, where there are fewer): normalised (B,C,H,W), labels (B,), on the device.

        Runs on the same data set get the same images in the same order, spread evenly over the set where it is larger.
        """
        return eval_batches(self.sample(count, split, labels), batch_size=batch_size, device=self.device, workers=0)

    def sample(self, count: int, split: str = "test", labels: Sequence[int] | None = None) -> ImageSet | FolderSet:
        """At most ``count`` images of a split, or of those with these labels, spread evenly (folders are sorted by class)."""
        images = self.data(split)
        index = torch.arange(len(images))
        if labels is not None:
            index = index[torch.isin(images.labels, torch.tensor(labels))]
        if len(index) == len(images) <= count:
            return images
        index = index[torch.linspace(0, len(index) - 1, min(count, len(index))).round().long()]
        return take(images, index)


Runs = Sequence[TrainedRun]


@lru_cache(maxsize=8)
def _load(
    dataset: str, root: Path, split: Any, size: int, options: tuple[tuple[str, Any], ...]
) -> ImageSet | FolderSet:
    return load_dataset(dataset, root, split=split, size=size, **dict(options))


_described = lru_cache(maxsize=8)(describe)


def reason(error: Exception) -> str:
    """A failure in one sentence: type and message of a fault of the program itself."""
    return sentence_of(error) or f"{type(error).__name__}: {error}"


def each(runs: Runs, make: Callable[[TrainedRun], T]) -> tuple[dict[str, T], list[str]]:
    """``make`` of every run that allows it, by label, and one sentence for each that does not.

    Raises:
        ValueError: none does; all the sentences.
    """
    found: dict[str, T] = {}
    sentences: list[str] = []
    for run in runs:
        try:
            found[run.label] = make(run)
        except Exception as error:  # whatever it is, the other runs take part
            sentences.append(reason(error) if isinstance(error, ValueError) else f"{run.label}: {reason(error)}")
    if not found:
        raise ValueError("; ".join(dict.fromkeys(sentences)))
    return found, sentences
