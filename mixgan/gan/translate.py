"""Translation with a trained generator: images of any size in tiles, folders of images (the command), and ONNX files."""

import copy
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import EllipsisType
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from mixgan.data.images import BadImageError, list_images, open_image
from mixgan.engine.accelerator import available_cores, one_device, set_threads
from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional
from mixgan.engine.config import Settings, read_options
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import check_choice, partial_file
from mixgan.gan.networks import ResnetGenerator
from mixgan.gan.weights import GENERATORS, Direction, find_generator
from mixgan.ops.transforms import to_bytes, to_signed

Item = TypeVar("Item")
Result = TypeVar("Result")

STEP = 4  # a generator halves the image twice; tiles that begin elsewhere would be sampled at other pixels
SMALLEST, SMALLEST_TILE = 8, 32
PATCHES = 16  # half as wide as a tile: a tiled image's statistics are measured on them; together as large as 4 tiles
#: Optional packages of the export, and the largest difference from torch, in images of [-1, 1], that it may have.
PACKAGES, TOLERANCE = ("onnx", "onnxscript", "onnxruntime"), 1e-3


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(Settings):
    """Translate every image of a folder with a trained generator; PNG files of the same names go to another folder."""

    renamed: ClassVar[Mapping[str, str]] = dict.fromkeys(("--weights auto", "--weights ema"), "--weights last") | {
        "--weights plain": "--no-ema"
    }

    source: Annotated[Path, Positional("RUN_OR_WEIGHTS")]
    """A run folder, one of its checkpoints, or the .safetensors file of one generator."""
    input: Annotated[Path, Positional("INPUT_DIR")]
    """Folder with images of any size, also in its subfolders."""
    output: Annotated[Path, Positional("OUTPUT_DIR")]
    """Folder for the translations, with the same subfolders."""
    direction: Direction | None = None
    """AtoB: photo to map; BtoA: map to photo (default: AtoB, or what the weights file is for)."""
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
        check_choice(self.weights)
        checked_overlap(self.tile, self.overlap)
        if self.export:
            missing = [name for name in PACKAGES if find_spec(name) is None]
            if missing:
                raise ValueError(f"--export onnx needs {', '.join(missing)}: pip install 'mixgan[export]'")


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
    found = find_generator(options.source, direction=options.direction, weights=options.weights, ema=options.ema)
    direction = options.direction or found.direction or "AtoB"
    device = one_device()
    generator = found.build()
    jobs = plan_jobs(options)
    exported = options.output / f"{GENERATORS[direction]}.onnx"
    if options.export and exported.exists() and not options.overwrite:
        raise ValueError(f"{exported} exists already; add --overwrite to replace it, or name another folder")
    size = f", trained at {found.image_size} px" if found.image_size else ""
    print(f"{found.path}: {direction}, ResNet-{found.blocks}, width {found.width}{size}; on {device.type}", flush=True)
    side: Literal["left", "right"] = "left" if direction == "AtoB" else "right"
    if options.export:
        read = (_read(job.source, options, side) for job in jobs)
        image = next((image for image in read if isinstance(image, Tensor)), None)
        if image is None:
            raise BadImageError(
                f"{_read(jobs[0].source, options, side)}; --export compares on an image", jobs[0].source
            )
        difference = export_onnx(generator, exported, image[:, : options.tile, : options.tile])
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
        raise ValueError(f"folder {options.input} contains no images but those of the output folder inside it")
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
            for (job, _), image in zip(batch, translated, strict=True):
                saving.append(pool.submit(_save, image, job.target))
            while len(saving) > 2 * options.batch_size:
                saving.popleft().result()
        for future in saving:
            future.result()
    if len(bad) == len(jobs):
        raise ValueError(f"none of the {len(jobs)} image files could be used; the first one: {bad[0]}")
    return len(jobs) - len(bad)


