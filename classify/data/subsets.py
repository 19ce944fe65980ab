"""Fewer labels and wrong labels: seeded subsets of a training set, and a share of its labels redrawn."""

from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from classify.data.sets import FolderSet, ImageSet, check_choice
from mixgan.engine.accelerator import seeded_generator

NoiseKind = Literal["symmetric", "pair"]
AnySet = TypeVar("AnySet", ImageSet, FolderSet, ImageSet | FolderSet)
#: Fields of both kinds of sets that have one entry per sample.
PER_SAMPLE = ("images", "paths", "labels", "boxes", "true_labels", "redrawn", "positions")


def take(dataset: AnySet, index: Tensor) -> AnySet:
    """The samples at ``index`` (M,) int64, in this order; ``positions`` remembers where they are in the whole set."""
    chosen: dict[str, Any] = {"positions": index if dataset.positions is None else dataset.positions[index]}
    if isinstance(dataset, FolderSet):
        chosen["kept"] = None
    for name in PER_SAMPLE[:-1]:
        values = getattr(dataset, name, None)
        if values is not None:
            chosen[name] = values[index] if isinstance(values, Tensor) else values[index.numpy()]
    return replace(dataset, **chosen)


def spread_evenly(dataset: AnySet, count: int) -> AnySet:
    """``count`` samples at equal distances (all, where there are fewer): the same share of every class of sorted folders."""
    if len(dataset) <= count:
        return dataset
    return take(dataset, torch.linspace(0, len(dataset) - 1, count).round().long())


def random_subset(dataset: AnySet, count: int, *, seed: int) -> AnySet:
    """``count`` samples at random, whatever their class; of one seed, a smaller subset is part of every larger one.

    Raises:
        ValueError: the set is smaller.
    """
    if count > len(dataset):
        raise ValueError(f"--train-count {count} exceeds the {len(dataset)} training images of {dataset.name}")
    order = torch.randperm(len(dataset), generator=seeded_generator(seed, "train-count"))
    return take(dataset, order[:count].sort().values)


def class_balanced_subset(dataset: AnySet, per_class: int, *, seed: int) -> AnySet:
    """``per_class`` samples of every class; of one seed, a smaller subset is part of every larger one.

    Raises:
        ValueError: a class has fewer samples.
    """
    chosen = []
    for label, name in enumerate(dataset.classes):
        members = (dataset.labels == label).nonzero()[:, 0]
        if len(members) < per_class:
            raise ValueError(
                f"--labels-per-class {per_class} exceeds the {len(members)} training images of the class {name!r} of "
                f"{dataset.name}"
            )
        order = torch.randperm(len(members), generator=seeded_generator(seed, "labels-per-class", label))
        chosen.append(members[order[:per_class]])
    return take(dataset, torch.cat(chosen).sort().values)


def with_wrong_labels(dataset: AnySet, rate: float, *, kind: NoiseKind = "symmetric", seed: int) -> AnySet:
    """The set with ``round(rate * N)`` of its labels redrawn; of one seed, a lower rate redraws a part of the same labels.

    Args:
        rate: 0..1; the set is returned as it is for 0.
        kind: ``symmetric`` draws from all K classes alike, so that a share of ``rate * (K-1)/K`` becomes wrong (36 % at 0.4
            and ten classes); ``pair`` takes the next class, the first one after the last, so that all redrawn labels are wrong.

    Returns:
        A set with ``labels`` as given to the network, ``true_labels`` as they were, and ``redrawn`` (N,) bool.
    """
    check_choice("label_noise_kind", kind, NoiseKind)
    if not 0 <= rate <= 1:
        raise ValueError(f"--label-noise must be at least 0 and at most 1, got {rate}")
    if rate == 0:
        return dataset
    count, classes = len(dataset), len(dataset.classes)
    order = torch.randperm(count, generator=seeded_generator(seed, "label-noise"))
    redrawn = torch.zeros(count, dtype=torch.bool).index_fill_(0, order[: round(rate * count)], True)
    if kind == "symmetric":
        others = torch.randint(classes, (count,), generator=seeded_generator(seed, "label-noise", "classes"))
    else:
        others = (dataset.labels + 1) % classes
    labels = torch.where(redrawn, others, dataset.labels)
    return replace(dataset, labels=labels, true_labels=dataset.labels, redrawn=redrawn)


def label_record(dataset: ImageSet | FolderSet) -> dict[str, Any]:
    """What labels.json holds: which samples were chosen, and which labels were redrawn; all indices count from 0.

    Returns:
        ``count``; ``samples``: positions in the data set, null where all of it is used; ``redrawn``: indices into the samples;
        ``wrong``: those of them whose label has changed; ``true`` and ``given``: the classes of ``wrong``.
    """
    record: dict[str, Any] = {"count": len(dataset), "classes": list(dataset.classes)}
    record["samples"] = None if dataset.positions is None else dataset.positions.tolist()
    if dataset.true_labels is not None and dataset.redrawn is not None:
        wrong = (dataset.labels != dataset.true_labels).nonzero()[:, 0]
        record["redrawn"] = dataset.redrawn.nonzero()[:, 0].tolist()
        record["wrong"] = wrong.tolist()
        record["true"], record["given"] = dataset.true_labels[wrong].tolist(), dataset.labels[wrong].tolist()
    return record
