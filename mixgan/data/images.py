"""Image files: listing a folder, decoding one to 8-bit RGB or as ``Pixels`` asks (one channel, 16 bits, .npy), or many."""

import os
import re
import struct
import sys
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
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
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L
OnBadImage = Literal["error", "skip"]
Box = tuple[int, int, int, int]
Bands = list[Image.Image]
Cut = Callable[[Any], Sequence[Image.Image | np.ndarray]]
PER_TASK = 64  # files per task of a thread: single small files cost more to hand over than to decode
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
    names = map(str, walk_images(folder, recursive=recursive, extensions=extensions))
    # Paths are made at the end: sorting would leave each with its parts, almost twice the memory.
    files = [Path(name) for name in sorted(names, key=partial(_natural_key, depth=len(folder.parts)))]
    if not files:
        raise ValueError(f"folder {str(folder)!r} contains no image (known extensions: {' '.join(sorted(extensions))})")
    return files


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


def _natural_key(path: str, depth: int) -> tuple[list[list[str | int]], str]:
    # The split alternates text and digits, so text is never compared with a number; the path decides between 1.jpg and 01.jpg.
    parts = [re.split(r"([0-9]+)", part.lower()) for part in Path(path).parts[depth:]]
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in parts], path


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


def pair_boxes(width: int, height: int) -> tuple[Box, Box]:
    """The left and right half, each (left, upper, right, lower), of a picture that shows a pair side by side.

    Raises:
        ValueError: the picture is not about twice as wide as high.
    """
    if not 1.9 <= width / height <= 2.1:
        raise ValueError(f"is {width}x{height}, but two images side by side are twice as wide as high")
    return (0, 0, width // 2, height), (width // 2, 0, width, height)


class UnusableError(Exception):
    """Why an intact file cannot be used; ``use_file`` adds its name."""


def use_file(path: Path, use: Callable[[Image.Image], T], use_array: Callable[[np.ndarray], T] | None = None) -> T:
    """The result for the opened picture, or for the (H,W,C) of a .npy file where ``use_array`` is given.

    Raises:
        BadImageError: the file cannot be used; the message names it and the reason.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UnusableError("is not a regular file")  # opening a pipe would wait forever
        if use_array and path.suffix.lower() in ARRAYS:
            return use_array(_array(path))
        with Image.open(path) as image:
            return use(image)
    except UnusableError as error:
        reason = str(error)
        cause: Exception = error
    except Image.DecompressionBombError as error:
        limit, cause = int(2 * (Image.MAX_IMAGE_PIXELS or 0)), error
        reason = (
            f"has more than {limit:,} pixels, Pillow's limit against decompression bombs: shrink it, or raise"
            " --max-image-pixels if you trust the file"
        )
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error, ... on damage
        reason, cause = _what_is_wrong(path, error), error
    raise BadImageError(f"{str(path)!r} {reason}", path) from cause


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


class Header(NamedTuple):
    """What a file says about its picture; of no size for one that cannot be opened, which reading it will report."""

    width: int = 0
    height: int = 0
    deep: bool = False  # more than 8 bits per channel


def read_header(path: Path) -> Header:
    """The header of a file, without decoding it."""
    try:
        return use_file(
            path,
            lambda image: Header(*upright_size(image), _is_deep(image)),
            lambda values: Header(values.shape[1], values.shape[0], deep=True),
        )
    except BadImageError:
        return Header(deep=path.suffix.lower() in ARRAYS)


@dataclass(frozen=True)
class Pixels:
    """How the files of a domain are read.

    Attributes:
        channels: 1 (colours become their luminance) or 3 (grayscale is repeated).
        drop_alpha: read the colours of pictures with an alpha channel, instead of refusing them.
        value_range: the values of .npy files and of files above 8 bits that become -1 and 1, by default 0 and 65535 of 16 bits;
            values outside are clipped.
        deep: read everything as float32 in [-1,1]; else as 8 bits.
    """

    channels: int = 3
    drop_alpha: bool = False
    value_range: tuple[float, float] | None = None
    deep: bool = False

    def read(self, path: Path) -> Bands:
        """One picture of mode RGB or L; deep: one of mode F, in [-1,1], for each channel.

        Raises:
            BadImageError: as ``open_image``; also an alpha channel that should not be dropped, an array of another shape, values
                whose range is not declared.
        """
        return read_as(path, [self])[0]

    def of_picture(self, path: Path, image: Image.Image, *, is_deep: bool) -> Bands:
        """``read`` of an opened file; ``is_deep`` as its header has it, which decoding forgets."""
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            self._check_alpha()
        if not self.deep:
            upright = _upright_rgb(image)
            return [upright.convert("L") if self.channels == 1 else upright]
        turn = UPRIGHT.get(orientation(image))
        if not is_deep:
            found = self.of_array(np.asarray(to_rgb(image)), (0.0, 255.0))
        elif image.mode[:1] == "F" or (image.mode == "I" and image.format == "TIFF"):
            found = self.of_array(np.asarray(image)[..., None])
        else:
            values = _rgb_of_16_bits(path, image) if image.mode[:1] != "I" else np.asarray(image)[..., None]
            found = self.of_array(values, self.value_range or (0.0, 65535.0))
        return found if turn is None else [band.transpose(turn) for band in found]

    def _check_alpha(self) -> None:
        if not self.drop_alpha:
            raise UnusableError("has an alpha channel: --drop-alpha reads its colours alone")

    def of_array(self, values: np.ndarray, limits: tuple[float, float] | None = None) -> Bands:
        """(H,W,C) of any number type -> pictures of mode F, in [-1,1] where the values are in ``limits``, else the declared."""
        if values.shape[2] in (2, 4):
            self._check_alpha()
            values = values[..., :-1]
        if (limits := limits or self.value_range) is None:
            raise UnusableError(
                "has values of an unknown range: --range-a LOW HIGH (for domain B --range-b) declares it"
            )
        low, high = limits
        scaled = (values.astype(np.float64) - low) * (2 / (high - low)) - 1
        if not np.isfinite(scaled).all():
            raise UnusableError("contains NaN or infinite values")
        scaled = scaled.clip(-1, 1)
        if self.channels == 1 and scaled.shape[2] == 3:
            scaled = (scaled @ np.array(LUMINANCE))[..., None]
        chosen = [0, 0, 0] if self.channels == 3 and scaled.shape[2] == 1 else range(scaled.shape[2])
        return [Image.fromarray(np.ascontiguousarray(scaled[..., c], np.float32)) for c in chosen]


def read_as(path: Path, ways: Sequence[Pixels]) -> list[Bands]:
    """One file as each of ``ways`` has it, decoded once; errors as ``Pixels.read``."""

    def use(image: Image.Image) -> dict[Pixels, Bands]:
        deep = _is_deep(image)
        return {way: way.of_picture(path, image, is_deep=deep) for way in {*ways}}

    made = use_file(path, use, lambda values: {way: way.of_array(values) for way in {*ways}})
    return [made[way] for way in ways]


def to_array(bands: Sequence[Image.Image]) -> np.ndarray:
    """What ``Pixels.read`` returns, perhaps cut and resized, as (H,W,C) uint8 or float32 in [-1,1]."""
    arrays = [np.asarray(band) for band in bands]
    array = np.stack(arrays, -1) if len(arrays) > 1 or arrays[0].ndim == 2 else arrays[0]
    return array.clip(-1, 1) if array.dtype == np.float32 else array  # bicubic overshoots


def _array(path: Path) -> np.ndarray:
    """(H,W,C) from a .npy file of shape (H,W), (H,W,C) or (C,H,W)."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnusableError(f"is not an array of numbers in numpy's format ({error})") from error
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and values.shape[2] > 4 >= values.shape[0]:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4 or values.dtype.kind not in "uifb" or not values.size:
        what = f"an array of shape {values.shape} and type {values.dtype}"
        raise UnusableError(f"has {what}; an image has (H,W), (H,W,C) or (C,H,W) numbers")
    return values


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened picture has more than 8 bits, also where Pillow reduces its colours to 8."""
    if image.mode[:1] in ("I", "F"):
        return True
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8  # type: ignore[attr-defined]  # BitsPerSample
    return image.format == "PNG" and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _rgb_of_16_bits(path: Path, image: Image.Image) -> np.ndarray:
    """(H,W,C) uint16 from a PNG or TIFF, of which Pillow keeps the high bytes: read in the other byte order, the low ones."""
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    with Image.open(path) as again:
        if image.mode not in ("RGB", "RGBA"):
            raise UnusableError(f"has 16 bits of mode {image.mode}, which cannot be read: save it as RGB or grayscale")
        tiles = []
        for tile in again.tile:
            mode, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args
            mode = mode[:-1] + other[mode[-1]]
            tiles.append(tile._replace(args=(mode, *rest) if rest else mode))
        again.tile = tiles
        high, low = (np.asarray(one).astype(np.uint16) for one in (image, again))
    return high * 256 + low


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H,W,C), C 1 or 3, as PNG: of 8 bits for uint8, of 16 for uint16. Pillow cannot write colours of 16 bits."""
    if pixels.dtype == np.uint8 or pixels.shape[2] == 1:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path, format="PNG")
        return
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.astype(">u2").reshape(height, -1).view(np.uint8)], 1)
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows.tobytes())}
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in (*parts.items(), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))


