"""mixup and CutMix of timm, torchvision and kornia as calls to be timed; each imports its package when the call is made."""

from collections.abc import Callable

import torch
from torch import Tensor


def timm_call(name: str, images: Tensor, labels: Tensor, *, mode: str, num_classes: int) -> Callable[[], object]:
    """timm's Mixup, one lambda for the batch (``mode="batch"``) or for each sample (``"elem"``).

    It overwrites the images it is given, so it gets a copy, which every call mixes further; the work stays the same.
    """
    from timm.data import Mixup

    alphas = {"mixup": (1.0, 0.0), "cutmix": (0.0, 1.0)}[name]
    mixer = Mixup(*alphas, mode=mode, label_smoothing=0.0, num_classes=num_classes)
    copy = images.clone()
    return lambda: mixer(copy, labels)


def torchvision_call(name: str, images: Tensor, labels: Tensor, *, num_classes: int) -> Callable[[], object]:
    """torchvision's v2.MixUp or v2.CutMix, one lambda for the batch."""
    from torchvision.transforms import v2

    mixer = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[name](num_classes=num_classes)
    return lambda: mixer(images, labels)


def kornia_call(name: str, images: Tensor, labels: Tensor, *, num_classes: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """kornia's RandomMixUpV2 or RandomCutMixV2, one lambda for each sample; targets are made of what it says about labels."""
    from kornia import augmentation

    shared = {"p": 1.0, "same_on_batch": False, "data_keys": ["input", "class"]}
    if name == "mixup":
        mixer = augmentation.RandomMixUpV2(**shared)
    else:
        mixer = augmentation.RandomCutMixV2(**shared, use_correct_lambda=True)

    def call() -> tuple[Tensor, Tensor]:
        mixed, both = mixer(images, labels)
        own, partner, lam = both.view(-1, 3).unbind(1)
        share = lam if name == "mixup" else 1 - lam  # of the partner
        targets = torch.zeros(len(own), num_classes, device=own.device)
        targets.scatter_add_(1, own.long()[:, None], 1 - share[:, None])
        return mixed, targets.scatter_add_(1, partner.long()[:, None], share[:, None])

    return call
