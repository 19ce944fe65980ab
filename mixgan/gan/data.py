"""Training and test images of the GAN commands: two domains for MixCycleGAN, one set of images for DCGAN."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mixgan.data.domains import (
    Domains,
    FileImages,
    Geometry,
    Images,
    find_folders,
    find_maps,
    find_maps_files,
    find_two_folders,
    image_sizes,
    load_domains,
    one_size,
)
from mixgan.data.download import download_maps
from mixgan.data.images import BadImageError, Pixels, list_images, read_images
from mixgan.data.stream import read_ahead
from mixgan.data.tiles import LARGEST, cached_tiles
from mixgan.engine.accelerator import epoch_order, rank_batch, seeded_generator
from mixgan.gan.config import GanSettings, unet_depth
from mixgan.ops.transforms import crop_flip, resize, to_signed

TEST_TILES_START = 1_000_000
TILES_SEED = 0  # the data set stays the same when the run's seed changes
TILES = {"train": 400, "val": 128}
DCGAN_TILES = {"train": 2000, "test": 500}
#: Where torchvision's files are, below the data root.
OFFICIAL = {"cifar10": "cifar-10-batches-py", "fashion-mnist": "FashionMNIST/raw"}
Split = Literal["train", "test"]
#: As many test pairs as a kernel distance needs.
DRY_RUN_TESTS = 4


class DomainBatch(NamedTuple):
    """Unpaired images of one step in [-1,1], (B,3,S,S) each: a and b, and a second draw of each to stitch with."""

    a: Tensor
    b: Tensor
    a_second: Tensor
    b_second: Tensor


def own_splits(folder: Path) -> list[str]:
    """Names of the subfolders of a domain's folder that are a training and a test set; none where one of the two is missing."""
    found = [[name for name in names if (folder / name).is_dir()] for names in (["train"], ["test", "val"])]
    return [name for names in found for name in names] if all(found) else []


def fetch(settings: GanSettings) -> None:
    """Download Google Maps where --download asks for it and it is missing."""
    if settings.download and settings.dataset == "maps" and find_maps(settings.data_root) is None:
        download_maps(settings.data_root)


def training_domains(settings: GanSettings, *, cache_bytes: float = math.inf) -> Domains:
    """The training images, 286/256 times as large as the crops that are cut from them, or as --preprocess has it.

    Files that are more than ``cache_bytes`` in memory stay on disk.
    """
    size = settings.load_size or round(settings.image_size * 286 / 256)
    size = settings.image_size if settings.preprocess == "crop" else size
    return _load(settings, "train", size=size, count=settings.train_count, cache_bytes=cache_bytes)


def test_domains(settings: GanSettings) -> Domains:
    """The test images, as large as the training crops; a dry run takes only a few."""
    count = DRY_RUN_TESTS if settings.dry_run else settings.eval_count
    domains = _load(settings, "val", size=settings.image_size, count=count)
    one_size(domains.a, domains.b)
    return domains


def crop_size(settings: GanSettings, domains: Domains) -> tuple[int, int]:
    """(h, w) of the training crops: --image-size, or under --preprocess none the whole images.

    Raises:
        ValueError: under none, images of different sizes, or of sides that generators do not take.
    """
    if settings.preprocess != "none":
        return settings.image_size, settings.image_size
    height, width = one_size(domains.a, domains.b)
    step = 2 ** unet_depth(settings.image_size) if settings.generator == "unet" else 4
    if height % step or width % step or min(height, width) < 32:
        raise ValueError(
            f"--preprocess none needs sides that are multiples of {step}, at least 32, got {width}x{height}; "
            "--preprocess crop or scale-crop cuts such out"
        )
    return height, width


def _load(
    settings: GanSettings,
    split: Literal["train", "val"],
    *,
    size: int,
    count: int | None,
    cache_bytes: float = math.inf,
) -> Domains:
    if settings.dataset == "tiles":
        start = 0 if split == "train" else TEST_TILES_START
        # Tiles have at most 256 px: larger crops are refused, crops of nearly that size just have less room to move.
        size = min(size, max(LARGEST, settings.image_size))
        tiles = cached_tiles(count or TILES[split], size=size, seed=TILES_SEED, start=start)
        return Domains(tiles.photos, tiles.maps, paired=True)
    is_maps = settings.dataset == "maps"
    splitting: dict[str, Any] = {"test_share": settings.test_share, "paired": settings.pairs}
    if is_maps:
        files = find_maps_files(settings.data_root, split, paired=settings.pairs or None)
    elif settings.domain_a and settings.domain_b:
        files = find_two_folders(settings.domain_a, settings.domain_b, split, **splitting)
    else:
        files = find_folders(settings.data_root, split, **splitting)
    sides = (settings.channels_a, settings.range_a), (settings.channels_b, settings.range_b)
    a, b = (
        Pixels(channels, drop_alpha=settings.drop_alpha or is_maps, value_range=limits) for channels, limits in sides
    )
    return load_domains(
        files,
        Geometry(settings.preprocess, size, centre=split == "val"),
        pixels=(a, b),
        limit=count,
        on_bad_image=settings.on_bad_image,
        title="Google Maps" if is_maps else " and ".join(settings.domain_names),
        cache_bytes=cache_bytes,
    )


