"""Manifold Mixup: interpolates hidden features instead of images."""

from torch import nn

from classify.methods.hidden_mixing import HiddenMixing
from classify.methods.soft_targets import SoftLoss
from mixgan.mixing import build_mixer


class ManifoldMixup(HiddenMixing):
    """Interpolates the features of a random layer, or the images, and the labels: mixup in hidden space.

    At a layer drawn anew in every step, h = lam h_i + (1-lam) h_j and y = lam y_i + (1-lam) y_j with lam ~ Beta(alpha, alpha).

    Args:
        network: any classifier.
        num_classes, mean, std: of the data set.
        layers: where to mix: 0 is the input, 1, 2, ... the network's stages, all else a module's name.
        alpha: both parameters of the Beta distribution, above 0 (2 on CIFAR, 0.2 on Tiny-ImageNet).
        per_batch: one lambda for the batch, as published.
        loss: ``"soft-ce"``, or ``"bce"`` as published.
    """

    source = "Verma et al. 2019; AutoMix 2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        layers: tuple[str, ...] = ("0", "1", "2"),
        alpha: float = 2.0,
        per_batch: bool = False,
        loss: SoftLoss = "soft-ce",
    ) -> None:
        mixer = build_mixer("mixup", num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        super().__init__(network, mixer, mixer, layers=layers, mean=mean, std=std, loss=loss)
