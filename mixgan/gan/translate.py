"""The command recipes/translate.py: every image of a folder through a trained generator, at its own size."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor

from mixgan.data.images import BadImageError, list_images, open_image
from mixgan.engine.accelerator import available_cores, set_threads
from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional
from mixgan.engine.config import Settings, read_options
from mixgan.engine.progress import Progress
from mixgan.gan.networks import ResnetGenerator, checked_overlap, translate_images
from mixgan.gan.weights import GENERATORS, Direction, WeightKind, check_packages, export_onnx, find_generator

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(Settings):
    """Translate every image of a folder with a trained generator; PNG files of the same names go to another folder."""

    source: Annotated[Path, Positional("RUN_OR_WEIGHTS")]
    """A run folder, or the .safetensors file of one generator."""
    input: Annotated[Path, Positional("INPUT_DIR")]
    """Folder with images of any size; its subfolders count too."""
    output: Annotated[Path, Positional("OUTPUT_DIR")]
    """Folder for the translations, with the same subfolders."""
    direction: Direction | None = None
    """AtoB: photo to map; BtoA: map to photo (default: AtoB, or what the weights file is for)."""
    weights: WeightKind = "auto"
    """Which weights of a run: ema (moving averages), plain, or auto: ema where there are any."""
    pairs: bool = False
    """The inputs are pix2pix's pairs, A on the left and B on the right: translate the half that the direction reads."""
    image_size: AtLeast1 | None = None
    """Resize the inputs first, so that the shorter side has so many px (default: keep their size)."""
    tile: int = 512
    """Larger images are translated in overlapping tiles of so many px a side."""
    overlap: int | None = None
    """Least overlap of the tiles in px (default: a quarter of the tile)."""
    batch_size: AtLeast1 = 4
    """Images of equal size, or tiles, per pass through the generator."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Number format of the generator."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about an image file that cannot be used."""
    overwrite: bool = False
    """Replace files that are in the output folder already."""
    export: Literal["onnx"] | None = None
    """Write the generator too, as OUTPUT_DIR/G_A.onnx (BtoA: G_B.onnx), compared with torch on the first image."""
    threads: AtLeast0 = 0
    """CPU threads (default: all cores)."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        checked_overlap(self.tile, self.overlap)
        if self.export:
            check_packages()


@dataclass(frozen=True)
class Job:
    """One image to translate, and where the translation goes."""

    source: Path
    target: Path


def main(argv: Sequence[str]) -> None:
    """The command recipes/translate.py.

    Raises:
        ValueError: wrong options, no weights, no images, a bad image, or files in the way; nothing is overwritten unasked.
    """
    options, _ = read_options(TranslateOptions, argv, prog="mixgan translate")
    set_threads(options.threads)
    found = find_generator(options.source, direction=options.direction, kind=options.weights)
    direction = options.direction or found.direction or "AtoB"
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    generator = found.load()
    jobs = plan_jobs(options)
    exported = options.output / f"{GENERATORS[direction]}.onnx"
    if options.export and exported.exists() and not options.overwrite:
        raise ValueError(f"{exported} exists already; add --overwrite to replace it, or name another folder")
    size = f", trained at {found.image_size} px" if found.image_size else ""
    print(f"{found.path}: {direction}, ResNet-{found.blocks}, width {found.width}{size}; on {device.type}", flush=True)
    side = "left" if direction == "AtoB" else "right"
    if options.export:
        difference = export_onnx(generator, exported, first_good_image(jobs, options, side=side))
        print(f"{exported}: differs from torch by at most {difference:.1e} (of -1..1)", flush=True)
    generator.to(device)
    start = time.monotonic()
    with torch.autocast(device.type, torch.bfloat16, enabled=options.mixed_precision == "bf16"):
        done = translate_folder(generator, jobs, options, side=side)
    skipped = f" ({len(jobs) - done} skipped)" if done < len(jobs) else ""
    rate = done / (time.monotonic() - start)
    print(f"{done} {'image' if done == 1 else 'images'} translated{skipped}: {options.output} ({rate:.2f} images/s)")


def plan_jobs(options: TranslateOptions) -> list[Job]:
    """Every image of the input folder with its target: the same path below the output folder, ending in .png.

    Raises:
        ValueError: no images, two of one target, or a target that exists and may not be overwritten.
    """
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"output folder {options.output} is a file")
    sources = list_images(options.input)
    output = options.output.resolve()
    if output == options.input.resolve():
        raise ValueError(f"{options.output} is the input folder; name another one for the translations")
    sources = [path for path in sources if output not in path.resolve().parents]  # of an earlier call
    if not sources:
        raise ValueError(f"folder {options.input} holds no images but those of the output folder inside it")
    jobs = [Job(path, options.output / path.relative_to(options.input).with_suffix(".png")) for path in sources]
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
    generator: ResnetGenerator, jobs: Sequence[Job], options: TranslateOptions, *, side: Literal["left", "right"]
) -> int:
    """Translate and save all images; returns how many there were without the skipped ones.

    Reading and writing happen in threads beside the generator, a few images ahead and behind.
    """
    bad: list[BadImageError] = []
    with (
        Progress("translating", total=len(jobs), unit="images", stderr=True) as progress,
        ThreadPoolExecutor(max_workers=min(8, available_cores())) as pool,
    ):
        sizes = pool.map(_header_size, [job.source for job in jobs])
        # Files that are no images come first: better an error now than after hours.
        ordered = [job for _, job in sorted(zip(sizes, jobs, strict=True), key=lambda pair: pair[0])]
        read = _ahead(pool, lambda job: (job, _read(job.source, options, side)), ordered, depth=options.batch_size)
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
            saving.extend(
                pool.submit(_save, image, job.target) for (job, _), image in zip(batch, translated, strict=True)
            )
            while len(saving) > 2 * options.batch_size:
                saving.popleft().result()
        for future in saving:
            future.result()
    if len(bad) == len(jobs):
        raise ValueError(f"none of the {len(jobs)} image files could be used; the first one: {bad[0]}")
    return len(jobs) - len(bad)


def first_good_image(jobs: Sequence[Job], options: TranslateOptions, *, side: Literal["left", "right"]) -> Tensor:
    """(3,H,W) uint8, at most a tile of the first image that can be used; the first error where none can."""
    errors: list[BadImageError] = []
    for job in jobs:
        image = _read(job.source, options, side)
        if isinstance(image, Tensor):
            return image[:, : options.tile, : options.tile]
        errors.append(image)
    raise errors[0]


def half_of_pair(image: Image.Image, side: Literal["left", "right"]) -> Image.Image:
    """One half of a side-by-side picture; ValueError where it is not about twice as wide as high."""
    width, height = image.size
    if not 1.9 <= width / height <= 2.1:
        raise ValueError(f"is {width}x{height}, but a photo and its map side by side are twice as wide as high")
    return image.crop((0, 0, width // 2, height) if side == "left" else (width // 2, 0, width, height))


def _header_size(path: Path) -> tuple[int, int]:
    """(W,H) without decoding; (0,0) where there is no saying, and reading the file will tell why."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # as many kinds as Pillow has decoders
        return 0, 0


