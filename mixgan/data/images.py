"""Image files: listing a folder, decoding one file, or many into one tensor or as a stream; bad files."""

import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mixgan.engine.progress import Progress

ARRAYS = frozenset({".npy"})
EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
PER_TASK = 64  # files per task of a thread: single small files cost more to hand over than to decode
OnBadImage = Literal["error", "skip"]
Box = tuple[int, int, int, int]
Cut = Callable[[Any], Sequence[Image.Image | np.ndarray]]
T = TypeVar("T")


class BadImageError(ValueError):
    """A file that cannot be used as an image; the message names the file and the reason.

    ``path`` has a default because a DataLoader worker's error is rebuilt from its message alone.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


#: One decoded file: (H,W,C) uint8 or float32 for each of its views, or why it cannot be used.
Decoded = list[np.ndarray] | BadImageError


class LoadedImages(NamedTuple):
    """Result of :func:`read_images`."""

    images: Tensor  # uint8 or float32, in the order of ``kept``
    kept: tuple[Path, ...]
    skipped: tuple[Path, ...]


def list_images(folder: Path, *, recursive: bool = True, extensions: frozenset[str] = EXTENSIONS) -> list[Path]:
    """All image files of a folder in natural order (2.jpg before 10.jpg), the same on every file system.

    Extensions are matched in any case, links are followed, hidden files and folders (``._1.jpg``, ``.cache/``) are ignored.

    Raises:
        ValueError: the folder is missing or contains no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"folder {str(folder)!r} does not exist" if not folder.exists() else f"{str(folder)!r} is a file"
        )
    files = list(walk_images(folder, recursive=recursive, extensions=extensions))
    if not files:
        raise ValueError(f"folder {str(folder)!r} contains no image (known extensions: {' '.join(sorted(extensions))})")
    return sorted(files, key=partial(_natural_key, depth=len(folder.parts)))


def open_image(path: Path) -> Image.Image:
    """Decode one file to an 8-bit RGB picture.

    The picture is turned as its EXIF orientation says. Palette and CMYK files are converted, alpha is dropped, of an animation
    the first frame is taken. Grayscale of 16 bits is scaled to 8 and rounded. 32-bit integers, whose range no file declares, are
    taken as they are if none is above 255, else as 16-bit values; above 65535, and floating-point pixels, are refused.

    Raises:
        BadImageError: the file is missing, empty, truncated, not an image, or of an unknown range.
    """
    return use_file(path, _upright_rgb)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of a file from its header, without decoding; errors as in :func:`open_image`."""
    return use_file(path, upright_size)


def read_image(path: Path) -> Tensor:
    """Decode one file to (3,H,W) uint8 RGB, 0..255; conversions and errors as in :func:`open_image`."""
    return torch.from_numpy(np.array(open_image(path))).permute(2, 0, 1).contiguous()


def resize_to(size: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Callable[[Image.Image], Image.Image]:
    """A transform to ``size`` x ``size`` pixels; Pillow's filters antialias, and bicubic is what CycleGAN's code uses."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return lambda image: image.resize((size, size), resample)


