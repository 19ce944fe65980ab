"""What a data set is, in a few values of config.json; and what differs when a run is taken up again on changed data.

A description is ``{"count": 5000, "classes": ["cat", ...], "fingerprint": "3f..."}``, without classes where there are no labels.
Images that may be in memory or on disk have the fingerprint of their ``files``, and in memory that of their pixels too.
"""

import hashlib
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAMPLED_FILES = 64
_LISTED = 3  # classes in one sentence


def describe_tensors(*tensors: Tensor | list[Tensor], classes: Sequence[str] | None = None) -> dict[str, Any]:
    """The description of a set in memory: every byte of its tensors (N,...), such as images and labels, counts.

    Images of different sizes are lists of tensors.
    """
    digest = hashlib.sha256()
    for tensor in (one for each in tensors for one in (each if isinstance(each, list) else [each])):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        for piece in tensor.split(4096):  # in pieces, as a tensor on another device or with strides is copied
            digest.update(piece.cpu().contiguous().view(torch.uint8).numpy().data)
    names = {} if classes is None else {"classes": list(classes)}
    return {"count": len(tensors[0]), **names, "fingerprint": digest.hexdigest()}


def describe_files(
    paths: Sequence[Path], labels: Tensor | None = None, *, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """The description of a set of files: names, sizes and labels (N,) of all, and the contents of a seeded sample of them."""
    # -1: a file that cannot be read, which loaders report or skip.
    sizes = [path.stat().st_size if os.access(path, os.R_OK) and path.is_file() else -1 for path in paths]
    digest = hashlib.sha256(repr([(path.name, size) for path, size in zip(paths, sizes, strict=True)]).encode())
    if labels is not None:
        digest.update(labels.numpy().data)
    for index in sorted(random.Random(0).sample(range(len(paths)), min(SAMPLED_FILES, len(paths)))):
        if sizes[index] >= 0:
            digest.update(hashlib.sha256(paths[index].read_bytes()).digest())
    names = {} if classes is None else {"classes": list(classes)}
    return {"count": len(paths), **names, "fingerprint": digest.hexdigest()}


def differences(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What differs between two descriptions of each split, in words; what only one of them has is not compared."""
    found = []
    for split in (name for name in before if name in now):
        old, new = before[split], now[split]
        texts = _class_differences(old["classes"], new["classes"]) if "classes" in old and "classes" in new else []
        if old.get("count", new["count"]) != new["count"]:
            texts.append(f"{new['count']} images instead of {old['count']}")
        elif not texts:
            both = [key for key in ("fingerprint", "files") if key in old and key in new]
            if both and old[both[0]] != new[both[0]]:
                texts.append("other pixels or labels")
        found += [f"the {split} set has {text}" for text in texts]
    return found


def check_same_data(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]], *, run: Path, allowed: bool
) -> list[str]:
    """The differences between the data that ``run`` was trained on and the present ones.

    Raises:
        ValueError: there are some, and they are not ``allowed``.
    """
    found = differences(before, now)
    if found and not allowed:
        raise ValueError(
            f"the data are not those that {run} was trained on: {'; '.join(found)}. Restore them (--data-root), or pass"
            " --allow-data-change to continue, which is recorded"
        )
    return found


def _class_differences(old: Sequence[str], new: Sequence[str]) -> list[str]:
    if len(old) != len(new):
        return [f"{len(new)} classes instead of {len(old)}"]
    renamed = [f"class {i} {n!r} instead of {o!r}" for i, (o, n) in enumerate(zip(old, new, strict=True)) if o != n]
    more = f" and {len(renamed) - _LISTED} more" if len(renamed) > _LISTED else ""
    return [", ".join(renamed[:_LISTED]) + more] if renamed else []
