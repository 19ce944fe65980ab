"""A run of the classify command, as the figures look at it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from classify.config import ClassifySettings
from classify.data import FolderSet, ImageSet, load_dataset
from classify.loaders import eval_batches
from classify.methods import Method, build_method
from classify.networks import build_network
from classify.weights import saved_network
from mixgan.engine.checkpoint import pointed
from mixgan.engine.config import read_config, run_settings
from mixgan.engine.run_folder import RunFolder, load_weights, read_metrics
from mixgan.ops.transforms import denormalize, normalize

T = TypeVar("T")
#: Fields of image sets that hold one entry for each sample.
PER_SAMPLE = ("images", "paths", "labels", "boxes")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run folder of the classify command; what is asked for is read when it is asked for.

    Attributes:
        path: the run's folder.
        label: how figures call it.
        device: where its network works.
        data_root: where its data set lies now, None for the place it was trained from.
    """

    path: Path
    label: str
    device: torch.device
    data_root: Path | None = None

    @cached_property
    def settings(self) -> ClassifySettings:
        """The run's own settings; ValueError for a folder that holds no run of the classify command."""
        if not RunFolder(self.path).config.is_file():
            raise ValueError(f"{self.path} is no run folder: it has no config.json")
        config = read_config(self.path)
        if config["recipe"] != "classify":
            raise ValueError(f"{self.path} is a run of {config['recipe']}, not of the classify command")
        return ClassifySettings(**run_settings(self.path, ClassifySettings))

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the weight file says of itself: network, classes, mean, std, image_size, method, dataset."""
        return saved_network(self.path)[1]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The objects of metrics.jsonl."""
        return read_metrics(RunFolder(self.path).metrics)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the labels."""
        return self.about["classes"]

    @cached_property
    def trained_network(self) -> nn.Module:
        """The network in eval mode as it was trained: with doubled input or output where the method needs that."""
        file, about = saved_network(self.path)
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and thrown away
            network = build_network(
                about["network"], num_classes=about["num_classes"], in_channels=about["in_channels"]
            )
        load_weights(file, network)
        return network.to(self.device).eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """The network for single, normalised images, in eval mode, without gradients into its weights.

        Raises:
            ValueError: it was trained on pairs of images and answers for two.
        """
        if self.is_double:
            raise ValueError(
                f"{self.label} was trained with {self.settings.method} on pairs of images, "
                "and this figure needs a network for single ones (--finetune-from makes one of it)"
            )
        return self.trained_network

    @property
    def is_double(self) -> bool:
        """Whether the network takes two images at once or answers for two."""
        shape = self.about["in_channels"], self.about["num_classes"]
        return shape != (len(self.about["mean"]), len(self.classes))

    @cached_property
    def method(self) -> Method:
        """The training method with everything that it learned, from the last checkpoint, in eval mode.

        Raises:
            ValueError: the run keeps no checkpoint.
        """
        checkpoint = pointed(RunFolder(self.path).checkpoints, "last.json")
        if checkpoint is None:
            raise ValueError(f"{self.path} keeps no checkpoint, and this figure needs what the method learned")
        classes, (mean, std) = len(self.classes), self.moments
        with torch.random.fork_rng(devices=[]):
            method = build_method(
                self.settings.method,
                build_network(self.about["network"], num_classes=classes, in_channels=len(mean)),
                num_classes=classes,
                mixer=self.settings.mixer,
                options=self.settings.method_options,
                mean=mean,
                std=std,
            )
        load_weights(checkpoint / "model.safetensors", method)
        file, about = saved_network(self.path)
        if "ema" in about:  # the network that was tested is the moving average, which the method itself does not hold
            load_weights(file, method.network)
        return method.to(self.device).eval()

    @property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of images in 0..1."""
        return tuple(self.about["mean"]), tuple(self.about["std"])

    def normalise(self, images: Tensor) -> Tensor:
        """(B,C,H,W) in 0..1, as the network sees them."""
        return normalize(images, *self.moments)

    def as_pictures(self, images: Tensor) -> Tensor:
        """Undo ``normalise``."""
        return denormalize(images, *self.moments)

    @property
    def looked_at(self) -> tuple[object, ...]:
        """What runs must have in common to be shown the same images with the same labels."""
        return self.settings.dataset, self.settings.tiles_view, self.about["image_size"], tuple(self.classes)

    def data(self, split: str) -> ImageSet | FolderSet:
        """The split ``train`` or ``test`` of the run's data set, loaded once for all runs; ValueError where it is missing."""
        settings = self.settings
        tiles = (settings.tiles_view, settings.train_count if split == "train" else None)
        return _load(
            settings.dataset,
            Path(self.data_root or settings.data_root),
            split,
            self.about["image_size"],
            settings.normalise,
            settings.on_bad_image,
            tiles if settings.dataset == "tiles" else None,
        )

    def batches(
        self, *, count: int, batch_size: int, split: str = "test", labels: Sequence[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``count`` images of a split (all, where there are fewer): normalised (B,C,H,W), labels (B,), on the device.

        Runs on the same data set get the same images, in the same order; an even spread over the set where it is larger.
        """
        return eval_batches(self.sample(count, split, labels), batch_size=batch_size, device=self.device, workers=0)

    def sample(self, count: int, split: str = "test", labels: Sequence[int] | None = None) -> ImageSet | FolderSet:
        """At most ``count`` images of a split, or of those with these labels, spread evenly (folders are sorted by class)."""
        return _thinned(self.data(split), count, labels)


@lru_cache(maxsize=8)
def _load(
    dataset: str,
    root: Path,
    split: Any,
    size: int,
    normalise: Any,
    on_bad_image: Any,
    tiles: tuple[Any, int | None] | None,
) -> ImageSet | FolderSet:
    options: dict[str, Any] = {"normalise": normalise, "on_bad_image": on_bad_image}
    if tiles is not None:
        options |= {"tiles_view": tiles[0], "count": tiles[1]}
    return load_dataset(dataset, root, split=split, size=size, **options)


def _thinned(images: ImageSet | FolderSet, count: int, labels: Sequence[int] | None) -> ImageSet | FolderSet:
    """Every n-th sample with these labels, so that ``count`` are left."""
    places = torch.arange(len(images))
    if labels is not None:
        places = places[torch.isin(images.labels, torch.tensor(labels))]
    if len(places) == len(images) <= count:
        return images
    index = places[torch.linspace(0, len(places) - 1, min(count, len(places))).round().long()]
    kept: dict[str, Any] = {}
    for name in PER_SAMPLE:
        values = getattr(images, name, None)
        if values is not None:
            kept[name] = values[index] if isinstance(values, Tensor) else tuple(values[i] for i in index.tolist())
    return replace(images, **kept)


def each(runs: Sequence[TrainedRun], make: Callable[[TrainedRun], T]) -> tuple[dict[str, T], list[str]]:
    """``make`` of every run that allows it, by label, and one sentence for each that does not.

    Raises:
        ValueError: none does; all the sentences.
    """
    made: dict[str, T] = {}
    sentences: list[str] = []
    for run in runs:
        try:
            made[run.label] = make(run)
        except ValueError as error:
            sentences.append(str(error))
    if not made:
        raise ValueError("; ".join(dict.fromkeys(sentences)))
    return made, sentences