def pair_boxes(width: int, height: int) -> tuple[Box, Box]:
    """The left and right half, each (left, upper, right, lower), of a picture that shows a pair side by side.

    Raises:
        ValueError: the picture is not about twice as wide as high.
    """
    if not 1.9 <= width / height <= 2.1:
        raise ValueError(f"is {width}x{height}, but two images side by side are twice as wide as high")
    return (0, 0, width // 2, height), (width // 2, 0, width, height)


def read_images(
    paths: Iterable[Path],
    *,
    transform: Callable[[Image.Image], Image.Image] | None = None,
    on_bad_image: OnBadImage = "error",
    description: str | None = None,
) -> LoadedImages:
    """Decode many files into one tensor, in the order given.

    Args:
        paths: the files.
        transform: applied to each decoded RGB picture, e.g. ``resize_to(256)``. All results must have one size. If it
            raises a ValueError, the file is a bad image.
        on_bad_image: ``"error"`` stops at the first bad file (in the order of ``paths``); ``"skip"`` leaves bad files out and
            names them in one warning.
        description: text of the progress bar; None shows none.

    Returns:
        images (N,3,H,W) uint8, the N paths kept, the paths skipped.

    Raises:
        BadImageError: a bad file and ``on_bad_image="error"``.
        ValueError: no paths, no readable file among them, or different sizes.
    """
    transform = transform or (lambda image: image)
    how: dict[str, Any] = {"on_bad_image": on_bad_image, "description": description}
    (images,), kept, skipped = read_views(paths, lambda image: (transform(image),), **how)
    return LoadedImages(images, kept, skipped)


def read_views(
    paths: Iterable[Path],
    cut: Cut,
    *,
    on_bad_image: OnBadImage = "error",
    description: str | None = None,
    read: Callable[[Path], Any] = open_image,
) -> tuple[list[Tensor], tuple[Path, ...], tuple[Path, ...]]:
    """As :func:`read_images`, but ``cut`` makes P views of one size from each file, e.g. photo and map.

    Args:
        cut: from what ``read`` returns to pictures, or arrays (H,W,C).
        read: decodes a file.

    Returns:
        P times images (N,C,H,W) of a view's own type and size; paths kept; paths skipped.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no image files were given to read")
    views: list[np.ndarray] = []
    kept: list[Path] = []
    skipped: dict[Path, BadImageError] = {}
    bar = Progress(description or "", total=len(paths), unit="images", enabled=description is not None, stderr=True)
    with bar, closing(stream_views(paths, cut, on_bad_image=on_bad_image, read=read)) as results:
        for path, result in zip(paths, results, strict=True):
            bar.advance()
            if isinstance(result, BadImageError):
                skipped[path] = result
                continue
            if not views:  # allocated once: stacking a list at the end would need the memory twice
                views = [np.empty((len(paths), *one.transpose(2, 0, 1).shape), one.dtype) for one in result]
            for view, picture in zip(views, result, strict=True):
                _check_same_size(picture, view, path, paths)
                view[len(kept)] = picture.transpose(2, 0, 1)
            kept.append(path)
    bad = list(skipped.values())
    if not views:
        raise ValueError(f"none of the {len(paths)} image files could be read; the first one: {bad[0]}")
    if bad:
        warnings.warn(skipped_text(bad, len(paths)), stacklevel=2)
    return [torch.from_numpy(view)[: len(kept)] for view in views], tuple(kept), tuple(skipped)


def stream_views(
    paths: Sequence[Path],
    cut: Cut,
    *,
    on_bad_image: OnBadImage = "error",
    per_task: int = PER_TASK,
    read: Callable[[Path], Any] = open_image,
) -> Generator[Decoded, None, None]:
    """As :func:`read_views`, but yields for each path its views, or the error of a skipped file.

    Threads decode ``per_task`` files at a time, at most 17 times as many ahead. Close the generator to stop early.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image must be 'error' or 'skip', got {on_bad_image!r}")
    threads = min(8, os.cpu_count() or 1)
    pieces = (paths[start : start + per_task] for start in range(0, len(paths), per_task))
    pool = ThreadPoolExecutor(max_workers=threads)  # Pillow releases the GIL, so threads are enough
    try:
        tasks = deque(pool.submit(_decode_all, piece, cut, read) for piece in islice(pieces, 2 * threads))
        while tasks:
            results = tasks.popleft().result()
            tasks.extend(pool.submit(_decode_all, piece, cut, read) for piece in islice(pieces, 1))
            for result in results:
                if on_bad_image == "error" and isinstance(result, BadImageError):
                    raise result
                yield result
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for all the other files


def skipped_text(bad: Sequence[BadImageError], total: int, *, shown: int = 5) -> str:
    """A sentence: how many of ``total`` files were skipped, and the reasons for the first of them."""
    more = f"; and {len(bad) - shown} more" if len(bad) > shown else ""
    return f"skipped {len(bad)} of {total} image files: " + "; ".join(str(error) for error in bad[:shown]) + more


def walk_images(folder: Path, *, recursive: bool, extensions: frozenset[str]) -> Iterator[Path]:
    """As :func:`list_images` in any order; none where the folder is missing.

    Links are followed, as class folders are often on another disk; a cycle of links ends.
    """
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        stop = real in seen or not recursive
        folders[:] = [] if stop else sorted(name for name in folders if not name.startswith("."))
        for name in files if real not in seen else ():
            if not name.startswith(".") and (path := Path(parent, name)).suffix.lower() in extensions:
                yield path
        seen.add(real)


def _natural_key(path: Path, depth: int) -> tuple[list[list[str | int]], str]:
    # The split alternates text and digits, so text is never compared with a number; the path decides between 1.jpg and 01.jpg.
    parts = [re.split(r"([0-9]+)", part.lower()) for part in path.parts[depth:]]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in parts], str(path)


