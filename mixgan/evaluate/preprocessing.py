"""What happens to a picture between its file and a feature network."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from mixgan.data.images import Box, pair_boxes, resize_to

_HALVES = {"A": "left half (A, photo)", "B": "right half (B, map)"}


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a decoded picture before a feature network sees it, in 8 bit as the training side does it.

    Args:
        size: resize to ``size`` x ``size`` pixels by Pillow's antialiased bicubic; a picture of that size stays as it is,
            and None keeps all sizes.
        domain: cut side-by-side pairs of Google Maps first: "A" is the left half (photo), "B" the right half (map).
    """

    size: int | None = None
    domain: Literal["A", "B"] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 or None, got {self.size}")
        if self.domain not in (None, "A", "B"):
            raise ValueError(f"domain must be 'A', 'B' or None, got {self.domain!r}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The picture for the feature network; ValueError for one that is no side-by-side pair where those are cut."""
        if self.domain is not None:
            image = image.crop(self.box(*image.size))
        return image if self.size is None else resize_to(self.size)(image)

    def box(self, width: int, height: int) -> Box:
        """The part that is looked at of a picture of this size: (left, upper, right, lower)."""
        return (0, 0, width, height) if self.domain is None else pair_boxes(width, height)["AB".index(self.domain)]

    def text(self) -> str:
        """For reports, to go on after "both sides" or "images"."""
        cut = f"cut to the {_HALVES[self.domain]} of side-by-side pairs, then " if self.domain else ""
        if self.size is None:
            return f"{cut}left at their own size before the feature network"
        return (
            f"{cut}resized to {self.size} x {self.size} px (bicubic, antialiased) and rounded to 8 bit "
            "before the feature network"
        )
