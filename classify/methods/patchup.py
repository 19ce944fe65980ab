"""PatchUp: blocks of hidden features from another sample, interpolated (soft) or swapped in (hard)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.hidden_mixing import HiddenMixing
from classify.methods.mix_schedule import MixSchedule
from classify.methods.soft_targets import SoftLoss, soft_target_loss
from mixgan.mixing import Mixer, Plan, build_mixer
from mixgan.mixing.mixer import check_odds, check_positive
from mixgan.mixing.plan import paired_plan
from mixgan.mixing.sampling import Draws

PatchMode = Literal["soft", "hard"]


class PatchUp(HiddenMixing):
    """Changes random blocks of every feature map of a random layer: interpolated (soft) or from the partner (hard).

    See ``PatchUpBlocks``. With p the unchanged share and W = p y_i + (1-p) Y the target of the whole, where Y is that of the
    changed blocks, the paper minimises p l(y_i) + (1-p) l(Y) + l(W), which is 2 l(W) for both losses: they are linear in
    the target. Where the input is drawn, images are mixed by CutMix instead (alpha 1), as published, under the same loss.

    Args:
        network: any classifier.
        num_classes, mean, std: of the data set.
        mode: ``"soft"`` or ``"hard"``.
        layers: where to mix: 0 is the input, 1, 2, ... the network's stages, all else a module's name.
        block: side of the blocks, odd; smaller where the features are.
        gamma: sets the odds of a block as in DropBlock, where it is the share of changed features, overlaps aside.
        alpha: lam ~ Beta(alpha, alpha) inside soft blocks.
        odds: share of the batches that are mixed (published: 1 for soft, 0.7 for hard).
        per_batch: one lambda and the same blocks for the batch, as published.
        loss: ``"soft-ce"``, or ``"bce"`` as published.

    Raises:
        ValueError: a value out of range, or an unknown layer.
    """

    source = "Faramarzi et al. 2020; AutoMix 2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        mode: PatchMode = "soft",
        layers: tuple[str, ...] = ("0", "1", "2"),
        block: int = 7,
        gamma: float = 0.9,
        alpha: float = 2.0,
        odds: float = 1.0,
        per_batch: bool = False,
        loss: SoftLoss = "soft-ce",
    ) -> None:
        blocks = PatchUpBlocks(
            num_classes=num_classes, mode=mode, block=block, gamma=gamma, alpha=alpha, per_batch=per_batch
        )
        cutmix = build_mixer("cutmix", num_classes=num_classes, per_batch=per_batch)
        schedule = MixSchedule(odds=check_odds("--method.odds", odds))
        super().__init__(network, cutmix, blocks, layers=layers, schedule=schedule, mean=mean, std=std, loss=loss)

    def mixed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Twice the loss against the mixed target, for the paper's two terms."""
        return 2.0 * soft_target_loss(logits, targets, self.loss)


class PatchUpBlocks(Mixer):
    """Random blocks of feature maps, other blocks in every channel, come from the partner wholly or in part.

    With holes = 1 in blocks around random places, lam ~ Beta(alpha, alpha) for soft and 0 for hard: mask = 1 - holes (1-lam).
    The plan's mask is (B,C,h,w), for these features only; the label weight is its mean, p + (1-p) lam.

    Args:
        num_classes, per_batch: as in ``Mixer``.
        mode, block, gamma, alpha: as in ``PatchUp``.
    """

    source = PatchUp.source

    def __init__(
        self, *, num_classes: int, mode: PatchMode, block: int, gamma: float, alpha: float, per_batch: bool
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        if mode not in ("soft", "hard"):
            raise ValueError(f"--method.mode must be 'soft' or 'hard', got {mode!r}")
        if block < 1 or block % 2 == 0:
            raise ValueError(f"--method.block must be odd and at least 1, got {block}")
        self.mode, self.block = mode, block
        self.gamma = check_odds("--method.gamma", gamma)
        self.alpha = check_positive("--method.alpha", alpha)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Blocks, lambda and partner; ``images`` are the features. A given ``lam`` is the own share inside the blocks."""
        size = (images.shape[-2], images.shape[-1])
        block = fitting_block(self.block, size)
        like = images[:1] if draws.shared else images
        # Channels last, whatever the features are: a CPU pools such maps four times as fast.
        centres = torch.empty_like(like, dtype=torch.float32, memory_format=torch.channels_last)
        centres.bernoulli_(centre_odds(self.gamma, block, size), generator=draws.generator)
        if lam is None:
            lam = draws.beta(self.alpha) if self.mode == "soft" else torch.zeros(len(images), device=images.device)
        mask = 1.0 - blocks_around(centres, block) * (1.0 - lam).view(-1, 1, 1, 1)
        return paired_plan(lam, draws.partner(), mask.mean((1, 2, 3)), mask)


def fitting_block(block: int, size: tuple[int, int]) -> int:
    """The largest odd block side up to ``block`` that fits into features of this size."""
    fits = min(block, *size)
    return fits - 1 + fits % 2


def centre_odds(gamma: float, block: int, size: tuple[int, int]) -> float:
    """The odds of a block around a place: gamma h w / (k^2 (h-k+1) (w-k+1)), DropBlock's for a share gamma.

    As published, any place may be a centre, not only those whose block lies inside.
    """
    height, width = size
    inside = (height - block + 1) * (width - block + 1)
    return gamma * height * width / (block**2 * inside)


def blocks_around(centres: Tensor, block: int) -> Tensor:
    """1 in the block x block places around every 1 of centres (B,C,h,w), cut off at the border; 0 elsewhere."""
    half = block // 2
    in_rows = F.max_pool2d(
        centres, (block, 1), stride=1, padding=(half, 0)
    )  # one axis after the other: 2k reads, not k^2
    return F.max_pool2d(in_rows, (1, block), stride=1, padding=(0, half))
