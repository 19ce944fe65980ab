"""Tiny-ImageNet: 200 classes of 500 training and 50 validation images of 64 px.

Kept in memory although it takes 1.2 GB as bytes: so its 100,000 files are decoded once and not in every epoch, and the images are
augmented on the device like those of the other small sets.
"""

from pathlib import Path

from classify.data.archives import Archive, damaged_line, locate, read_lines
from classify.data.folders import read_labelled
from classify.data.sets import ImageSet, OnBadImage, Split, resized
from mixgan.data.images import list_images

ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"
)


def load_tiny_imagenet(root: Path, split: Split, *, size: int, download: bool, on_bad_image: OnBadImage) -> ImageSet:
    """``tiny-imagenet-200/`` in its official layout; ``test`` is its val, as its own test images have no labels.

    Normalised by 0.5 as in PuzzleMix's code, whose settings LaMix took over. Classes are WordNet ids, sorted.

    Raises:
        ValueError: the set, or a part of it, is missing or damaged.
    """
    folder = locate("tiny-imagenet", ARCHIVE, root, fetch=download)
    classes = tuple(sorted(read_lines("tiny-imagenet", folder / "wnids.txt")))
    wanted = _training_files(folder, classes) if split == "train" else _validation_files(folder, classes)
    paths, labels = zip(*wanted, strict=True)
    images, labels, skipped = read_labelled(paths, labels, on_bad_image=on_bad_image, what=f"tiny-imagenet {split}")
    moments = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return ImageSet("tiny-imagenet", resized(images, size), labels, classes, **moments, skipped=skipped)


def _training_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    try:
        files = [list_images(folder / "train" / name / "images") for name in classes]
    except ValueError as error:
        raise ValueError(f"tiny-imagenet is incomplete: {error}; unpack it again") from error
    return [(path, label) for label, found in enumerate(files) for path in found]


def _validation_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """By val_annotations.txt, whose lines are a file name, a class and a box."""
    annotations = folder / "val" / "val_annotations.txt"
    label_of = {name: label for label, name in enumerate(classes)}
    wanted = []
    for line in read_lines("tiny-imagenet", annotations):
        words = line.split("\t")
        if len(words) < 2 or words[1] not in label_of:
            raise damaged_line("tiny-imagenet", annotations, line)
        wanted.append((folder / "val" / "images" / words[0], label_of[words[1]]))
    return wanted
