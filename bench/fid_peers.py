"""pytorch-fid and torch-fidelity as peers of bench/fid.py: how rows name them, and what keeps them from running here."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from torch import Tensor

from bench.timing import NOT_INSTALLED


@dataclass(frozen=True)
class Peer:
    """A peer as rows name it, and whether it runs here; the name says why not."""

    name: str
    runs: bool


def pytorch_fid(what: str) -> Peer:
    """``what`` of pytorch-fid, whose command and distance need an old scipy."""
    name = f"{what} (pytorch-fid {version('pytorch-fid')})"
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance

        calculate_frechet_distance(np.zeros(2), np.eye(2), np.ones(2), np.eye(2))
    except ImportError:
        return Peer(f"{name}: scipy is {NOT_INSTALLED}", False)
    except TypeError:  # it calls sqrtm(disp=)
        return Peer(f"{name}: does not run with scipy {version('scipy')}, but with < 1.18", False)
    return Peer(name, True)


def torch_fidelity() -> Peer:
    """torch-fidelity's kernel distance."""
    try:
        import torch_fidelity
    except ImportError:
        return Peer(f"torch-fidelity: {NOT_INSTALLED}", False)
    return Peer(f"torch-fidelity {torch_fidelity.__version__}", True)


def peer_kernel(x: Tensor, y: Tensor, *, subsets: int, size: int) -> tuple[float, float]:
    """torch-fidelity's kernel distance: mean and deviation over the subsets."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    found = kid_features_to_metric(x, y, kid_subsets=subsets, kid_subset_size=size, rng_seed=0, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]
