"""Soft cross-entropy on mixed samples: every mixer of ``mixgan.mixing`` as a training method."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import Method, MethodOutput
from mixgan.mixing import Mixer


class MixedSamples(Method):
    """loss = cross-entropy of the network on mixed images against the mixed labels.

    Equal to lam*CE(f(x), y_i) + (1-lam)*CE(f(x), y_j), as the papers' code writes it.
    """

    def __init__(self, network: nn.Module, mixer: Mixer) -> None:
        super().__init__(network)
        self.mixer = mixer

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Mix, classify, compare. Logs the loss and the lambda-weighted accuracy."""
        mixed = self.mixer.mix(images, labels)
        logits = self.network(mixed.images).float()
        loss = F.cross_entropy(logits, mixed.targets)
        logs = {"loss": loss.detach(), "accuracy": soft_accuracy(logits, mixed.targets)}
        return MethodOutput(loss, logits, logs)

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Own image, partner, mask and mixed image."""
        mixed = self.mixer.mix(images, labels, generator=generator)
        columns = {"own": images, "partner": images[mixed.partner], "mixed": mixed.images}
        return columns if mixed.mask is None else {**columns, "mask (white: own)": mixed.mask}


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean target weight of the predicted class: accuracy for one-hot targets, lambda-weighted accuracy for mixed ones.

    Args:
        logits, targets: (B,K).
    """
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()
