"""Translation: images of any size, large ones in overlapping, blended tiles; and the command, for every image of a folder."""

import copy
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mixgan.data.images import (
    ARRAYS,
    EXTENSIONS,
    BadImageError,
    Pixels,
    image_size,
    list_images,
    pair_boxes,
    read_header,
    save_picture,
    to_array,
)
from mixgan.engine.accelerator import available_cores, one_device, set_pixel_limit, set_threads
from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional
from mixgan.engine.config import Settings, read_options
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import check_choice, partial_file, writing
from mixgan.gan.weights import GENERATORS, Direction, find_generator
from mixgan.ops.transforms import to_bytes, to_signed

STEP = 4  # a ResNet generator halves the image twice; tiles that begin elsewhere would be sampled at other pixels
SMALLEST, SMALLEST_TILE = 8, 32
SIXTEEN_BITS = (0.0, 65535.0)
PATCHES = 16  # half as wide as a tile: a tiled image's statistics are measured on them; together as large as 4 tiles


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(Settings):
    """Translate every image of a folder with a trained generator; PNG files of the same names go to another folder."""

    renamed: ClassVar[Mapping[str, str]] = dict.fromkeys(("--weights auto", "--weights ema"), "--weights last") | {
        "--weights plain": "--no-ema"
    }

    source: Annotated[str, Positional("RUN_OR_WEIGHTS")]
    """A run folder, one of its checkpoints, one generator's .safetensors file, a latest_net_G*.pth of
    pytorch-CycleGAN-and-pix2pix, a folder of mixgan export, or hf://user/repo."""
    input: Annotated[Path, Positional("INPUT_DIR")]
    """Folder with images of any size, also in its subfolders. Those of 16 bits are translated to 16 bits, .npy to .npy."""
    output: Annotated[Path, Positional("OUTPUT_DIR")]
    """Folder for the translations, with the same subfolders."""
    direction: Direction | None = None
    """AtoB or BtoA, from one domain to the other (default: AtoB, or what the weights file is for)."""
    weights: str = "last"
    """Which weights of a run: last, best (by Frechet distance), or step-N of a checkpoint."""
    ema: bool = True
    """Use the moving average of the weights where there is one."""
    pairs: bool = False
    """The inputs are pix2pix's pairs, A on the left and B on the right: translate the half that the direction reads."""
    image_size: AtLeast1 | None = None
    """Resize the inputs first, so that the shorter side has this many px (default: keep their size)."""
    tile: int = 512
    """Larger images are translated in overlapping tiles with sides of this many px."""
    overlap: int | None = None
    """Least overlap of the tiles in px (default: a quarter of the tile)."""
    batch_size: AtLeast1 = 4
    """Images of equal size, or tiles, per pass through the generator."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the generator."""
    value_range: tuple[float, float] | None = None
    """Values of .npy files and images above 8 bits that become black and white (default: as in training)."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about an image file that cannot be used."""
    max_image_pixels: AtLeast1 | None = None
    """Read images of up to this many pixels (default: 178,956,970, Pillow's limit against decompression bombs)."""
    overwrite: bool = False
    """Replace files that are in the output folder already."""
    export: Literal["onnx"] | None = None
    """Write the generator too, as OUTPUT_DIR/G_A.onnx (BtoA: G_B.onnx), compared with torch."""
    threads: AtLeast0 = 0
    """CPU threads (default: all cores)."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        check_choice(self.weights)
        checked_overlap(self.tile, self.overlap)
        if self.export:
            from mixgan.gan.export import check_packages

            check_packages("--export onnx")


class Job(NamedTuple):
    """One image to translate, and where the translation goes."""

    source: Path
    target: Path


def main(argv: Sequence[str]) -> None:
    """The command recipes/translate.py."""
    options, _ = read_options(TranslateOptions, argv, prog="mixgan translate")
    set_threads(options.threads)
    set_pixel_limit(options.max_image_pixels)
    found = find_generator(options.source, direction=options.direction, weights=options.weights, ema=options.ema)
    direction = options.direction or found.direction or "AtoB"
    device = one_device()
    generator = found.build().to(device)
    jobs = plan_jobs(options)
    exported = options.output / f"{GENERATORS[direction]}.onnx"
    if options.export and exported.exists() and not options.overwrite:
        raise ValueError(f"{exported} exists already; add --overwrite to replace it, or name another folder")
    size = f", trained at {found.image_size} px" if found.image_size else ""
    names = found.metadata.get("names")
    way = f" ({' to '.join(names if direction == 'AtoB' else names[::-1])})" if names else ""
    print(f"{found.path}: {direction}{way}, {found.description}{size}; on {device.type}", flush=True)
    given, target = (tuple(found.metadata.get(end, ())) or None for end in ("range_in", "range_out"))
    deep = found.metadata.get("bits_out", 8) > 8
    # Of pictures, whose values are whole: 0 to 1 would be black and white.
    whole = target and target[0] >= 0 and target[1] <= SIXTEEN_BITS[1] and target[1] - target[0] >= 255
    formats = Formats(
        channels=found.shape["in_channels"],
        half=("AtoB", "BtoA").index(direction) if options.pairs else None,
        value_range=options.value_range or given,
        array_range=target or options.value_range or (SIXTEEN_BITS if deep else (0.0, 255.0)),
        picture_range=target if target and whole else SIXTEEN_BITS,
        deep=deep,
    )
    if options.export:
        from mixgan.gan.export import export_onnx

        export_onnx(found, exported)
    start = time.monotonic()
    with torch.autocast(device.type, torch.bfloat16, enabled=options.mixed_precision == "bf16"):
        done = translate_folder(generator, jobs, options, formats)
    skipped = f" ({len(jobs) - done} skipped)" if done < len(jobs) else ""
    rate = done / (time.monotonic() - start)
    print(f"{done} {'image' if done == 1 else 'images'} translated{skipped}: {options.output} ({rate:.2f} images/s)")


def plan_jobs(options: TranslateOptions) -> list[Job]:
    """Every image of the input folder with its target: the same path below the output folder, ending in .png (arrays: .npy).

    Raises:
        ValueError: no images, two of one target, or a target that exists and may not be overwritten.
    """
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"output folder {options.output} is a file")
    sources = list_images(options.input, extensions=EXTENSIONS | ARRAYS)
    output = os.path.realpath(options.output)  # Path.resolve raises on links that are loops
    if output == os.path.realpath(options.input):
        raise ValueError(f"{options.output} is the input folder; name another one for the translations")
    # Without those of an earlier call.
    sources = [path for path in sources if not os.path.realpath(path).startswith(f"{output}{os.sep}")]
    if not sources:
        raise ValueError(f"folder {options.input} contains no images but those of the output folder inside it")
    suffixes = [".npy" if path.suffix.lower() in ARRAYS else ".png" for path in sources]
    jobs = [
        Job(path, options.output / path.relative_to(options.input).with_suffix(suffix))
        for path, suffix in zip(sources, suffixes, strict=True)
    ]
    taken: dict[Path, Path] = {}
    for job in jobs:
        first = taken.setdefault(job.target, job.source)
        if first != job.source:
            raise ValueError(f"{first} and {job.source} would both be translated to {job.target}; rename one of them")
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not options.overwrite:
        more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
        raise ValueError(f"{existing[0]}{more} already; add --overwrite to replace them, or name another folder")
    return jobs


def translate_folder(generator: nn.Module, jobs: Sequence[Job], options: TranslateOptions, formats: "Formats") -> int:
    """Translate and save all images; returns their number, without the skipped ones. Threads read ahead and write behind."""
    bad: list[BadImageError] = []
    with (
        Progress("translating", total=len(jobs), unit="images", stderr=True) as progress,
        ThreadPoolExecutor(max_workers=min(8, available_cores())) as pool,
    ):

        def skip(error: BadImageError) -> None:
            bad.append(error)
            progress.advance()
            progress.print(f"skipped: {error}")

        sizes = pool.map(_header_size, [job.source for job in jobs])
        # Files that are not images come first: better an error now than after hours.
        ordered = [job for _, job in sorted(zip(sizes, jobs, strict=True), key=lambda pair: pair[0])]
        saving: deque[Future] = deque()
        for batch in _batches(pool, ordered, options, formats, skip):
            translated = translate_images(
                generator,
                torch.stack([image for _, image in batch]),
                tile=options.tile,
                overlap=options.overlap,
                batch_size=options.batch_size,
                advance=progress.advance,
            )
            for (job, _), image in zip(batch, translated, strict=True):
                saving.append(pool.submit(_save, image, job.target, formats))
            while len(saving) > 2 * options.batch_size:
                saving.popleft().result()
        for future in saving:
            future.result()
    if len(bad) == len(jobs):
        raise ValueError(f"none of the {len(jobs)} image files could be used; the first one: {bad[0]}")
    return len(jobs) - len(bad)


def _batches(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    options: TranslateOptions,
    formats: "Formats",
    skip: Callable[[BadImageError], None],
) -> Iterator[list[tuple[Job, Tensor]]]:
    """Batches of neighbours of one size and depth, at most --batch-size; images larger than a tile one by one.

    Only --batch-size images are read ahead, so that a large folder does not fill the memory.
    """
    batch: list[tuple[Job, Tensor]] = []
    coming, reading = iter(jobs), deque[tuple[Job, Future[Tensor | BadImageError]]]()
    while True:
        for job in itertools.islice(coming, options.batch_size + 1 - len(reading)):
            reading.append((job, pool.submit(_read, job.source, options, formats)))
        if not reading:
            break
        job, future = reading.popleft()
        image = future.result()
        if isinstance(image, BadImageError):
            if options.on_bad_image == "error":
                raise BadImageError(f"{image}; --on-bad-image skip leaves such files out", job.source)
            skip(image)
            continue
        limit = 1 if max(image.shape[1:]) > options.tile else options.batch_size
        if batch and (len(batch) == limit or (image.shape, image.dtype) != (batch[0][1].shape, batch[0][1].dtype)):
            yield batch
            batch = []
        batch.append((job, image))
    if batch:
        yield batch


def _header_size(path: Path) -> tuple[int, int]:
    """(W,H) from the header; (0,0) for a file that cannot be opened, which reading it will report."""
    if path.suffix.lower() in ARRAYS:
        return 1, 1
    try:
        return image_size(path)
    except BadImageError:
        return 0, 0


@dataclass(frozen=True)
class Formats:
    """How inputs are read and translations written.

    Attributes:
        channels: of the inputs.
        half: of pairs, which is read: 0 for the left one.
        value_range: values of inputs above 8 bits that are -1 and 1; None: 0 and 65535.
        array_range, picture_range: values of -1 and 1 in translations that are arrays, and pictures of 16 bits; those that
            training reads in the other domain.
        deep: translations have 16 bits even where the inputs have 8.
    """

    channels: int
    half: int | None
    value_range: tuple[float, float] | None
    array_range: tuple[float, float]
    picture_range: tuple[float, float]
    deep: bool


def _read(path: Path, options: TranslateOptions, formats: Formats) -> Tensor | BadImageError:
    """(C,H,W) uint8, or float32 in [-1,1] of more than 8 bits; a bad image is a value, as only some callers want it raised."""
    try:
        deep = formats.deep or read_header(path).deep
        bands = Pixels(formats.channels, drop_alpha=True, value_range=formats.value_range, deep=deep).read(path)
        if formats.half is not None:
            bands = [band.crop(pair_boxes(*band.size)[formats.half]) for band in bands]
    except BadImageError as error:
        text = str(error).replace("--range-a LOW HIGH (for domain B --range-b)", "--value-range LOW HIGH")
        return BadImageError(text, path)
    except ValueError as error:
        return BadImageError(f"{str(path)!r} {error}", path)
    if options.image_size:
        width, height = bands[0].size
        new = [side * options.image_size // min(width, height) for side in (width, height)]
        bands = [band.resize((new[0], new[1]), Image.Resampling.BICUBIC) for band in bands]
    return torch.from_numpy(to_array(bands).transpose(2, 0, 1).copy())


def _save(image: Tensor, target: Path, formats: Formats) -> None:
    """Write beside, then rename: an interrupted command leaves no half-written pictures."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_file(target)
    pixels = image.permute(1, 2, 0).numpy()
    with writing(target):
        if pixels.dtype == np.uint8 and target.suffix not in ARRAYS:
            save_picture(partial, pixels)
        else:
            low, high = formats.array_range if target.suffix in ARRAYS else formats.picture_range
            values = (pixels.astype(np.float64) + 1) / 2 * (high - low) + low
            if target.suffix in ARRAYS:
                array = values.astype(np.float32)
                with partial.open("wb") as file:
                    np.save(file, array[..., 0] if array.shape[2] == 1 else array)
            else:
                save_picture(partial, values.round().astype(np.uint16))
        partial.replace(target)


