"""The translate command: every image of a folder, with a trained generator."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar

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
from mixgan.gan.tiling import checked_overlap, translate_images
from mixgan.gan.weights import GENERATORS, Direction, SavedGenerator, find_generator

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    """The command recipes/translate.py.

    Raises:
        ValueError: wrong options, no weights, no images, a bad image, or output files that exist (see --overwrite).
    """
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
    formats = Formats.of(found, options)
    side: Literal["left", "right"] = "left" if direction == "AtoB" else "right"
    if options.export:
        from mixgan.gan.export import export_onnx

        export_onnx(found, exported)
    start = time.monotonic()
    with torch.autocast(device.type, torch.bfloat16, enabled=options.mixed_precision == "bf16"):
        done = translate_folder(generator, jobs, options, side=side, formats=formats)
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


def translate_folder(
    generator: nn.Module,
    jobs: Sequence[Job],
    options: TranslateOptions,
    *,
    side: Literal["left", "right"],
    formats: "Formats",
) -> int:
    """Translate and save all images; returns their number, without the skipped ones.

    Reading and writing happen in threads beside the generator, a few images ahead and behind.
    """
    bad: list[BadImageError] = []
    with (
        Progress("translating", total=len(jobs), unit="images", stderr=True) as progress,
        ThreadPoolExecutor(max_workers=min(8, available_cores())) as pool,
    ):
        sizes = pool.map(_header_size, [job.source for job in jobs])
        # Files that are not images come first: better an error now than after hours.
        ordered = [job for _, job in sorted(zip(sizes, jobs, strict=True), key=lambda pair: pair[0])]
        read = _ahead(
            pool, lambda job: (job, _read(job.source, options, side, formats)), ordered, depth=options.batch_size
        )
        saving: deque[Future] = deque()
        for batch in _of_one_size(_without_bad(read, bad, options, progress), options):
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
        value_range: values of the inputs above 8 bits that become -1 and 1; None for 0 and 65535.
        target_range: the same of translations that are written as arrays.
        deep: translations have 16 bits even where the inputs have 8.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    target_range: tuple[float, float] | None = None
    deep: bool = False

    @classmethod
    def of(cls, found: SavedGenerator, options: TranslateOptions) -> "Formats":
        """What a generator was trained on, and --value-range."""
        given, target = found.metadata.get("range_in"), found.metadata.get("range_out")
        own = options.value_range or (tuple(given) if given else None)
        deep = found.metadata.get("bits_out", 8) > 8
        return cls(found.shape["in_channels"], own, tuple(target) if target else own, deep)


def _read(
    path: Path, options: TranslateOptions, side: Literal["left", "right"], formats: Formats
) -> Tensor | BadImageError:
    """(C,H,W) uint8, or float32 in [-1,1] of more than 8 bits; a bad image is a value, as only some callers want it raised."""
    try:
        deep = formats.deep or read_header(path).deep
        bands = Pixels(formats.channels, drop_alpha=True, value_range=formats.value_range, deep=deep).read(path)
        if options.pairs:
            bands = [band.crop(pair_boxes(*band.size)[side == "right"]) for band in bands]
    except BadImageError as error:
        return BadImageError(
            str(error).replace("--range-a LOW HIGH (for domain B --range-b)", "--value-range LOW HIGH"), path
        )
    except ValueError as error:
        return BadImageError(f"{str(path)!r} {error}", path)
    if options.image_size:
        width, height = bands[0].size
        new = [side * options.image_size // min(width, height) for side in (width, height)]
        bands = [band.resize((new[0], new[1]), Image.Resampling.BICUBIC) for band in bands]
    return torch.from_numpy(to_array(bands).transpose(2, 0, 1).copy())


def _without_bad(
    read: Iterable[tuple[Job, Tensor | BadImageError]],
    bad: list[BadImageError],
    options: TranslateOptions,
    progress: Progress,
) -> Iterator[tuple[Job, Tensor]]:
    """The images; bad ones are an error, or are printed and collected in ``bad``."""
    for job, image in read:
        if not isinstance(image, BadImageError):
            yield job, image
            continue
        if options.on_bad_image == "error":
            raise BadImageError(f"{image}; --on-bad-image skip leaves such files out", job.source)
        bad.append(image)
        progress.advance()
        progress.print(f"skipped: {image}")


def _of_one_size(images: Iterable[tuple[Job, Tensor]], options: TranslateOptions) -> Iterator[list[tuple[Job, Tensor]]]:
    """Batches of neighbours of the same size, at most --batch-size; images larger than a tile one by one."""
    batch: list[tuple[Job, Tensor]] = []
    for job, image in images:
        limit = 1 if max(image.shape[1:]) > options.tile else options.batch_size
        if batch and (len(batch) == limit or image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((job, image))
    if batch:
        yield batch


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """As ``pool.map``, but only ``depth`` results wait to be fetched, so that a large folder does not fill the memory."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _save(image: Tensor, target: Path, formats: Formats) -> None:
    """Write beside, then rename: an interrupted command leaves no half-written pictures."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_file(target)
    pixels = image.permute(1, 2, 0).numpy()
    with writing(target):
        if target.suffix in ARRAYS:
            low, high = formats.target_range or (-1.0, 1.0)
            values = (pixels.astype(np.float64) + 1) / 2 * (high - low) + low
            with partial.open("wb") as file:
                np.save(file, values.astype(np.float32)[..., 0] if pixels.shape[2] == 1 else values.astype(np.float32))
        else:
            deep = pixels.dtype == np.float32
            sixteen = ((pixels.astype(np.float64) + 1) * 32767.5).round().astype(np.uint16) if deep else pixels
            save_picture(partial, sixteen)
        partial.replace(target)
