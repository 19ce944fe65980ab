"""The data sets of the classifiers: which exist, where they are looked for, and how each becomes tensors.

load.py finds a set by its name; the other files are one family of sets each. docs/datasets.md has them in a table.
"""

from classify.data.boxes import boxes_in_crop, evaluation_boxes, resized_side
from classify.data.official import list_corruptions, load_corrupted
from classify.data.registry import DEFAULT_SIZE, TILES_COUNT, TILES_START, list_datasets, load_dataset, resolve_dataset
from classify.data.sets import FolderSet, ImageSet, Moments, Normalise, OnBadImage, Split

__all__ = [
    "DEFAULT_SIZE",
    "TILES_COUNT",
    "TILES_START",
    "FolderSet",
    "ImageSet",
    "Moments",
    "Normalise",
    "OnBadImage",
    "Split",
    "boxes_in_crop",
    "evaluation_boxes",
    "list_corruptions",
    "list_datasets",
    "load_corrupted",
    "load_dataset",
    "resized_side",
    "resolve_dataset",
]