def _header_size(path: Path) -> tuple[int, int]:
    """(W,H) from the header; (0,0) for a file that cannot be opened, which reading it will report."""
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
    except BadImageError as error:
        return error
    if options.pairs:
        width, height = image.size
        if not 1.9 <= width / height <= 2.1:
            what = f"is {width}x{height}, but two images side by side are twice as wide as high"
            return BadImageError(f"{str(path)!r} {what}", path)
        image = image.crop((0, 0, width // 2, height) if side == "left" else (width // 2, 0, width, height))
    if options.image_size:
        image = resize(image, [options.image_size], InterpolationMode.BICUBIC)
    return pil_to_tensor(image)


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


def _save(image: Tensor, target: Path) -> None:
    """Write beside, then rename: an interrupted command leaves no half-written pictures."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_file(target)
    from torchvision.transforms.v2.functional import to_pil_image  # slow to import

    to_pil_image(image).save(partial, format="PNG")
    partial.replace(target)


# Images of any size: padded by reflection to what a generator takes, large ones in overlapping, blended tiles.


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
    """Translate images of one size, which may be any. For mixed precision call it under ``torch.autocast``.

    An image with a side longer than ``tile`` is translated in tiles, so that memory does not grow with its size. The result is
    close to that of one pass: all tiles are normalised by statistics of the whole image.

    Args:
        generator: (b,3,h,w) float in [-1,1] to the same, for h and w that are multiples of 4 and at least 8; in eval mode.
        images: (B,3,H,W) uint8, on any device.
        tile: side of the tiles in px, a multiple of 4.
        overlap: least overlap of neighbouring tiles in px (default: a quarter of the tile).
        batch_size: how many images or tiles go through the generator at once.
        advance: called after every pass through the generator with how many images that was, a tile being a fraction.

    Returns:
        (B,3,H,W) uint8, on the images' device.

    Raises:
        ValueError: ``tile``, ``overlap`` or ``batch_size`` out of range; the generator's output is not finite.
    """
    overlap = checked_overlap(tile, overlap)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    advance = advance or (lambda images: None)
    padded, inside = pad_by_reflection(images)
    done = []
    if max(padded.shape[-2:]) > tile:
        generator = _with_shared_norms(generator)
        for image in padded:
            _measure_norms(generator, image, tile // 2)
            done.append(_translate_in_tiles(generator, image, tile, overlap, batch_size, advance)[None])
    else:
        for batch in padded.split(batch_size):
            done.append(to_bytes(_apply(generator, batch)))
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


def pad_by_reflection(images: Tensor) -> tuple[Tensor, tuple[EllipsisType, slice, slice]]:
    """Images padded to sides that a generator takes, by (repeated) reflection, and the index that crops them again."""
    height, width = images.shape[-2:]
    (rows, top), (columns, left) = (_reflected(length, images.device) for length in (height, width))
    return images[..., rows[:, None], columns], (..., slice(top, top + height), slice(left, left + width))


def _reflected(length: int, device: torch.device) -> tuple[Tensor, int]:
    """The source pixel of each position of a padded side, and how many positions come before the first pixel."""
    padded = max(SMALLEST, math.ceil(length / STEP) * STEP)
    before = (padded - length) // 2
    period = max(1, 2 * (length - 1))  # there and back again
    position = (torch.arange(padded, device=device) - before) % period
    return torch.minimum(position, period - position), before


def lay_tiles(length: int, tile: int, overlap: int) -> tuple[list[int], Tensor]:
    """Tiles along one side: the first pixel of each, and the weight of each of its pixels.

    Neighbouring tiles are blended by a raised cosine around the middle of what they share, half of ``overlap`` wide. The outer
    quarters of the overlap have weight 0: there the network sees the end of the tile, where it pads.

    Args:
        length: of the side, a multiple of 4.

    Returns:
        N starts, multiples of 4; (N,t) float32 weights with t = min(length, tile). At every pixel of the side, those of
        the tiles over it sum to 1.
    """
    if length <= tile:
        return [0], torch.ones(1, length)
    room, stride = (length - tile) // STEP, (tile - overlap) // STEP
    count = math.ceil(room / stride) + 1
    starts = [STEP * (room * k // (count - 1)) for k in range(count)]  # evenly spread: none overlaps by less
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


def _measure_norms(generator: nn.Module, image: Tensor, side: int) -> None:
    """Let the shared norms take their statistics from patches (``side`` px) all over an image (3,H,W)."""
    side -= side % STEP
    (tops, rows), (lefts, columns) = (lay_tiles(length, side, STEP) for length in image.shape[1:])
    corners = list(itertools.product(tops, lefts))
    chosen = torch.randperm(len(corners), generator=torch.Generator().manual_seed(0))[:PATCHES].tolist()
    tall, wide = rows.shape[1], columns.shape[1]
    generator.train()
    _apply(generator, torch.stack([image[:, y : y + tall, x : x + wide] for y, x in (corners[k] for k in chosen)]))
    generator.eval()


def _apply(generator: nn.Module, images: Tensor) -> Tensor:
    """(b,3,h,w) uint8 -> float32 in [-1,1] on the same device."""
    device = next(generator.parameters()).device
    translated: Tensor = generator(to_signed(images.to(device)))
    return translated.float().to(images.device)


def _translate_in_tiles(
    generator: nn.Module, image: Tensor, tile: int, overlap: int, batch_size: int, advance: Callable[[float], object]
) -> Tensor:
    """(3,H,W) uint8 -> the same, one row of tiles at a time, so that only one band of floats is in memory."""
    channels, height, width = image.shape
    tops, row_weights = lay_tiles(height, tile, overlap)
    lefts, column_weights = lay_tiles(width, tile, overlap)
    tall, wide = row_weights.shape[1], column_weights.shape[1]
    done = torch.empty_like(image)
    band = torch.zeros(channels, tall, width, device=image.device)
    for top, following, weight_y in zip(tops, [*tops[1:], height], row_weights.to(image.device), strict=True):
        for first in range(0, len(lefts), batch_size):
            batch = lefts[first : first + batch_size]
            cut = torch.stack([image[:, top : top + tall, left : left + wide] for left in batch])
            weights = column_weights[first : first + batch_size].to(image.device)
            for piece, left, weight_x in zip(_apply(generator, cut), batch, weights, strict=True):
                band[:, :, left : left + wide] += piece * weight_y[:, None] * weight_x
            advance(len(batch) / (len(tops) * len(lefts)))
        ready = following - top  # the rows that no later tile reaches
        done[:, top:following] = to_bytes(band[:, :ready])
        band = torch.cat((band[:, ready:], torch.zeros_like(band[:, :ready])), 1)
    return done


# Export: a generator as an ONNX file for other programs.


@torch.no_grad()
def export_onnx(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Write a generator as ONNX and compare it with torch on an image.

    The file maps ``images`` (batch,3,4h,4w) float32 in [-1,1] to ``translated`` of the same shape; batch, h >= 2 and w >= 2 are
    free. The file is only written if onnxruntime and torch agree.

    Args:
        generator: in eval mode, on the CPU.
        path: the file, replaced if there is one.
        image: (3,H,W) uint8 to compare on, of any size.

    Returns:
        The largest absolute difference of the two outputs.

    Raises:
        ValueError: the difference is above ``TOLERANCE``.
    """
    free = torch.export.Dim("batch"), *(STEP * torch.export.Dim(side, min=SMALLEST // STEP) for side in ("h", "w"))
    example = torch.zeros(2, 3, 8 * STEP, 12 * STEP)  # different sizes, as equal ones would be tied together
    program = torch.onnx.export(
        generator,
        (example,),
        dynamo=True,
        dynamic_shapes={"images": dict(zip((0, 2, 3), free, strict=True))},
        input_names=["images"],
        output_names=["translated"],
        verbose=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        program.save(partial, external_data=False)  # type: ignore[union-attr]  # with dynamo there is a program
        difference = difference_from_torch(generator, partial, image)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path} was not written: onnxruntime's output differs from torch's by {difference:.2g}, more than {TOLERANCE:g}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def difference_from_torch(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Largest absolute difference between the outputs of onnxruntime and torch for an image (3,H,W) uint8."""
    import onnxruntime  # optional, so not at the top

    padded, _ = pad_by_reflection(to_signed(image[None]))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": padded.numpy()})
    return (torch.from_numpy(found) - generator(padded)).abs().max().item()
