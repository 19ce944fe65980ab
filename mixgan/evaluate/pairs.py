"""Registered pairs: which generated image belongs to which real one, by file name, and how far each is from it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mixgan.evaluate.paired import PairedMeans, paired_metrics
from mixgan.evaluate.processes import errors_reach_all
from mixgan.evaluate.sources import FolderSource

#: Sides below this are too small for SSIM's window.
LEAST_SIDE = 11


@dataclass(frozen=True)
class PairDistances:
    """Means over all pairs, and how far each pair is apart.

    Attributes:
        means: by the names of ``mixgan.evaluate.paired.METRICS``.
        pairs: (P,2) int64, positions in the real and in the generated folder.
        rmse: (P,) float32, 0..255.
    """

    means: dict[str, float]
    pairs: Tensor
    rmse: Tensor

    def worst_first(self) -> Tensor:
        """(P,) int64, the pairs in the order of falling distance."""
        return self.rmse.argsort(descending=True, stable=True)


def match_pairs(real: FolderSource, fake: FolderSource) -> Tensor | None:
    """(P,2) int64 positions of images with the same relative path up to the extension; None unless all generated ones have
    exactly one counterpart.

    Where no name is the same, a trailing ``_A`` or ``_B`` does not count: CycleGAN's folders pair 1_A.jpg with 1_B.jpg.
    """
    found = _counterparts(real, fake)
    if None in found:
        return None
    return torch.tensor([[counterpart, position] for position, counterpart in enumerate(found)])


def why_not_matched(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if some of the generated images have a counterpart, but not all; None else."""
    found = _counterparts(real, fake)
    alone = [path for path, counterpart in zip(fake.files, found, strict=True) if counterpart is None]
    if len(alone) in (0, len(found)):
        return None
    return (
        f"{len(alone)} of {len(found)} generated images, {alone[0]} the first, have no counterpart of their own by file name: "
        "no paired figures"
    )


def why_not_comparable(real: FolderSource, fake: FolderSource) -> str | None:
    """A sentence if the images of pairs cannot be compared pixel by pixel; None if they can."""
    sizes = {(source.preprocessing.size,) * 2 if source.preprocessing.size else None for source in (real, fake)}
    found = {size for source in (real, fake) for size in source.sizes()} if None in sizes else sizes
    if len(found) > 1:
        texts = " and ".join(f"{width} x {height}" for width, height in sorted(found)[:2])
        return f"file names match, but sizes differ ({texts}): no paired figures; --resize N makes them equal"
    if min(next(iter(found))) < LEAST_SIDE:
        return f"images below {LEAST_SIDE} px are too small for paired figures"
    return None


def measure_pairs(
    real: FolderSource,
    fake: FolderSource,
    pairs: Tensor,
    *,
    accelerator: Accelerator,
    batch_size: int = 50,
    advance: Callable[[int], None] | None = None,
) -> PairDistances:
    """Paired figures of all pairs (P,2), the work shared by all processes, the result the same on every one.

    Raises:
        ValueError: a file that cannot be used, or images of one pair that differ in size.
    """
    means = PairedMeans()
    rmse = torch.zeros(len(pairs), device=accelerator.device)
    share = torch.arange(len(pairs))[accelerator.process_index :: accelerator.num_processes]
    with errors_reach_all(accelerator):
        for own in share.split(batch_size) if len(share) else ():
            both = (source.read(pairs[own, side].tolist()) for side, source in enumerate((real, fake)))
            originals, made = (torch.stack(images).to(accelerator.device) for images in both)
            values = paired_metrics(made, originals)
            means.add(values)
            rmse[own] = values["rmse"]
            if advance:
                advance(len(own))
    if accelerator.num_processes > 1:
        rmse = accelerator.reduce(rmse, reduction="sum")
    return PairDistances(means.reduce(accelerator).means(), pairs, rmse.cpu())


def _counterparts(real: FolderSource, fake: FolderSource) -> list[int | None]:
    """For each generated image the position of the real one that belongs to it; None where there is none or not just one."""
    for name in (_name, _name_without_side):
        real_names = [name(path, real.folder) for path in real.files]
        fake_names = [name(path, fake.folder) for path in fake.files]
        positions = dict(zip(real_names, range(len(real_names)), strict=True))
        repeated = {key for names in (real_names, fake_names) for key, count in Counter(names).items() if count > 1}
        found = [None if key in repeated else positions.get(key) for key in fake_names]
        if any(position is not None for position in found):
            break
    return found


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _name_without_side(path: Path, folder: Path) -> str:
    return _name(path, folder).removesuffix("_A").removesuffix("_B")