def no_batch(count: int, batch_size: int, world: int) -> str:
    """The sentence for a training set that is smaller than a batch of all processes."""
    processes = f" on each of {world} processes" if world > 1 else ""
    return f"{count} training images make no batch of {batch_size}{processes}; lower --batch-size"


class DomainLoader:
    """Unpaired training batches: each domain, and its second draw, is shuffled, cropped and flipped independently.

    Orders, crops and flips are functions of (seed, epoch, position), so an epoch can be entered at any step. An epoch is as
    long as the larger domain; the smaller one is repeated. ValueError where it would hold no batch.

    Args:
        domains: training images, larger than the crops or as large; in memory they are moved to ``device``, on disk the files
            of a batch are read ahead of it.
        size: side of the random crops, or their (h, w).
        batch_size: per rank.
        flip: mirror half of the images.
        workers: processes that read files; 0 reads in this process. The batches do not depend on it.
    """

    def __init__(
        self,
        domains: Domains,
        *,
        size: int | tuple[int, int],
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        flip: bool = True,
        workers: int = 0,
    ) -> None:
        self.device, self.workers = device, workers
        self.domains = replace(domains, a=_to(domains.a, device), b=_to(domains.b, device))
        self.size = (size, size) if isinstance(size, int) else size
        self.batch_size, self.seed, self.rank, self.world, self.flip = batch_size, seed, rank, world, flip
        self.count = max(len(domains.a), len(domains.b))
        self.steps_per_epoch = self.count // (batch_size * world)
        if self.steps_per_epoch == 0:
            raise ValueError(no_batch(self.count, batch_size, world))

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[DomainBatch]:
        """The batches of an epoch from ``first_step`` on; BadImageError for a file on disk that cannot be read."""
        a, b = self.domains.a, self.domains.b
        images = {"a": a, "b": b, "a_second": a, "b_second": b}
        draws = [self._draw(each, name, epoch) for name, each in images.items()]
        share = {"batch_size": self.batch_size, "rank": self.rank, "world": self.world}
        cuts = _Cuts([*images.values()], draws, self.size, share)
        steps = range(first_step, self.steps_per_epoch)
        read = partial(read_ahead, workers=self.workers, device=self.device) if self.domains.on_disk else map
        for batch in read(cuts, steps):
            yield DomainBatch(*(to_signed(crops.to(self.device, non_blocking=True)) for crops in batch))

    def _draw(self, images: Images, name: str, epoch: int) -> Tensor:
        """(4, count) int64 where the images are: image, top, left, flip for every position of the epoch."""
        repeats = -(-self.count // len(images))
        orders = [epoch_order(len(images), seed=self.seed, epoch=epoch, name=f"{name} {k}") for k in range(repeats)]
        index = torch.cat(orders)[: self.count]
        generator = seeded_generator(self.seed, name, "augment", epoch)
        sizes = image_sizes(images)
        rooms = {side - cut + 1 for size in sizes for side, cut in zip(size, self.size, strict=True)}
        if len(rooms) == 1:
            corner = torch.randint(rooms.pop(), (2, self.count), generator=generator)
        else:  # a share of each image's own room
            shapes = (
                images.shapes if isinstance(images, FileImages) else torch.tensor([each.shape[-2:] for each in images])
            )
            room = shapes[index] - torch.tensor(self.size) + 1
            corner = (torch.rand(2, self.count, generator=generator) * room.T).long()
        flip = torch.randint(2, (1, self.count), generator=generator) * self.flip
        draws = torch.cat((index[None], corner, flip))
        return draws.to(images.device) if isinstance(images, Tensor) else draws


@dataclass(frozen=True)
class _Cuts:
    """From a step of an epoch to its crops (B,C,h,w) of each stream, as ``draws`` (4,count) have them."""

    images: Sequence[Images]
    draws: Sequence[Tensor]
    size: tuple[int, int]
    share: dict[str, int]

    def __call__(self, step: int, bad: list[BadImageError] | None = None) -> list[Tensor]:
        return [
            self._cut(images, rank_batch(draws.T, step, **self.share))
            for images, draws in zip(self.images, self.draws, strict=True)
        ]

    def _cut(self, images: Images, chosen: Tensor) -> Tensor:
        if isinstance(images, Tensor):
            index, top, left, flip = chosen.unbind(1)
            return crop_flip(images[index], top, left, flip.bool(), self.size)
        pieces = []
        for number, y, x, mirrored in chosen.tolist():  # each of its own size
            piece = images[number][:, y : y + self.size[0], x : x + self.size[1]]
            pieces.append(piece.flip(-1) if mirrored else piece)
        return torch.stack(pieces)


def _to(images: Images, device: torch.device) -> Images:
    if isinstance(images, list):
        return [image.to(device) for image in images]
    return images.to(device) if isinstance(images, Tensor) else images


# DCGAN's images.


def find_cifar10(data_root: Path) -> Path | None:
    """Folder of CIFAR-10: torchvision's files, or class folders ``cifar10/{train,test}/<class>/*``; None if neither exists."""
    official, folders = data_root / OFFICIAL["cifar10"], data_root / "cifar10"
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
    on_bad_image: Literal["error", "skip"] = "error",
) -> Tensor:
    """The images of one split (N,C,size,size) uint8, C 1 for Fashion-MNIST and 3 else; labels are not used.

    Args:
        count: how many; of the tiles that many are drawn (default: 2000 and 500).

    Raises:
        ValueError: the set is missing or damaged, or an image cannot be read.
    """
    if dataset == "tiles":
        start = 0 if split == "train" else TEST_TILES_START
        return cached_tiles(count or DCGAN_TILES[split], size=size, seed=TILES_SEED, start=start).photos
    folders = data_root / "cifar10"
    if dataset == "cifar10" and find_cifar10(data_root) == folders:
        paths = list_images(folders / split)
        if count is not None and count < len(paths):  # at even distances, so that all classes are among them
            paths = [paths[k * len(paths) // count] for k in range(count)]
        images, _ = read_images(paths, on_bad_image=on_bad_image, description=f"reading cifar10 {split}")
    else:
        images = _official(dataset, data_root, split, download=False)[:count]
    return resize(images, size, antialias=True)


def fetch_images(dataset: str, data_root: Path) -> None:
    """Download the data set where it is missing; torchvision keeps files that are there."""
    if dataset == "tiles" or (dataset == "cifar10" and find_cifar10(data_root) == data_root / "cifar10"):
        return
    for split in get_args(Split):
        _official(dataset, data_root, split, download=True)


def _official(dataset: str, data_root: Path, split: Split, *, download: bool) -> Tensor:
    """The images of a set that torchvision reads (N,C,H,W) uint8."""
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "fashion-mnist": datasets.FashionMNIST}[dataset]
    try:
        found = source(str(data_root), train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        if download:
            raise ValueError(f"{dataset} could not be downloaded to {data_root}: {error}") from error
        also = f" and {data_root / 'cifar10' / '{train,test}' / '<class>'}" if dataset == "cifar10" else ""
        raise ValueError(
            f"{dataset} not found or corrupted; searched {data_root / OFFICIAL[dataset]}{also}; --download fetches it, "
            "--data-root names another folder"
        ) from error
    images = torch.as_tensor(found.data)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


class ImageLoader:
    """Shuffled training batches of images (N,C,S,S) uint8, half of them mirrored; ``batch_size`` is per rank.

    Orders and flips are functions of (seed, epoch, position), so an epoch can be entered at any step. ValueError where it would
    hold no batch.
    """

    def __init__(
        self, images: Tensor, *, batch_size: int, seed: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        self.images = images.to(device)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.steps_per_epoch = len(images) // (batch_size * world)
        if self.steps_per_epoch == 0:
            raise ValueError(no_batch(len(images), batch_size, world))

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Tensor]:
        """Batches (B,C,S,S) float32 in [-1,1] from ``first_step`` on."""
        count, size = len(self.images), (self.images.shape[-2], self.images.shape[-1])
        order = epoch_order(count, seed=self.seed, epoch=epoch)
        flips = torch.randint(2, (count,), generator=seeded_generator(self.seed, "flip", epoch))
        draws = torch.stack((order, flips), 1).to(self.images.device)
        for step in range(first_step, self.steps_per_epoch):
            chosen = rank_batch(draws, step, batch_size=self.batch_size, rank=self.rank, world=self.world)
            index, flip = chosen.unbind(1)
            corner = torch.zeros_like(index)
            yield to_signed(crop_flip(self.images[index], corner, corner, flip.bool(), size))
