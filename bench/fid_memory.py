"""How much memory gathering the statistics of features takes: pytorch-fid's way and mixgan's."""

import numpy as np
import torch
from torch import Tensor

from mixgan.evaluate.comparison import FidOptions
from mixgan.evaluate.feature_set import KeptFeatures
from mixgan.evaluate.frechet import FeatureStatistics

BATCH = FidOptions.batch_size  # pytorch-fid's default, too


def keep_all(count: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """What pytorch-fid's get_activations and calculate_activation_statistics do with features."""
    features = np.empty((count, dims))
    for first in range(0, count, BATCH):
        part = features[first : first + BATCH]
        part[:] = torch.randn(part.shape).numpy()
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def keep_sums(count: int, dims: int, *, kept: int) -> tuple[Tensor, Tensor]:
    """What mixgan does with them; ``kept`` features are kept."""
    statistics, sample = FeatureStatistics(dims), KeptFeatures(dims, limit=max(1, kept))
    for first in range(0, count, BATCH):
        positions = torch.arange(first, min(first + BATCH, count))
        features = torch.randn(len(positions), dims)
        statistics.update(features)
        if kept:
            sample.update(features, positions)
    return statistics.covariance, sample.features