def use_file(path: Path, use: Callable[[Image.Image], T]) -> T:
    """The result for the opened file; BadImageError, with its name and the reason, for one that cannot be used."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UnusableError("is not a regular file")  # opening a pipe would wait forever
        with Image.open(path) as image:
            return use(image)
    except BadImageError:
        raise
    except UnusableError as error:
        raise BadImageError(f"{str(path)!r} {error}", path) from error
    except Image.DecompressionBombError as error:
        limit = int(2 * (Image.MAX_IMAGE_PIXELS or 0))
        raise BadImageError(
            f"{str(path)!r} has more than {limit:,} pixels, Pillow's limit against decompression bombs: shrink it, or raise"
            " --max-image-pixels if you trust the file",
            path,
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, ... on damage
        raise BadImageError(f"{str(path)!r} {_what_is_wrong(path, error)}", path) from error


class UnusableError(Exception):
    """Why an intact file cannot be used; ``use_file`` adds its name."""


UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation in the header, 1 (upright) to 8; Pillow itself turns TIFF files."""
    if image.format == "TIFF":
        return 1
    try:
        return int(Image.Image.getexif(image).get(0x0112, 1))  # PngImageFile.getexif would decode the file
    except Exception:  # damaged metadata of an intact picture
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as the EXIF orientation turns the picture."""
    width, height = image.size
    return (height, width) if orientation(image) in (5, 6, 7, 8) else (width, height)


def _upright_rgb(image: Image.Image) -> Image.Image:
    turn = UPRIGHT.get(orientation(image))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode, as ``open_image`` describes it."""
    if image.mode.startswith("I"):  # convert() would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnusableError("has 32-bit integer pixels outside 0..65535, whose range is unknown")
        # Pillow opens 16-bit PNG and PGM files as "I;16" or, in older versions, as "I".
        if image.mode != "I" or image.format in ("PNG", "PPM") or values.max() > 255:
            values = (values * 255 + 32767) // 65535
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnusableError("has floating-point pixels, whose range is unknown")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # the same colours, without Pillow's warning
    return image.convert("RGB")


def _what_is_wrong(path: Path, error: Exception) -> str:
    if not path.exists():
        return "does not exist"
    if path.is_file() and path.stat().st_size == 0:
        return "is empty (zero bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or damaged at its very beginning"
    if "MAX_TEXT" in str(error):
        return "contains more text or a larger colour profile than Pillow reads (1 MB): save it without metadata"
    return f"is truncated or damaged ({error})"


def _decode_all(paths: Sequence[Path], cut: Cut, read: Callable[[Path], Any]) -> list[Decoded]:
    return [decode(path, cut, read) for path in paths]


def decode(path: Path, cut: Cut, read: Callable[[Path], Any]) -> Decoded:
    """The views of one file, as in :func:`read_views`; errors are returned, so that other files are still decoded."""
    try:
        image = read(path)
        try:
            return [np.asarray(view) for view in cut(image)]
        except ValueError as error:
            raise BadImageError(f"{str(path)!r} {error}", path) from error
    except BadImageError as error:
        return error


def _check_same_size(picture: np.ndarray, images: np.ndarray, path: Path, paths: list[Path]) -> None:
    (height, width), (first_height, first_width) = picture.shape[:2], images.shape[2:]
    if (height, width) != (first_height, first_width):
        raise ValueError(
            f"images of different sizes cannot share one tensor: {str(path)!r} is {width}x{height}, those before it"
            f" {first_width}x{first_height} (from {str(paths[0])!r} on); resize them with a transform"
        )
