"""The images that a DCGAN run learns from and is compared with: synthetic tiles, CIFAR-10 or Fashion-MNIST, all in memory."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from mixgan.data.images import list_images, read_images
from mixgan.data.tiles import make_tiles
from mixgan.gan.data import TEST_TILES_START, TILES_SEED

Split = Literal["train", "test"]
TILES = {"train": 2000, "test": 500}
#: torchvision's class and where its files lie below the data root.
OFFICIAL = {
    "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
}


def find_cifar10(data_root: Path) -> Path | None:
    """Where CIFAR-10 lies: torchvision's files, or class folders ``cifar10/{train,test}/<class>/*``; None where neither does."""
    official, folders = data_root / OFFICIAL["cifar10"][1], data_root / "cifar10"
    if official.is_dir():
        return official
    return folders if all((folders / split).is_dir() for split in ("train", "test")) else None


def load_images(
    dataset: Literal["tiles", "cifar10", "fashion-mnist"],
    data_root: Path,
    *,
    split: Split,
    size: int,
    count: int | None = None,
    download: bool = False,
    on_bad_image: Literal["error", "skip"] = "error",
) -> Tensor:
    """The images of one split (N,C,size,size) uint8, C 1 for Fashion-MNIST and 3 else; labels play no part.

    Args:
        count: only so many; of the tiles that many are made (default: 2000 and 500).
        download: fetch torchvision's files where the set is missing. With several processes let one come first.

    Raises:
        ValueError: the set is missing or damaged, a bad file.
    """
    if dataset == "tiles":
        start = 0 if split == "train" else TEST_TILES_START
        return make_tiles(count or TILES[split], size=size, seed=TILES_SEED, start=start).photos
    folders = data_root / "cifar10"
    if dataset == "cifar10" and find_cifar10(data_root) == folders:
        paths = _spread(list_images(folders / split), count)
        images = read_images(paths, on_bad_image=on_bad_image, description=f"reading cifar10 {split}").images
    else:
        images = _official(dataset, data_root, split, download=download)[:count]
    if images.shape[-1] == size:
        return images
    # In pieces, as it passes through float32.
    return torch.cat([resize(piece, [size, size], antialias=True) for piece in images.split(4096)])


def _spread(paths: list[Path], count: int | None) -> list[Path]:
    """So many files at even distances: class folders come one after the other, and the first ones would be of one class."""
    if count is None or count >= len(paths):
        return paths
    return [paths[k * len(paths) // count] for k in range(count)]


def _official(dataset: str, data_root: Path, split: Split, *, download: bool) -> Tensor:
    source, files = OFFICIAL[dataset]
    try:
        found = source(str(data_root), train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise ValueError(f"{dataset} could not be downloaded to {data_root}: {error}") from error
        also = f" and {data_root / 'cifar10' / '{train,test}' / '<class>'}" if dataset == "cifar10" else ""
        raise ValueError(
            f"{dataset} is not there or damaged: looked for {data_root / files}{also}; --download fetches it, --data-root "
            "names another place"
        ) from error
    images = torch.as_tensor(found.data)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
