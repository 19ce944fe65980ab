"""Data sets of the classifiers: registry.py loads one by name, sets.py has their two forms; docs/datasets.md lists them."""

from classify.data.official import EXTRA_CORRUPTIONS, load_corrupted
from classify.data.registry import find_image_folder, list_datasets, load_dataset, resolve_dataset
from classify.data.sets import (
    FolderSet,
    ImageSet,
    NoiseKind,
    boxes_in_crop,
    describe,
    evaluation_boxes,
    label_record,
    resized_side,
    take,
)

__all__ = [
    "EXTRA_CORRUPTIONS",
    "FolderSet",
    "ImageSet",
    "NoiseKind",
    "boxes_in_crop",
    "describe",
    "evaluation_boxes",
    "find_image_folder",
    "label_record",
    "list_datasets",
    "load_corrupted",
    "load_dataset",
    "resized_side",
    "resolve_dataset",
    "take",
]
