"""Images as ``open_image`` cannot give them: one channel, 16 bits, and numpy's arrays of a declared range."""

import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mixgan.data.images import (
    ARRAYS,
    UPRIGHT,
    BadImageError,
    UnusableError,
    orientation,
    to_rgb,
    upright_size,
    use_file,
)

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class Header(NamedTuple):
    """What a file says about its picture; of no size for one that cannot be opened, which reading it will report."""

    width: int = 0
    height: int = 0
    deep: bool = False  # more than 8 bits per channel


def read_header(path: Path) -> Header:
    """The header of a file, without decoding it."""
    try:
        if path.suffix.lower() in ARRAYS:
            height, width, _ = _array(path).shape
            return Header(width, height, deep=True)
        return use_file(path, lambda image: Header(*upright_size(image), _is_deep(image)))
    except BadImageError:
        return Header(deep=path.suffix.lower() in ARRAYS)


def is_deep(path: Path) -> bool:
    """Whether a file has more than 8 bits per channel; False for one that cannot be opened."""
    return read_header(path).deep


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

    def read(self, path: Path) -> list[Image.Image]:
        """One picture of mode RGB or L; deep: one of mode F, in [-1,1], for each channel.

        Raises:
            BadImageError: as ``open_image``; also an alpha channel that should not be dropped, an array of another shape, values
                whose range is not declared.
        """
        return read_as(path, [self])[0]

    def of_picture(self, path: Path, image: Image.Image, *, is_deep: bool) -> list[Image.Image]:
        """``read`` of an opened file; ``is_deep`` as its header has it, which decoding forgets."""
        has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        if has_alpha and not self.drop_alpha:
            raise UnusableError("has an alpha channel: --drop-alpha reads its colours alone")
        turn = UPRIGHT.get(orientation(image))
        if not self.deep:
            rgb = to_rgb(image)
            upright = rgb if turn is None else rgb.transpose(turn)
            return [upright.convert("L") if self.channels == 1 else upright]
        if not is_deep:
            found = self._bands(path, np.asarray(to_rgb(image)), (0.0, 255.0))
        elif image.mode[:1] == "F" or (image.mode == "I" and image.format == "TIFF"):
            found = self._bands(path, np.asarray(image)[..., None], self._declared(path))
        else:
            values = _rgb_of_16_bits(path, image) if image.mode[:1] != "I" else np.asarray(image)[..., None]
            found = self._bands(path, values, self.value_range or (0.0, 65535.0))
        return found if turn is None else [band.transpose(turn) for band in found]

    def of_array(self, path: Path, values: np.ndarray) -> list[Image.Image]:
        """``read`` of an array (H,W,C)."""
        return self._bands(path, values, self._declared(path))

    def _declared(self, path: Path) -> tuple[float, float]:
        if self.value_range is None:
            raise BadImageError(
                f"{str(path)!r} has values of an unknown range: --range-a LOW HIGH (for domain B --range-b) declares it",
                path,
            )
        return self.value_range

    def _bands(self, path: Path, values: np.ndarray, limits: tuple[float, float]) -> list[Image.Image]:
        """(H,W,C) of any number type -> pictures of mode F in [-1,1]."""
        if values.shape[2] in (2, 4):
            if not self.drop_alpha:
                raise BadImageError(f"{str(path)!r} has an alpha channel: --drop-alpha reads its colours alone", path)
            values = values[..., :-1]
        low, high = limits
        scaled = (values.astype(np.float64) - low) * (2 / (high - low)) - 1
        if not np.isfinite(scaled).all():
            raise BadImageError(f"{str(path)!r} contains NaN or infinite values", path)
        scaled = scaled.clip(-1, 1)
        if self.channels == 1 and scaled.shape[2] == 3:
            scaled = (scaled @ np.array(LUMINANCE))[..., None]
        chosen = [0, 0, 0] if self.channels == 3 and scaled.shape[2] == 1 else range(scaled.shape[2])
        return [Image.fromarray(np.ascontiguousarray(scaled[..., c], np.float32)) for c in chosen]


def read_as(path: Path, ways: Sequence[Pixels]) -> list[list[Image.Image]]:
    """One file as each of ``ways`` has it, decoded once; errors as ``Pixels.read``."""

    def use(image: Image.Image) -> dict[Pixels, list[Image.Image]]:
        deep = _is_deep(image)
        return {way: way.of_picture(path, image, is_deep=deep) for way in {*ways}}

    if path.suffix.lower() in ARRAYS:
        values = _array(path)
        made = {way: way.of_array(path, values) for way in {*ways}}
    else:
        made = use_file(path, use)
    return [made[way] for way in ways]


def to_array(bands: Sequence[Image.Image]) -> np.ndarray:
    """What ``Pixels.read`` returns, perhaps cut and resized, as (H,W,C) uint8 or float32 in [-1,1]."""
    arrays = [np.asarray(band) for band in bands]
    array = np.stack(arrays, -1) if len(arrays) > 1 or arrays[0].ndim == 2 else arrays[0]
    return array.clip(-1, 1) if array.dtype == np.float32 else array  # bicubic overshoots


def _array(path: Path) -> np.ndarray:
    """(H,W,C) from a .npy file of shape (H,W), (H,W,C) or (C,H,W)."""
    if path.exists() and not path.is_file():
        raise BadImageError(f"{str(path)!r} is not a regular file", path)  # opening a pipe would wait forever
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadImageError(f"{str(path)!r} is not an array of numbers in numpy's format ({error})", path) from error
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim == 3 and values.shape[2] > 4 >= values.shape[0]:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4 or values.dtype.kind not in "uifb" or not values.size:
        what = f"an array of shape {values.shape} and type {values.dtype}"
        raise BadImageError(f"{str(path)!r} has {what}; an image has (H,W), (H,W,C) or (C,H,W) numbers", path)
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
