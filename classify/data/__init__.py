"""Data sets of the classifiers: registry.py loads one by name, sets.py has their two forms; docs/datasets.md lists them."""

from classify.data.official import EXTRA_CORRUPTIONS, load_corrupted
from classify.data.registry import DEFAULT_SIZE, TILES_COUNT, TILES_START, list_datasets, load_dataset, resolve_dataset
from classify.data.sets import (
    FolderSet,
    ImageSet,
    Moments,
    Normalise,
    Split,
    boxes_in_crop,
    describe,
    evaluation_boxes,
    resized_side,
)
from classify.data.subsets import NoiseKind, label_record, spread_evenly, take
from mixgan.data.images import OnBadImage

__all__ = [
    "DEFAULT_SIZE",
    "EXTRA_CORRUPTIONS",
    "TILES_COUNT",
    "TILES_START",
    "FolderSet",
    "ImageSet",
    "Moments",
    "NoiseKind",
    "Normalise",
    "OnBadImage",
    "Split",
    "boxes_in_crop",
    "describe",
    "evaluation_boxes",
    "label_record",
    "list_datasets",
    "load_corrupted",
    "load_dataset",
    "resized_side",
    "resolve_dataset",
    "spread_evenly",
    "take",
]
