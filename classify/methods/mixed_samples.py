"""Soft cross-entropy on mixed samples: every mixer of ``mixgan.mixing`` as a training method."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import Method, MethodOutput
from classify.methods.mix_schedule import MixSchedule
from mixgan.mixing import Mixer, build_mixer, gradient_saliency, static_saliency
from mixgan.mixing.host import HostChoice


class MixedSamples(Method):
    """loss = cross-entropy of the network on mixed images against the mixed labels.

    Equal to lam*CE(f(x), y_i) + (1-lam)*CE(f(x), y_j), as the papers' code writes it.

    Args:
        network: the classifier.
        mixer: the mixing method.
        schedule: when it is on; batches that are not mixed are trained on as they are.
        mean, std: the normalisation of the images, which the static saliency map undoes.
    """

    def __init__(
        self,
        network: nn.Module,
        mixer: Mixer,
        *,
        schedule: MixSchedule | None = None,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
    ) -> None:
        super().__init__(network)
        self.mixer = mixer
        self.unmixed = build_mixer("erm", num_classes=mixer.num_classes)
        self.schedule = schedule or MixSchedule()
        self.mean, self.std = mean, std
        self.host = HostChoice()
        self.share = self.schedule.share(0)

    def before_step(self, epoch: int, progress: float) -> None:
        """The share of mixed batches in this epoch."""
        self.share = self.schedule.share(epoch)

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Mix, classify, compare. Logs the loss and the lambda-weighted accuracy."""
        mixer = self.mixer if self.mixes_this_batch() else self.unmixed
        mixed = mixer.mix(images, labels, saliency=self.saliency(mixer, images, labels))
        logits = self.network(mixed.images).float()
        loss = F.cross_entropy(logits, mixed.targets)
        logs = {"loss": loss.detach(), "accuracy": soft_accuracy(logits, mixed.targets)}
        return MethodOutput(loss, logits, logs)

    def mixes_this_batch(self) -> bool:
        """A coin where the schedule mixes a share of the batches; the same on all processes."""
        if self.share in (0.0, 1.0):
            return self.share == 1.0
        return self.host.draw([1.0 - self.share, self.share]) == 1

    def saliency(self, mixer: Mixer, images: Tensor, labels: Tensor) -> Tensor | None:
        """The saliency map (B,H,W) that the mixer's paper uses: static, or of the clean loss in eval mode."""
        if mixer.saliency_kind is None:
            return None
        if mixer.saliency_kind == "static":
            return static_saliency(self.unit_range(images))
        training = self.network.training
        self.network.eval()
        try:
            return gradient_saliency(
                lambda x: F.cross_entropy(self.network(x).float(), labels, reduction="sum"), images
            )
        finally:
            self.network.train(training)

    def unit_range(self, images: Tensor) -> Tensor:
        """Images before normalisation, 0..1."""
        mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return images * std + mean

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Own image, the image that is mixed in most, mixed image and mask."""
        saliency = self.saliency(self.mixer, images, labels)
        mixed = self.mixer.mix(images, labels, saliency=saliency, generator=generator)
        others = mixed.plan.weights[:, 1:].argmax(1, keepdim=True) + 1
        partner = mixed.plan.sources.gather(1, others)[:, 0]
        shown = {"own": images, "partner": images[partner], "mixed": mixed.images}
        columns = {name: self.unit_range(column) for name, column in shown.items()}
        return columns if mixed.mask is None else {**columns, "mask (white: own)": mixed.mask}


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean target weight of the predicted class: accuracy for one-hot targets, lambda-weighted accuracy for mixed ones.

    Args:
        logits, targets: (B,K).
    """
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()
