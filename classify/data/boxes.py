"""Boxes of objects in the squares that evaluation crops from a file."""

import torch
from torch import Tensor

from classify.data.sets import FolderSet, ImageSet
from mixgan.data.images import image_size

CROPPED = 0.875  # share of a picture's shorter side in the square: 224 of 256 px, as usual for ImageNet


def resized_side(size: int) -> int:
    """The shorter side, in px, to which evaluation resizes a file before it crops the square of ``size`` from the centre."""
    return round(size / CROPPED)


def boxes_in_crop(boxes: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Boxes of pictures in the evaluation square: resized, moved and clipped as ``loaders.eval_batches`` does.

    Args:
        boxes: (N,4) x0, y0, x1, y1 in pixels of the pictures; edges, so that x1 - x0 is the width.
        sizes: (N,2) width and height of the pictures.
        size: side of the square.

    Returns:
        (N,4) float32 in 0..size; a box outside the square has no area.

    Raises:
        ValueError: boxes and sizes are not of these shapes.
    """
    if boxes.shape != (len(boxes), 4) or sizes.shape != (len(boxes), 2):
        raise ValueError(f"boxes must be (N,4) and sizes (N,2), got {tuple(boxes.shape)} and {tuple(sizes.shape)}")
    sizes = sizes.long()
    # Resize rounds the longer side down, CenterCrop the margin to the nearest even of two; both are followed to the pixel.
    enlarged = sizes * resized_side(size) // sizes.amin(1, keepdim=True)
    margin = ((enlarged - size) / 2).round()
    scale = enlarged / sizes
    return (boxes * scale.repeat(1, 2) - margin.repeat(1, 2)).float().clamp(0, size)


def evaluation_boxes(dataset: ImageSet | FolderSet) -> Tensor:
    """The boxes of a set in pixels of the images of ``loaders.eval_batches``, in the order of the set.

    For a FolderSet the header of every file is read for its size.

    Returns:
        (N,4) float32 x0, y0, x1, y1; edges, so that x1 - x0 is the width.

    Raises:
        ValueError: the set has no boxes.
        BadImageError: an unreadable file, whatever the set's ``on_bad_image``.
    """
    if dataset.boxes is None:
        raise ValueError(f"the data set {dataset.name!r} has no boxes; cub-200 and the tiles have")
    if isinstance(dataset, ImageSet):
        return dataset.boxes
    sizes = torch.tensor([image_size(path) for path in dataset.paths])
    return boxes_in_crop(dataset.boxes, sizes, dataset.size)
