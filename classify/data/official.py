"""The small sets that torchvision reads: CIFAR, MNIST, Fashion-MNIST, SVHN."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from classify.data.sets import ImageSet, Moments, Split, resized


@dataclass(frozen=True)
class Official:
    """One of torchvision's sets: its class, where its files lie below the data root, and the set's own figures."""

    source: Callable[..., Any]
    files: str
    mean: Moments
    std: Moments
    flip: bool = True


OFFICIAL = {
    "cifar10": Official(
        datasets.CIFAR10, "cifar-10-batches-py", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    "cifar100": Official(
        datasets.CIFAR100, "cifar-100-python", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)
    ),
    "mnist": Official(datasets.MNIST, "MNIST/raw", mean=(0.1307,), std=(0.3081,), flip=False),
    "fashion-mnist": Official(datasets.FashionMNIST, "FashionMNIST/raw", mean=(0.2860,), std=(0.3530,)),
    "svhn": Official(
        datasets.SVHN, "{split}_32x32.mat", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), flip=False
    ),
}


def load_official(name: str, root: Path, split: Split, *, size: int, download: bool) -> ImageSet:
    """One of torchvision's sets, in memory."""
    spec = OFFICIAL[name]
    choice = {"split": split} if name == "svhn" else {"train": split == "train"}
    try:
        found = spec.source(str(root), download=download, **choice)
    except (RuntimeError, OSError) as error:
        raise ValueError(_missing(name, root, split, download, error)) from error
    labels = torch.as_tensor(found.labels if name == "svhn" else found.targets, dtype=torch.int64)
    classes = tuple(getattr(found, "classes", "0123456789"))  # SVHN's are the digits
    images = resized(_channels_first(torch.as_tensor(found.data)), size)
    return ImageSet(name, images, labels, classes, spec.mean, spec.std, spec.flip)


def _missing(name: str, root: Path, split: Split, download: bool, error: Exception) -> str:
    if download:
        return f"{name} could not be downloaded to {str(root)!r}: {error}"
    places = [str(root / OFFICIAL[name].files.format(split=split))]
    if name == "cifar10":
        places.append(f"{root / 'cifar10' / '{train,test}' / '<class>'}")
    return (
        f"{name} is not there or damaged: looked for {' and '.join(places)}; --download fetches it, --data-root names"
        " another place"
    )


def _channels_first(images: Tensor) -> Tensor:
    """(N,H,W), (N,H,W,3) or (N,C,H,W) -> (N,C,H,W)."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    return (images.permute(0, 3, 1, 2) if images.shape[-1] == 3 else images).contiguous()