# Tiles: images are padded by reflection to what a generator takes.


@torch.no_grad()
def translate_images(
    generator: nn.Module,
    images: Tensor,
    *,
    tile: int = 512,
    overlap: int | None = None,
    batch_size: int = 1,
    advance: Callable[[float], object] | None = None,
) -> Tensor:
    """Translate images (B,C,H,W), uint8 or float in [-1,1], of any size and on any device, to (B,D,H,W) of the same kind there.

    An image with a side longer than ``tile`` is translated in tiles, so that memory does not grow with its size. The result is
    close to that of one pass: all tiles are normalised by statistics of the whole image. For mixed precision call this under
    ``torch.autocast``.

    Args:
        generator: (b,C,h,w) float in [-1,1] to images of the same size, for h and w that are multiples of its ``multiple`` (4
            where it has none) and at least 8; in eval mode.
        tile: side of the tiles in px, a multiple of 4; rounded down to the generator's ``multiple``.
        overlap: least overlap of neighbouring tiles in px (default: a quarter of the tile).
        batch_size: how many images or tiles go through the generator at once.
        advance: called after every pass through the generator with how many images that was, a tile being a fraction.

    Raises:
        ValueError: ``tile``, ``overlap`` or ``batch_size`` out of range; the generator's output is not finite.
    """
    overlap = checked_overlap(tile, overlap)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    advance = advance or (lambda images: None)
    step = getattr(generator, "multiple", STEP)
    tile = max(step, tile // step * step)
    finish = checked if images.is_floating_point() else to_bytes
    padded, inside = pad_by_reflection(images, step)
    done = []
    if max(padded.shape[-2:]) > tile:
        generator = _with_shared_norms(generator)
        for image in padded:
            _measure_norms(generator, image, tile // 2, step)
            pieces = _translate_in_tiles(generator, image, tile, overlap, batch_size, advance, step)
            done.append(torch.cat([finish(piece) for piece in pieces], 1)[None])
    else:
        for batch in padded.split(batch_size):
            done.append(finish(_apply(generator, batch)))
            advance(len(batch))
    return torch.cat(done)[inside]


def checked_overlap(tile: int, overlap: int | None) -> int:
    """The overlap, or its default; ValueError for tiles or overlaps out of range."""
    if tile < SMALLEST_TILE or tile % STEP:
        raise ValueError(f"tile must be a multiple of {STEP}, at least {SMALLEST_TILE}, got {tile}")
    overlap = tile // 4 if overlap is None else overlap
    if not STEP <= overlap <= tile // 2:
        raise ValueError(f"overlap must be between {STEP} and half of the tile, {tile // 2}, got {overlap}")
    return overlap


def checked(images: Tensor) -> Tensor:
    """Floats clamped to [-1,1]; ValueError for NaN and infinite values."""
    to_bytes(images)
    return images.clamp(-1, 1)


def pad_by_reflection(images: Tensor, step: int = STEP) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """Images padded to sides that a generator takes, multiples of ``step``, by reflection; the index that crops them again."""
    height, width = images.shape[-2:]
    (rows, top), (columns, left) = (_reflected(length, step, images.device) for length in (height, width))
    return images[..., rows[:, None], columns], (..., slice(top, top + height), slice(left, left + width))


def _reflected(length: int, step: int, device: torch.device) -> tuple[Tensor, int]:
    """The source pixel of each position of a padded side, and how many positions come before the first pixel."""
    padded = max(SMALLEST, math.ceil(length / step) * step)
    before = (padded - length) // 2
    period = max(1, 2 * (length - 1))  # there and back again
    position = (torch.arange(padded, device=device) - before) % period
    return torch.minimum(position, period - position), before


def lay_tiles(length: int, tile: int, overlap: int, step: int = STEP) -> tuple[list[int], Tensor]:
    """Tiles along a side: the first pixel of each, and its pixels' weights; ``length`` and ``tile`` are multiples of ``step``.

    Neighbouring tiles are blended by a raised cosine around the middle of what they share, half of ``overlap`` wide. The outer
    quarters of the overlap have weight 0: there the network sees the end of the tile, where it pads.

    Returns:
        N starts, multiples of ``step``; (N,t) float32 weights with t = min(length, tile). At every pixel of the side, those of
            the tiles over it sum to 1.
    """
    if length <= tile:
        return [0], torch.ones(1, length)
    room, stride = (length - tile) // step, max(1, (tile - overlap) // step)
    count = math.ceil(room / stride) + 1
    starts = [step * (room * k // (count - 1)) for k in range(count)]  # evenly spread: none overlaps by less
    middles = [(start + following + tile) / 2 for start, following in itertools.pairwise(starts)]
    pixels = torch.arange(tile) + 0.5
    # A tile's weight lasts from its own rise to the next one's; summed over the tiles, all but the ends cancel.
    weights = [
        _rise(start + pixels - before, overlap / 2) - _rise(start + pixels - after, overlap / 2)
        for start, before, after in zip(starts, [-math.inf, *middles], [*middles, math.inf], strict=True)
    ]
    return starts, torch.stack(weights)


def _rise(distance: Tensor, width: float) -> Tensor:
    """A raised cosine from 0 to 1 over ``width`` pixels around distance 0."""
    return 0.5 - 0.5 * torch.cos(math.pi * (distance / width + 0.5).clamp(0, 1))


def _with_shared_norms(generator: nn.Module) -> nn.Module:
    """A copy with batch norms in place of instance norms: they treat many patches as one image and store the statistics."""
    generator = copy.deepcopy(generator)
    for name, norm in list(generator.named_modules()):
        if isinstance(norm, nn.InstanceNorm2d):
            shared = nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=1.0, affine=False)
            generator.set_submodule(name, shared.to(next(generator.parameters()).device))
    return generator


def _measure_norms(generator: nn.Module, image: Tensor, side: int, step: int) -> None:
    """Let the shared norms take their statistics from patches (``side`` px) all over an image (3,H,W)."""
    side = max(step, side - side % step)
    (tops, rows), (lefts, columns) = (lay_tiles(length, side, STEP, step) for length in image.shape[1:])
    corners = list(itertools.product(tops, lefts))
    chosen = torch.randperm(len(corners), generator=torch.Generator().manual_seed(0))[:PATCHES].tolist()
    tall, wide = rows.shape[1], columns.shape[1]
    generator.train()
    _apply(generator, torch.stack([image[:, y : y + tall, x : x + wide] for y, x in (corners[k] for k in chosen)]))
    generator.eval()


def _apply(generator: nn.Module, images: Tensor) -> Tensor:
    """(b,C,h,w) uint8, or float in [-1,1] -> float32 in [-1,1] on the same device."""
    device = next(generator.parameters()).device
    translated: Tensor = generator(to_signed(images.to(device)))
    return translated.float().to(images.device)


def _translate_in_tiles(
    generator: nn.Module,
    image: Tensor,
    tile: int,
    overlap: int,
    batch_size: int,
    advance: Callable[[float], object],
    step: int,
) -> Iterator[Tensor]:
    """(C,H,W) -> float32 (D,h,W) in [-1,1], one row of tiles after the other, so that only one band of floats is in memory."""
    _, height, width = image.shape
    tops, row_weights = lay_tiles(height, tile, overlap, step)
    lefts, column_weights = lay_tiles(width, tile, overlap, step)
    tall, wide = row_weights.shape[1], column_weights.shape[1]
    band: Tensor | None = None
    for top, following, weight_y in zip(tops, [*tops[1:], height], row_weights.to(image.device), strict=True):
        for first in range(0, len(lefts), batch_size):
            batch = lefts[first : first + batch_size]
            cut = torch.stack([image[:, top : top + tall, left : left + wide] for left in batch])
            weights = column_weights[first : first + batch_size].to(image.device)
            pieces = _apply(generator, cut)
            if band is None:
                band = pieces.new_zeros(pieces.shape[1], tall, width)
            for piece, left, weight_x in zip(pieces, batch, weights, strict=True):
                band[:, :, left : left + wide] += piece * weight_y[:, None] * weight_x
            advance(len(batch) / (len(tops) * len(lefts)))
        assert band is not None
        ready = following - top  # the rows that no later tile reaches
        yield band[:, :ready]
        band = torch.cat((band[:, ready:], torch.zeros_like(band[:, :ready])), 1)