def read_images(
    paths: Iterable[Path], *, on_bad_image: OnBadImage = "error", description: str | None = None
) -> tuple[Tensor, list[Path]]:
    """Decode many files of one size into one tensor, in the order given.

    Args:
        on_bad_image: ``"error"`` stops at the first bad file (in the order of ``paths``); ``"skip"`` leaves bad files out and
            names them in one warning.
        description: text of the progress bar; None shows none.

    Returns:
        images (N,3,H,W) uint8, and the paths of those N.

    Raises:
        BadImageError: a bad file and ``on_bad_image="error"``.
        ValueError: no paths, no readable file among them, or different sizes.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no image files were given to read")
    images = np.empty((0, 0, 0, 0), np.uint8)
    kept: list[Path] = []
    bad: list[BadImageError] = []
    bar = Progress(description or "", total=len(paths), unit="images", enabled=description is not None, stderr=True)
    with bar, closing(stream_views(paths, lambda image: (image,), on_bad_image=on_bad_image)) as results:
        for path, result in zip(paths, results, strict=True):
            bar.advance()
            if isinstance(result, BadImageError):
                bad.append(result)
                continue
            picture = result[0].transpose(2, 0, 1)
            if not kept:  # allocated once: stacking a list at the end would need the memory twice
                images = np.empty((len(paths), *picture.shape), np.uint8)
            if picture.shape != images.shape[1:]:
                (height, width), (first_height, first_width) = picture.shape[1:], images.shape[2:]
                raise ValueError(
                    f"images of different sizes cannot share one tensor: {str(path)!r} is {width}x{height}, those before it"
                    f" {first_width}x{first_height} (from {str(paths[0])!r} on); resize the files first"
                )
            images[len(kept)] = picture
            kept.append(path)
    report_skipped(bad, len(paths))
    return torch.from_numpy(images)[: len(kept)], kept


def stream_views(
    paths: Sequence[Path],
    cut: Cut,
    *,
    on_bad_image: OnBadImage = "error",
    per_task: int = PER_TASK,
    read: Callable[[Path], Any] = open_image,
) -> Generator[Decoded, None, None]:
    """The views that ``cut`` makes of each file, e.g. photo and map, or the error of a skipped one, in the order given.

    Threads decode ``per_task`` files at a time, at most 17 times as many ahead. Close the generator to stop early.

    Args:
        cut: from what ``read`` returns to pictures, or arrays (H,W,C); if it raises a ValueError, the file is a bad image.
        read: decodes a file.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image must be 'error' or 'skip', got {on_bad_image!r}")

    def decode_all(piece: Sequence[Path]) -> list[Decoded]:
        return [decode(path, cut, read) for path in piece]

    threads = min(8, os.cpu_count() or 1)
    pieces = (paths[start : start + per_task] for start in range(0, len(paths), per_task))
    pool = ThreadPoolExecutor(max_workers=threads)  # Pillow releases the GIL, so threads are enough
    try:
        tasks = deque(pool.submit(decode_all, piece) for piece in islice(pieces, 2 * threads))
        while tasks:
            results = tasks.popleft().result()
            tasks.extend(pool.submit(decode_all, piece) for piece in islice(pieces, 1))
            for result in results:
                if on_bad_image == "error" and isinstance(result, BadImageError):
                    raise result
                yield result
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for all the other files


def decode(path: Path, cut: Cut, read: Callable[[Path], Any]) -> Decoded:
    """The views of one file, as in :func:`stream_views`; errors are returned, so that other files are still decoded."""
    try:
        image = read(path)
        try:
            return [np.asarray(view) for view in cut(image)]
        except ValueError as error:
            raise BadImageError(f"{str(path)!r} {error}", path) from error
    except BadImageError as error:
        return error


def report_skipped(bad: Sequence[BadImageError], total: int) -> None:
    """Warn of files that were skipped; ValueError if those are all ``total``."""
    if bad and len(bad) == total:
        raise ValueError(f"none of the {total} image files could be read; the first one: {bad[0]}")
    if bad:
        warnings.warn(skipped_text(bad, total), stacklevel=3)


def skipped_text(bad: Sequence[BadImageError], total: int, *, shown: int = 5) -> str:
    """A sentence: how many of ``total`` files were skipped, and the reasons for the first of them."""
    more = f"; and {len(bad) - shown} more" if len(bad) > shown else ""
    return f"skipped {len(bad)} of {total} image files: " + "; ".join(str(error) for error in bad[:shown]) + more
