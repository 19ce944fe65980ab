"""Where the images of an evaluation come from: a folder, a tensor or a DataLoader, as batches of one process's share."""

import hashlib
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from mixgan.data.images import (
    BadImageError,
    Box,
    image_size,
    list_images,
    pair_boxes,
    skipped_text,
    stream_views,
)
from mixgan.evaluate.feature_set import read_made_with, read_npz

# Files per task of a decoding thread: few, so that photographs of many megapixels do not fill the memory.
FILES_PER_TASK = 4
# Bytes of decoded pictures that wait for others of their size; beyond this a batch goes out part-filled.
GATHERED_BYTES = 2**29
#: Sides below this are too small for the window of SSIM, a metric of pairs.
LEAST_SIDE = 11
_HALVES = {"A": "left half (A, photo)", "B": "right half (B, map)"}


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a decoded picture before the feature network, in 8 bit as in training.

    ``size``: resize to that side in pixels by Pillow's antialiased bicubic; None keeps all sizes. ``domain``: first crop
    side-by-side pairs of Google Maps: "A" is the left half (photo), "B" the right half (map).
    """

    size: int | None = None
    domain: Literal["A", "B"] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 or None, got {self.size}")
        if self.domain not in (None, "A", "B"):
            raise ValueError(f"domain must be 'A', 'B' or None, got {self.domain!r}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The preprocessed picture; with ``domain`` ValueError for one that is not a side-by-side pair."""
        if self.domain is not None:
            image = image.crop(self.box(*image.size))
        return image if self.size is None else image.resize((self.size, self.size), Image.Resampling.BICUBIC)

    def box(self, width: int, height: int) -> Box:
        """The part of a picture of this size that is used: (left, upper, right, lower)."""
        return (0, 0, width, height) if self.domain is None else pair_boxes(width, height)["AB".index(self.domain)]

    def text(self) -> str:
        """For reports, continuing a sentence that begins with "images"."""
        cut = f"cut to the {_HALVES[self.domain]} of side-by-side pairs, then " if self.domain else ""
        scaled = f"resized to {self.size} x {self.size} px (bicubic, antialiased) and rounded to 8 bit"
        return f"{cut}{scaled if self.size else 'left at their own size'} before the feature network"


class Batch(NamedTuple):
    """Images of one size, and their positions in the source."""

    images: Tensor  # (B,3,H,W) uint8 0..255, or float 0..1 where they came so
    indices: Tensor  # (B,) int64, on the CPU


