"""The data sets of the classifiers: which exist, where they are looked for, and how each becomes tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2.functional import resize

from mixgan.data.images import list_images, read_images
from mixgan.data.tiles import CLASSES, make_tiles

Split = Literal["train", "test"]
OnBadImage = Literal["error", "skip"]
Moments = tuple[float, ...]

DEFAULT_SIZE = {"tiles": 64, "imagefolder": 224}  # all others: 32
TILES_COUNT = {"train": 5000, "test": 1000}
TILES_START = {"train": 0, "test": 1_000_000}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set that fits into memory.

    Attributes:
        images: (N,C,H,W) uint8.
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1.
        flip: whether a mirrored image still belongs to its class (not so for digits).
        skipped: unreadable files that were left out.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments
    std: Moments
    flip: bool = True
    skipped: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        return self.images.shape[-1]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """A set of files too large for memory, read when a batch needs them; always 3 channels.

    Attributes:
        labels: (N,) int64, positions in ``classes``.
        mean, std: per channel, of images in 0..1.
        size: side of the squares that batches are made of.
        on_bad_image: what feeds do at an unreadable file.
    """

    name: str
    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    mean: Moments
    std: Moments
    size: int
    flip: bool = True
    on_bad_image: OnBadImage = "error"
    channels: int = 3

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class _Official:
    """One of torchvision's sets: its class, where its files lie below the data root, and the set's own figures."""

    source: Callable[..., Any]
    files: str
    mean: Moments
    std: Moments
    flip: bool = True


_OFFICIAL = {
    "cifar10": _Official(
        datasets.CIFAR10, "cifar-10-batches-py", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    "cifar100": _Official(
        datasets.CIFAR100, "cifar-100-python", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)
    ),
    "mnist": _Official(datasets.MNIST, "MNIST/raw", mean=(0.1307,), std=(0.3081,), flip=False),
    "fashion-mnist": _Official(datasets.FashionMNIST, "FashionMNIST/raw", mean=(0.2860,), std=(0.3530,)),
    "svhn": _Official(
        datasets.SVHN, "{split}_32x32.mat", mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970), flip=False
    ),
}
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def list_datasets() -> list[str]:
    """The names that ``load_dataset`` knows; ``resolve_dataset`` knows ``auto`` besides."""
    return ["tiles", *_OFFICIAL, "imagefolder"]


def resolve_dataset(name: str, data_root: Path) -> str:
    """``auto`` becomes ``cifar10`` where that lies under the data root, else ``tiles``; other names stay. Never downloads.

    Raises:
        ValueError: no set has this name.
    """
    if name != "auto":
        _check_name(name, ["auto", *list_datasets()])
        return name
    root = Path(data_root)
    return "cifar10" if (root / _OFFICIAL["cifar10"].files).is_dir() or _has_cifar_folders(root) else "tiles"


def load_dataset(
    name: str,
    data_root: Path,
    *,
    split: Split,
    size: int | None = None,
    download: bool = False,
    seed: int = 0,
    count: int | None = None,
    tiles_view: Literal["photo", "map", "both"] = "photo",
    on_bad_image: OnBadImage = "error",
) -> ImageSet | FolderSet:
    """One split of a data set, by name.

    - ``tiles``: the embedded tiles, made on the spot; training and test tiles never coincide.
    - ``cifar10``, ``cifar100``, ``mnist``, ``fashion-mnist``, ``svhn``: torchvision's files under the data root, at 32 px; the
      28 px sets are resized to 32 px as in the LaMix paper and keep their one channel. ``cifar10`` is also found as class
      folders of equally large images, ``<root>/cifar10/{train,test}/<class>/*``.
    - ``imagefolder``: class folders ``<root>/imagefolder/{train,test}/<class>/*`` or ``<root>/{train,test}/<class>/*``, where
      ``val`` may stand for ``test``; streamed from disk, normalised as ImageNet.

    Args:
        size: side in px; default 64 for tiles, 32 for the small sets, 224 for ``imagefolder``.
        download: fetch torchvision's files if they are missing. With several processes let one come first.
        seed: of the tiles.
        count: tiles to make; default 5000 for training, 1000 for testing.
        tiles_view: ``both`` gives every photo, then every map, with 2 * count images in all.
        on_bad_image: unreadable files of class folders are an error, or left out.

    Returns:
        A FolderSet for ``imagefolder``, else an ImageSet.

    Raises:
        ValueError: unknown name or option, a set that is missing, a damaged file.
    """
    _check_name(name, list_datasets())
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image must be 'error' or 'skip', got {on_bad_image!r}")
    size = DEFAULT_SIZE.get(name, 32) if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if name == "tiles":
        return _tiles(split, size=size, seed=seed, count=count, view=tiles_view)
    if count is not None or tiles_view != "photo":
        raise ValueError(f"count and tiles_view are options of the tiles, not of {name!r}")
    root = Path(data_root)
    if name == "imagefolder":
        return _image_folder(root, split, size=size, on_bad_image=on_bad_image)
    if name == "cifar10" and not (root / _OFFICIAL[name].files).is_dir() and _has_cifar_folders(root):
        return _cifar_folders(root, split, size=size, on_bad_image=on_bad_image)
    return _official(name, root, split, size=size, download=download)


def _check_name(name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(known)}")


def _tiles(split: Split, *, size: int, seed: int, count: int | None, view: str) -> ImageSet:
    if view not in ("photo", "map", "both"):
        raise ValueError(f"tiles_view must be 'photo', 'map' or 'both', got {view!r}")
    tiles = make_tiles(TILES_COUNT[split] if count is None else count, size=size, seed=seed, start=TILES_START[split])
    images = {"photo": tiles.photos, "map": tiles.maps, "both": torch.cat([tiles.photos, tiles.maps])}[view]
    labels = tiles.labels.repeat(2) if view == "both" else tiles.labels
    return ImageSet("tiles", images, labels, tuple(CLASSES), mean=(0.5,) * 3, std=(0.5,) * 3)


def _official(name: str, root: Path, split: Split, *, size: int, download: bool) -> ImageSet:
    spec = _OFFICIAL[name]
    choice = {"split": split} if name == "svhn" else {"train": split == "train"}
    try:
        found = spec.source(str(root), download=download, **choice)
    except (RuntimeError, OSError) as error:
        raise ValueError(_missing(name, root, split, download, error)) from error
    labels = torch.as_tensor(found.labels if name == "svhn" else found.targets, dtype=torch.int64)
    classes = tuple(getattr(found, "classes", "0123456789"))  # SVHN's are the digits
    images = _resized(_channels_first(torch.as_tensor(found.data)), size)
    return ImageSet(name, images, labels, classes, spec.mean, spec.std, spec.flip)


def _missing(name: str, root: Path, split: Split, download: bool, error: Exception) -> str:
    if download:
        return f"{name} could not be downloaded to {str(root)!r}: {error}"
    places = [str(root / _OFFICIAL[name].files.format(split=split))]
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


def _resized(images: Tensor, size: int) -> Tensor:
    """All images at ``size`` x ``size``, bilinear with antialiasing; in pieces, as it passes through float32."""
    if images.shape[-2:] == (size, size):
        return images
    return torch.cat([resize(piece, [size, size], antialias=True) for piece in images.split(4096)])


def _has_cifar_folders(root: Path) -> bool:
    return all((root / "cifar10" / split).is_dir() for split in ("train", "test"))


def _cifar_folders(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> ImageSet:
    train, folder = root / "cifar10" / "train", root / "cifar10" / split
    classes = _class_names(train)
    paths, labels = _list_classes(folder, classes)
    loaded = read_images(paths, on_bad_image=on_bad_image, description=f"reading cifar10 {split}")
    if loaded.skipped:
        label_of = dict(zip(paths, labels, strict=True))
        labels = [label_of[path] for path in loaded.kept]
    images = _resized(loaded.images, size)
    spec = _OFFICIAL["cifar10"]
    return ImageSet(
        "cifar10", images, torch.tensor(labels), classes, spec.mean, spec.std, spec.flip, skipped=loaded.skipped
    )


def _image_folder(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    for base in (root / "imagefolder", root):
        train = base / "train"
        # ImageNet's own test folder has no classes: there val is what results are reported on.
        tests = [base / name for name in ("test", "val") if _class_names(base / name)]
        if _class_names(train) and tests:
            break
    else:
        raise ValueError(
            f"imagefolder is not there: looked for class folders train/<class>/ and test/<class>/ (or val/<class>/) in"
            f" {str(root / 'imagefolder')!r} and in {str(root)!r}; --data-root names another place"
        )
    classes = _class_names(train)
    paths, labels = _list_classes(train if split == "train" else tests[0], classes)
    return FolderSet(
        "imagefolder",
        tuple(paths),
        torch.tensor(labels),
        classes,
        _IMAGENET_MEAN,
        _IMAGENET_STD,
        size,
        on_bad_image=on_bad_image,
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    """The sub-folders of a folder, sorted; none if there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _list_classes(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """Every image below ``folder/<class>`` with its label; ``classes`` are the training split's, so that labels agree."""
    unknown = [name for name in _class_names(folder) if name not in classes]
    if unknown:
        raise ValueError(f"{str(folder)!r} has classes that the training folder lacks: {', '.join(unknown)}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            found = list_images(folder / name)
            paths += found
            labels += [label] * len(found)
    return paths, labels
