"""Training and test images of the GAN commands: two domains for MixCycleGAN, one set of images for DCGAN."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mixgan.data.domains import Domains, find_maps, load_maps
from mixgan.data.download import download_maps
from mixgan.data.images import list_images, read_images
from mixgan.data.order import epoch_order, rank_batch, seeded_generator
from mixgan.data.tiles import LARGEST, make_tiles
from mixgan.gan.config import GanSettings
from mixgan.ops.transforms import crop_flip, to_signed

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


def fetch(settings: GanSettings) -> None:
    """Download Google Maps where --download asks for it and it is missing."""
    if settings.download and settings.dataset == "maps" and find_maps(settings.data_root) is None:
        download_maps(settings.data_root)


def training_domains(settings: GanSettings) -> Domains:
    """The training images, 286/256 times as large as the crops that are cut from them."""
    return _load(settings, "train", size=round(settings.image_size * 286 / 256), count=settings.train_count)


def test_domains(settings: GanSettings) -> Domains:
    """The test images, as large as the training crops; a dry run takes only a few."""
    count = DRY_RUN_TESTS if settings.dry_run else settings.eval_count
    return _load(settings, "val", size=settings.image_size, count=count)


def _load(settings: GanSettings, split: Literal["train", "val"], *, size: int, count: int | None) -> Domains:
    if settings.dataset == "maps":
        return load_maps(settings.data_root, split, size=size, limit=count, on_bad_image=settings.on_bad_image)
    start = 0 if split == "train" else TEST_TILES_START
    # Tiles have at most 256 px: larger crops are refused, crops of nearly that size just have less room to move.
    size = min(size, max(LARGEST, settings.image_size))
    tiles = make_tiles(count or TILES[split], size=size, seed=TILES_SEED, start=start)
    names = tuple(f"tile {start + k}" for k in range(len(tiles.photos)))
    return Domains(tiles.photos, tiles.maps, paired=True, names=names, skipped=())


class DomainLoader:
    """Unpaired training batches: each domain, and its second draw, is shuffled, cropped and flipped independently.

    Orders, crops and flips are functions of (seed, epoch, position), so an epoch can be entered at any step. An epoch is as
    long as the larger domain; the smaller one is repeated.

    Args:
        domains: training images, uint8, larger than the crops or as large; moved to ``device``.
        size: side of the random crops.
        batch_size: per rank.

    Raises:
        ValueError: an epoch would hold no batch.
    """

    def __init__(
        self,
        domains: Domains,
        *,
        size: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.domains = replace(domains, a=domains.a.to(device), b=domains.b.to(device))
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self.count = max(len(domains.a), len(domains.b))
        self.steps_per_epoch = self.count // (batch_size * world)
        if self.steps_per_epoch == 0:
            raise ValueError(f"{self.count} training images make no batch of {batch_size} on each of {world} processes")

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[DomainBatch]:
        """The batches of an epoch from ``first_step`` on."""
        a, b = self.domains.a, self.domains.b
        streams = {"a": a, "b": b, "a_second": a, "b_second": b}
        draws = {name: self._draw(images, name, epoch) for name, images in streams.items()}
        for step in range(first_step, self.steps_per_epoch):
            yield DomainBatch(**{name: self._cut(streams[name], draws[name], step) for name in streams})

    def _draw(self, images: Tensor, name: str, epoch: int) -> Tensor:
        """(4, count) int64 on the device: image, top, left, flip for every position of the epoch."""
        repeats = -(-self.count // len(images))
        orders = [epoch_order(len(images), seed=self.seed, epoch=epoch, name=f"{name} {k}") for k in range(repeats)]
        generator = seeded_generator(self.seed, name, "augment", epoch)
        room = images.shape[-1] - self.size + 1
        corner = torch.randint(room, (2, self.count), generator=generator)
        flip = torch.randint(2, (1, self.count), generator=generator)
        return torch.cat((torch.cat(orders)[None, : self.count], corner, flip)).to(images.device)

    def _cut(self, images: Tensor, draws: Tensor, step: int) -> Tensor:
        chosen = rank_batch(draws.T, step, batch_size=self.batch_size, rank=self.rank, world=self.world)
        index, top, left, flip = chosen.unbind(1)
        return to_signed(crop_flip(images[index], top, left, flip.bool(), (self.size, self.size)))


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
    download: bool = False,
    on_bad_image: Literal["error", "skip"] = "error",
) -> Tensor:
    """The images of one split (N,C,size,size) uint8, C 1 for Fashion-MNIST and 3 else; labels are not used.

    Args:
        count: how many; of the tiles that many are drawn (default: 2000 and 500).
        download: fetch torchvision's files where the set is missing. With several processes let one come first.

    Raises:
        ValueError: the set is missing or damaged, or an image cannot be read.
    """
    from torchvision.transforms.v2.functional import resize

    if dataset == "tiles":
        start = 0 if split == "train" else TEST_TILES_START
        return make_tiles(count or DCGAN_TILES[split], size=size, seed=TILES_SEED, start=start).photos
    folders = data_root / "cifar10"
    if dataset == "cifar10" and find_cifar10(data_root) == folders:
        paths = list_images(folders / split)
        if count is not None and count < len(paths):  # at even distances, so that all classes are among them
            paths = [paths[k * len(paths) // count] for k in range(count)]
        images = read_images(paths, on_bad_image=on_bad_image, description=f"reading cifar10 {split}").images
    else:
        images = _official(dataset, data_root, split, download=download)[:count]
    if images.shape[-1] == size:
        return images
    # In pieces, as it passes through float32.
    return torch.cat([resize(piece, [size, size], antialias=True) for piece in images.split(4096)])


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
    """Shuffled training batches, half of the images mirrored.

    Orders and flips are functions of (seed, epoch, position), so an epoch can be entered at any step.

    Args:
        images: (N,C,S,S) uint8; moved to ``device``.
        batch_size: per rank.

    Raises:
        ValueError: an epoch would hold no batch.
    """

    def __init__(
        self, images: Tensor, *, batch_size: int, seed: int, device: torch.device, rank: int = 0, world: int = 1
    ) -> None:
        self.images = images.to(device)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.steps_per_epoch = len(images) // (batch_size * world)
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(images)} training images make no batch of {batch_size} on each of {world} processes"
            )

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