class Source(Protocol):
    """A set of images. Over all ranks its batches contain every image exactly once, whatever the number of processes.

    ``count`` is the number of images, bad files included, None if unknown before they have been read; ``skipped`` are the bad
    files that the last complete pass over this process's batches skipped.
    """

    name: str
    skipped: tuple[Path, ...]

    @property
    def count(self) -> int | None: ...

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The images at the positions rank, rank + world, ...; a batch has at most ``batch_size`` of them."""


@dataclass
class FolderSource:
    """All images of a folder and its subfolders; Pillow decodes them, so that pixels equal pytorch-fid's.

    ``files`` are in natural order; positions in batches are positions there. ``on_bad_image`` "skip" leaves bad files out. For
    reports: ``name``, ``origin`` (what was read) and ``how`` (the images were preprocessed).

    Raises:
        ValueError: the folder is missing, a file, contains no image, or contains the sample grids of a run.
    """

    folder: Path
    preprocessing: Preprocessing = Preprocessing()
    on_bad_image: Literal["error", "skip"] = "error"
    skipped: tuple[Path, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.files = tuple(list_images(self.folder))
        self.name, self.count, self.how = str(self.folder), len(self.files), self.preprocessing.text()
        self.origin = f"the folder {self.folder}"
        above = {parent for file in self.files for parent in file.relative_to(self.folder).parents}
        runs = [self.folder / parent for parent in sorted(above)]
        for run in [*runs, self.folder.parent] if self.folder.name == "samples" else runs:
            if (run / "config.json").is_file() and (
                (run / "metrics.jsonl").is_file() or (run / "checkpoints").is_dir()
            ):
                raise ValueError(
                    f"{run} is a run folder, whose pictures are sample grids, not images to compare; translate with it first "
                    f"(mixgan translate {run} INPUT OUTPUT_DIR) and compare OUTPUT_DIR"
                )

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Batches of the rank's share, uint8, grouped by size, which changes their order; BadImageError for a bad file, unless
        such are skipped: then they are named in a warning at the end."""
        _check_share(batch_size, rank, world)
        positions = range(rank, len(self.files), world)
        bad: list[BadImageError] = []
        with closing(self._decode(positions, bad)) as pictures:
            yield from _group_by_size(pictures, batch_size)
        self.skipped = tuple(error.path for error in bad if error.path is not None)
        if bad:
            warnings.warn(skipped_text(bad, len(positions)), stacklevel=2)

    def stems(self) -> list[str]:
        """Paths of the files in the folder, without extension: what names a pair of images in two folders."""
        return [path.relative_to(self.folder).with_suffix("").as_posix() for path in self.files]

    def sizes(self) -> Counter[tuple[int, int]]:
        """Number of pictures of each (width, height), after cropping and before resizing, from the headers of good files."""
        sizes: Counter[tuple[int, int]] = Counter()
        for path in self.files:
            try:
                left, upper, right, lower = self.preprocessing.box(*image_size(path))
                sizes[right - left, lower - upper] += 1
            except ValueError as error:  # a bad file, or no side-by-side pair
                if self.on_bad_image == "error":
                    text = str(error) if isinstance(error, BadImageError) else f"{str(path)!r} {error}"
                    raise BadImageError(text, path) from error
        return sizes

    def read(self, indices: Iterable[int]) -> list[Tensor]:
        """The preprocessed pictures at these positions of ``files``, (3,H,W) uint8 each; BadImageError for a bad file."""
        pictures = self._decode([int(index) for index in indices], bad=None)
        return [_stack([picture]).images[0] for picture in pictures]

    def fingerprint(self) -> str:
        """sha256 of everything the pictures depend on: names and contents of the files, and how they are read."""
        digest = hashlib.sha256(f"{self.preprocessing} {self.on_bad_image}\n".encode())
        with ThreadPoolExecutor() as pool:  # reading and hashing release the GIL
            for path, content in zip(self.files, pool.map(_content_sha256, self.files), strict=True):
                digest.update(f"{path.relative_to(self.folder).as_posix()!r} {content}\n".encode())
        return digest.hexdigest()

    def _decode(
        self, positions: Sequence[int], bad: list[BadImageError] | None
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """(position, (H,W,3) uint8) of the good files; bad ones are added to ``bad``, or raised where that is None."""
        paths, policy = [self.files[position] for position in positions], "error" if bad is None else self.on_bad_image
        results = stream_views(
            paths, lambda image: (self.preprocessing(image),), on_bad_image=policy, per_task=FILES_PER_TASK
        )
        with closing(results):
            for position, result in zip(positions, results, strict=True):
                if not isinstance(result, BadImageError):
                    yield position, result[0]
                elif bad is not None:
                    bad.append(result)


class BatchSource:
    """Images that come as batches: of a tensor, a DataLoader, or any iterable of batches, unchanged.

    Every process iterates over all of a loader and takes its own share. So the loader must have the same order on all
    processes, and must not be prepared by ``Accelerator.prepare``, which splits it a second time and pads the last batch with
    images that would count twice.

    Args:
        images: (N,3,H,W), uint8 0..255 or float 0..1; or what yields such batches, or tuples or lists that begin with one,
            or dicts with one under "image".
        name: for reports.
        count: number of images, where a loader does not know it.
        origin: for reports, where the name does not say what was read.

    Raises:
        ValueError: images of another shape.
    """

    skipped: tuple[Path, ...] = ()
    how = Preprocessing().text()

    def __init__(
        self, images: Tensor | Iterable[Any], name: str = "images", *, count: int | None = None, origin: str = ""
    ) -> None:
        self.loader = (_checked(images, "images"),) if isinstance(images, Tensor) else images
        self.name, self.origin = name, origin or name
        self.count = len(images) if isinstance(images, Tensor) else count or _count(self.loader)

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The rank's share of every batch of the loader, split where it is larger than ``batch_size``; ValueError where several
        processes would get other images from the loader."""
        _check_share(batch_size, rank, world)
        if world > 1:
            _check_same_everywhere(self.loader)
        start = 0
        for item in self.loader:
            images = _checked(_images_of(item), f"images of a batch of {self.name}")
            own = slice((rank - start) % world, None, world)
            positions = torch.arange(start, start + len(images))[own]
            if len(positions):
                yield from map(Batch, images[own].split(batch_size), positions.split(batch_size))
            start += len(images)


@dataclass(frozen=True)
class StatisticsFile:
    """An .npz file of statistics in place of images."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def origin(self) -> str:
        return f"the statistics mu and sigma of {self.path}, sha256 {_content_sha256(self.path)[:16]}"

    @property
    def how(self) -> str | None:
        """How its images were preprocessed; None where it does not say."""
        return read_made_with(self.path).preprocessing


Images: TypeAlias = str | Path | Tensor | Iterable[Any] | BatchSource
#: One set of a comparison.
Side: TypeAlias = FolderSource | BatchSource | StatisticsFile


def open_sides(
    real: Images,
    *fakes: Images,
    train: Images | None = None,
    resize: int | Literal["auto"] | None = None,
    domain: Literal["A", "B"] | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
) -> tuple[Side, ...]:
    """All sets with their preprocessing: real, the generated ones, and the training images last where they are given.

    Arguments and errors as ``compare``.
    """

    def side(name: str, images: Images, size: int | None, domain: Literal["A", "B"] | None = None) -> Side:
        kind = type(images).__name__
        if isinstance(images, str | Path):
            path = Path(images)
            if path.suffix != ".npz" or path.is_dir():
                return FolderSource(path, Preprocessing(size, domain), on_bad_image)
            array = array_source(path)
            if array is None or size is None:
                return array or StatisticsFile(path)
            kind = f"file ({images})"
        if size is not None:
            raise ValueError(f"--resize {size} needs folders of images, but {name} is a {kind}")
        if isinstance(images, BatchSource):
            return images
        if not isinstance(images, Iterable):
            raise ValueError(f"{name} must be a folder, an .npz file, a tensor or a DataLoader, got {images!r}")
        return BatchSource(images, f"{name} images")

    size = None if resize == "auto" else resize
    generated = [side("fake", fake, size) for fake in fakes]
    if resize == "auto" and domain:
        found = {_only_size(one) for one in generated}
        if len(found) > 1:
            raise ValueError(f"generated sets of {' and '.join(map(str, sorted(found)))} px: give --resize N or none")
        size = found.pop()
        generated = [side("fake", fake, size) for fake in fakes]
    trained = [] if train is None else [side("train", train, size, domain)]
    sides = side("real", real, size, domain), *generated, *trained
    if domain and not isinstance(sides[0], FolderSource):
        raise ValueError(f"--domain {domain} needs the images of REAL, but {sides[0].name} is not a folder")
    if trained and isinstance(trained[0], StatisticsFile):
        raise ValueError(f"--train needs images, but {train} contains only statistics")
    for one in sides:
        if not isinstance(one, StatisticsFile) and one.count is not None and one.count < 2:
            raise ValueError(f"a Frechet distance needs at least 2 images of each set, {one.name} contains {one.count}")
    return sides


def _only_size(side: Side) -> int:
    if not isinstance(side, FolderSource):
        raise ValueError(f"{side.name} does not give the size of its images: with --domain give --resize N or none")
    sizes = side.sizes()
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        found = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        raise ValueError(f"{side.name} contains images of {found}, not of one square size: give --resize N or none")
    return next(iter(sizes))[0]


def array_source(path: Path) -> BatchSource | None:
    """The images of an .npz file as ADM's evaluator takes it, ``arr_0`` (N,H,W,3) uint8; None for a file without it."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    entries = read_npz(path, ("arr_0", "mu", "sigma"))
    if (array := entries.pop("arr_0", None)) is None:
        return None
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"arr_0 of {str(path)!r} must be images (N,H,W,3) in uint8, got {array.dtype} of shape {array.shape}"
        )
    more = ", not its mu and sigma, which are of TensorFlow's features" if entries else ""
    images = torch.from_numpy(array).permute(0, 3, 1, 2)
    return BatchSource(images, str(path), origin=f"the images arr_0 of {path}{more}")


def input_warnings(real: Side, fake: Side) -> list[str]:
    """The traps: real images larger than generated ones, sets that were preprocessed differently."""
    warnings = []
    if isinstance(real, StatisticsFile) or isinstance(fake, StatisticsFile):
        known = [side.how for side in (real, fake)]
        # Without the cropping of side-by-side pairs.
        if None not in known and len({str(text).rsplit(", then ", 1)[-1] for text in known}) > 1:
            warnings.append("the sets were preprocessed differently, which changes the distance, too")
    elif isinstance(real, FolderSource) and isinstance(fake, FolderSource) and not real.preprocessing.size:
        (real_width, real_height), (width, height) = (
            max(side.sizes(), key=lambda size: size[0] * size[1], default=(0, 0)) for side in (real, fake)
        )
        if real_width * real_height > width * height:
            warnings.append(
                f"real images of {real_width} x {real_height} px against generated ones of {width} x {height} px: "
                f"sharpness alone makes a distance; --resize {width} brings both to one size"
            )
    return warnings


# Which images are pairs.


def find_pairs(real: Side, fake: Side, wish: Literal["auto", "yes", "no"]) -> tuple[Tensor | None, str | None]:
    """Registered pairs, or a sentence on why there are none.

    "auto" looks for pairs only in a set that is known to be paired, that of ``domain``: equal file names alone (trainA/1.jpg,
    trainB/1.jpg) may be a coincidence. ValueError for "yes" where there are no pairs or they cannot be compared.

    Returns:
        (P,2) int64 positions in both folders, or None; and the sentence, or None.
    """
    if wish not in ("auto", "yes", "no"):
        raise ValueError(f"--pairs must be auto, yes or no, got {wish!r}")
    if wish == "no":
        return None, None
    if not (isinstance(real, FolderSource) and isinstance(fake, FolderSource)):
        if wish == "yes":
            raise ValueError("--pairs yes needs two folders of images")
        return None, None
    if wish == "auto" and not real.preprocessing.domain:
        same = {*fake.stems()} <= {*real.stems()}
        text = "file names match, but that alone makes no pairs: --pairs yes computes paired metrics"
        return None, text if same else None
    pairs, obstacle = match_pairs(real, fake)
    if pairs is not None:
        obstacle = why_not_comparable(real, fake)
    if wish == "yes" and (obstacle or pairs is None):
        raise ValueError(f"--pairs yes: {obstacle or f'no file name of {fake.folder} is one of {real.folder}'}")
    return None if obstacle else pairs, obstacle


def match_pairs(real: FolderSource, fake: FolderSource) -> tuple[Tensor | None, str | None]:
    """Pairs of images with the same relative path up to the extension, and a sentence where some have no counterpart.

    Where no name is the same, a trailing ``_A`` or ``_B`` does not count: CycleGAN's folders pair 1_A.jpg with 1_B.jpg.

    (P,2) int64 positions in both folders, None unless all generated images have exactly one counterpart.
    """
    for suffixes in ((), ("_A", "_B")):
        names = [[reduce(str.removesuffix, suffixes, stem) for stem in source.stems()] for source in (real, fake)]
        positions = {name: position for position, name in enumerate(names[0])}
        repeated = {name for side in names for name, count in Counter(side).items() if count > 1}
        found = [None if name in repeated else positions.get(name) for name in names[1]]
        if any(position is not None for position in found):
            break
    pairs = [(position, index) for index, position in enumerate(found) if position is not None]
    if not pairs:
        return None, None
    if len(pairs) == len(found):
        return torch.tensor(pairs), None
    return None, (
        f"{len(found) - len(pairs)} of {len(found)} generated images, {fake.files[found.index(None)]} the first, have no "
        "counterpart of their own by file name: no paired metrics"
    )


def why_not_comparable(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if the images of pairs cannot be compared pixel by pixel; None if they can."""
    both = [(source, source.preprocessing.size) for source in (real, fake)]
    sizes = {found for source, size in both for found in ([(size, size)] if size else source.sizes())}
    if len(sizes) > 1:
        texts = " and ".join(f"{width} x {height}" for width, height in sorted(sizes)[:2])
        return f"file names match, but sizes differ ({texts}): no paired metrics; --resize N makes them equal"
    if sizes and min(next(iter(sizes))) < LEAST_SIDE:
        return f"images below {LEAST_SIDE} px are too small for paired metrics"
    return None


# Details.


def _content_sha256(path: Path) -> str:
    try:
        # A pipe would block for ever.
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "not a file"
    except OSError:  # decoding reports it
        return "unreadable"


def _check_share(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in 0..world - 1, got rank={rank}, world={world}")


def _group_by_size(pictures: Iterable[tuple[int, np.ndarray]], batch_size: int) -> Iterator[Batch]:
    """Batches of pictures (H,W,3) of one size each."""
    waiting: defaultdict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
    held = 0
    for position, picture in pictures:
        waiting[picture.shape].append((position, picture))
        held += picture.nbytes
        shape = picture.shape if held <= GATHERED_BYTES else max(waiting, key=lambda shape: len(waiting[shape]))
        if len(waiting[shape]) == batch_size or held > GATHERED_BYTES:
            batch = _stack(waiting.pop(shape))
            held -= batch.images.nbytes
            yield batch
    yield from map(_stack, waiting.values())


def _stack(group: list[tuple[int, np.ndarray]]) -> Batch:
    images = np.stack([picture.transpose(2, 0, 1) for _, picture in group])
    return Batch(torch.from_numpy(images), torch.tensor([position for position, _ in group]))


def _count(loader: Iterable[Any]) -> int | None:
    if not isinstance(loader, DataLoader) or loader.batch_size is None:
        return None
    try:
        total = len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:  # an iterable data set
        return None
    return total - total % loader.batch_size if loader.drop_last else total


def _images_of(item: object) -> object:
    if isinstance(item, Mapping):
        if "image" not in item:
            raise ValueError(f"a batch that is a dict needs its images under 'image', got the keys {list(item)}")
        return item["image"]
    return item[0] if isinstance(item, list | tuple) and item else item


def _checked(images: object, what: str) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{what} must be a tensor (N,3,H,W), got {shape}")
    return images


def _check_same_everywhere(loader: Iterable[Any]) -> None:
    from accelerate.data_loader import DataLoaderStateMixin

    if isinstance(loader, DataLoaderStateMixin):
        raise ValueError(
            "this DataLoader went through Accelerator.prepare, so each process gets other images, some of them twice; "
            "pass the original loader, every process then takes its own share"
        )
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, RandomSampler) and sampler.generator is None:
        raise ValueError(
            "this DataLoader shuffles, so processes would not agree on who takes which image; pass one with shuffle=False"
        )
