"""FMix, ResizeMix and SaliencyMix as their authors publish them, where no package can be installed, for side-by-side timing.

Written anew from the recipes (PuzzleMix and Co-Mixup are in ``published_puzzlemix`` and ``published_comixup``), with the same
steps on the same shapes: batched over samples where the published code is, one sample at a time where that is. Nothing is
slower than there; copies that are not needed are left out. Random numbers come from numpy's legacy generator and scipy, as
there. Each makes images and targets.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor


def mixed_targets(labels: Tensor, partner: Tensor, weight: Tensor | float, num_classes: int) -> Tensor:
    """(B,K) float32: weight (a number or (B,1)) of the own label (B,) int64, the rest of the partner's."""
    own = F.one_hot(labels, num_classes).float()
    return weight * own + (1 - weight) * own[partner]


# FMix (Harris et al. 2020)


def fmix_field(noise: np.ndarray, size: tuple[int, int], *, decay: float = 3.0) -> np.ndarray:
    """(H,W) low-frequency field of the noise (H, W//2+1, 2), one column more where W is odd.

    The published code takes the rows 0 and 1 of the decayed noise for the real and imaginary parts; so does this.
    """
    height, width = size
    across = np.fft.fftfreq(width)[: width // 2 + 1 + width % 2]
    frequency = np.sqrt(across**2 + np.fft.fftfreq(height)[:, None] ** 2)
    spectrum = noise / np.maximum(frequency, 1 / max(size))[..., None] ** decay
    return np.fft.irfftn(spectrum[0] + 1j * spectrum[1], size, axes=(0, 1))


def fmix_mask(size: tuple[int, int], lam: float, rng: np.random.RandomState) -> np.ndarray:
    """(1,H,W): 1 for the top lam share of a random field, up or down by a coin to whole pixels."""
    height, width = size
    field = fmix_field(rng.randn(height, width // 2 + 1 + width % 2, 2), size).ravel()
    field -= field.min()
    field /= field.max()
    count = math.ceil(lam * field.size) if rng.rand() > 0.5 else math.floor(lam * field.size)
    mask = np.zeros(field.size, dtype=np.float32)
    mask[field.argsort()[::-1][:count]] = 1
    return mask.reshape(1, *size)


def fmix(
    images: Tensor, labels: Tensor, *, num_classes: int, masks: int, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """One mask for the batch as published (``masks=1``), or one for every sample (``masks=B``), drawn one by one."""
    lam = np.array([stats.beta.rvs(1, 1, random_state=rng) for _ in range(masks)])
    drawn = np.stack([fmix_mask(tuple(images.shape[-2:]), share, rng) for share in lam])
    mask = torch.from_numpy(drawn).to(images.device)
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    mixed = images * mask + images[partner] * (1 - mask)
    weight = torch.from_numpy(lam).float().to(images.device)[:, None]
    return mixed, mixed_targets(labels, partner, weight, num_classes)


# ResizeMix (Qin et al. 2020)


def resizemix(images: Tensor, labels: Tensor, *, num_classes: int, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Partners made small by one tau ~ U(0.1, 0.8) and pasted at one place for the whole batch."""
    height, width = images.shape[-2:]
    tau = rng.uniform(0.1, 0.8)
    small = max(1, int(tau * height)), max(1, int(tau * width))
    top, left = rng.randint(height - small[0] + 1), rng.randint(width - small[1] + 1)
    partner = torch.randperm(len(images), device=images.device)
    mixed = images.clone()
    mixed[:, :, top : top + small[0], left : left + small[1]] = F.interpolate(images[partner], small, mode="nearest")
    return mixed, mixed_targets(labels, partner, 1 - small[0] * small[1] / (height * width), num_classes)


# SaliencyMix (Uddin et al. 2021)


def fine_grained_saliency(image: Tensor) -> np.ndarray:
    """(H,W) in [0,1] of one image (3,H,W) in [0,1], by OpenCV contrib's detector on 8 bits.

    Raises:
        ImportError: OpenCV without its contrib modules, or none.
    """
    from cv2 import saliency

    pixels = (image.flip(0) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()  # blue first
    return saliency.StaticSaliencyFineGrained_create().computeSaliency(np.ascontiguousarray(pixels))[1]


def saliencymix(
    images: Tensor, labels: Tensor, *, num_classes: int, rng: np.random.RandomState
) -> tuple[Tensor, Tensor]:
    """The box around the peak of the first partner's saliency, pasted into the whole batch; overwrites ``images``."""
    height, width = images.shape[-2:]
    lam = rng.beta(1.0, 1.0)
    partner = torch.randperm(len(images), device=images.device)
    others = images[partner]
    row, column = np.unravel_index(fine_grained_saliency(others[0]).argmax(), (height, width))
    half_height, half_width = (int(math.sqrt(1 - lam) * side) // 2 for side in (height, width))
    top, bottom = max(0, row - half_height), min(height, row + half_height)
    left, right = max(0, column - half_width), min(width, column + half_width)
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return images, mixed_targets(labels, partner, float(weight), num_classes)