def _read(path: Path, options: TranslateOptions, side: Literal["left", "right"]) -> Tensor | BadImageError:
    """(3,H,W) uint8; a bad image is a value, as only some callers want it raised."""
    from torchvision.transforms.v2 import InterpolationMode  # slow to import
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    try:
        image = open_image(path)
        if options.pairs:
            image = half_of_pair(image, side)
    except BadImageError as error:
        return error
    except ValueError as error:
        return BadImageError(f"{str(path)!r} {error}", path)
    if options.image_size:
        image = resize(image, [options.image_size], InterpolationMode.BICUBIC)
    return pil_to_tensor(image)


def _without_bad(
    read: Iterable[tuple[Job, Tensor | BadImageError]],
    bad: list[BadImageError],
    options: TranslateOptions,
    progress: Progress,
) -> Iterator[tuple[Job, Tensor]]:
    """The images; bad ones end the run, or are named and collected in ``bad``."""
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
    """Neighbours of the same size, at most --batch-size; those that will be cut into tiles one by one."""
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


def _save(image: Tensor, target: Path) -> None:
    """Write beside, then rename: a stopped run leaves no half pictures."""
    from torchvision.transforms.v2.functional import to_pil_image  # slow to import

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    to_pil_image(image).save(partial, format="PNG")
    partial.replace(target)
