"""ImageNet (ILSVRC 2012) in class folders, as ``torchvision.datasets.ImageNet`` unpacks it."""

import re
from pathlib import Path

from classify.data.folders import class_names, stream_classes
from classify.data.sets import FolderSet, OnBadImage, Split


def load_imagenet(root: Path, split: Split, *, size: int, on_bad_image: OnBadImage) -> FolderSet:
    """``{train,val}/<wnid>/*`` below ``<root>/imagenet`` or the root itself, streamed; ``test`` is ImageNet's val.

    Raises:
        ValueError: the folders are missing, hold no classes, or are not named by WordNet ids.
    """
    for base in (root / "imagenet", root):
        if class_names(base / "train") and (base / "val").is_dir():
            break
    else:
        raise ValueError(
            f"imagenet is not there: looked for train/<wnid>/ and val/<wnid>/ in {str(root / 'imagenet')!r} and in"
            f" {str(root)!r}; it is to be had from https://image-net.org after registration only, and"
            " torchvision.datasets.ImageNet unpacks its archives so; --data-root names another place"
        )
    train, val = base / "train", base / "val"
    classes = class_names(train)
    strange = [name for name in classes if not re.fullmatch(r"n\d{8}", name)]
    if strange:
        raise ValueError(
            f"imagenet: {str(train)!r} has the folder {strange[0]!r}, which is no WordNet id such as n01440764;"
            " --dataset imagefolder takes class folders of any name"
        )
    if not class_names(val):
        raise ValueError(
            f"imagenet: {str(val)!r} holds no class folders; torchvision.datasets.ImageNet sorts the validation images"
            " into theirs"
        )
    return stream_classes("imagenet", train if split == "train" else val, classes, size=size, on_bad_image=on_bad_image)
