"""Multi-Sample: a network that classifies two images at once, concatenated on channels."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.evaluation import summed
from classify.methods.method import Method, MethodOutput
from classify.networks.contract import double_input, double_output
from mixgan.engine.annotations import Above0
from mixgan.mixing.sampling import Draws
from mixgan.ops.transforms import to_float64

if TYPE_CHECKING:
    from accelerate import Accelerator

Interpolate = Literal["paper", "none", "samples", "labels", "both"]
RandomLabel = Literal["none", "first", "second"]


class MultiSample(Method):
    """Two images, concatenated on channels, are classified at once: by two heads, or as the top two of one head.

    x = [2a*x_i, 2(1-a)*x_j], loss = h * (b*CE(o_1, y_i) + (1-b)*CE(o_2, y_j)) with h heads; one head has o_1 = o_2. With
    a = b = 1/2 and two heads this is plain concatenation and the plain sum of 4.2; with a = b = lambda and one head it is the
    "mixup-C" of 4.1 (Eq. 2, its images times 2).

    The network is changed in place: its first convolution takes twice the channels, its classifier has twice the outputs
    for two heads.

    Args:
        network: any network that ``classify.networks.contract`` can change.
        heads: 2 (section 4.2) or 1 (section 4.1).
        interpolate: what takes lambda ~ Beta(alpha, alpha) and not 1/2: "none" of a and b, a ("samples", 5.3), b ("labels", 5.3)
            or "both"; "paper" is none with two heads and both with one.
        alpha: both parameters of the Beta distribution, above 0; 1 is uniform.
        per_batch: one lambda for the batch.
        random_label: replace the label of the "first" or "second" image by one drawn from all classes, every step anew (5.4).
    """

    source = "Multi-sample 4 and 5"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        heads: Literal[1, 2] = 2,
        interpolate: Interpolate = "paper",
        alpha: Above0 = 1.0,
        per_batch: bool = False,
        random_label: RandomLabel = "none",
    ) -> None:
        super().__init__(network)
        if num_classes < 2:
            raise ValueError(f"multi-sample needs at least 2 classes, got {num_classes}")
        if interpolate == "paper":
            interpolate = "none" if heads == 2 else "both"
        self.heads, self.interpolate, self.random_label = heads, interpolate, random_label
        self.num_classes, self.per_batch, self.alpha = num_classes, per_batch, alpha
        double_input(network)
        if heads == 2:
            double_output(network)

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Pair every image with a random one, classify both. Logs the loss, both accuracies and their weighted mean."""
        draws = Draws(len(images), device=images.device, shared=self.per_batch)
        partner = draws.partner()
        image_share, label_share = self.shares(draws)
        logits = self.logits(join(images, images[partner], image_share))
        pair_labels = self.training_labels(torch.stack((labels, labels[partner]), 1), draws)
        weights = torch.stack((label_share, 1 - label_share), 1)
        losses = F.cross_entropy(logits.transpose(1, 2), pair_labels, reduction="none")
        loss = self.heads * (weights * losses).sum(1).mean()
        correct = (logits.argmax(2) == pair_labels).float()
        first, second = correct.mean(0)
        accuracy = (weights * correct).sum(1).mean()
        logs = {"loss": loss.detach(), "accuracy": accuracy, "accuracy_first": first, "accuracy_second": second}
        return MethodOutput(loss, logits[:, 0], logs)

    def shares(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """(a, b), (B,) each: the share of the first image, and that of its label."""
        lam = draws.beta(self.alpha)
        half = torch.full_like(lam, 0.5)
        image_share = lam if self.interpolate in ("samples", "both") else half
        return image_share, lam if self.interpolate in ("labels", "both") else half

    def logits(self, pairs: Tensor) -> Tensor:
        """Joined images (B,2C,H,W) -> logits (B,2,K) float32 for the first and the second; with one head they are the same."""
        return self.of_both(self.network(pairs).float())

    def of_both(self, logits: Tensor) -> Tensor:
        """The network's output (B,heads*K) as logits (B,2,K) for the first and the second image."""
        return logits.unflatten(1, (self.heads, -1)).expand(-1, 2, -1)

    def training_labels(self, labels: Tensor, draws: Draws) -> Tensor:
        """Labels (B,2) of both images, one of them replaced by random ones if ``random_label`` says so."""
        if self.random_label == "none":
            return labels
        drawn = draws.randint(self.num_classes)
        columns = (drawn, labels[:, 1]) if self.random_label == "first" else (labels[:, 0], drawn)
        return torch.stack(columns, 1)

    def predicted(self, logits: Tensor) -> Tensor:
        """Classes (B,2) of both images from logits (B,2,K): each head's top one, or one head's top two, in order."""
        return logits.argmax(2) if self.heads == 2 else logits[:, 0].topk(2).indices

    def predictor(self) -> nn.Module:
        """Classifies single images: each is paired with itself, and the heads' logits are averaged."""
        predictor = SelfPaired(self.network, self.heads)
        predictor.training = self.network.training
        return predictor

    def test_metrics(self, batches: Iterable[tuple[Tensor, Tensor]], accelerator: "Accelerator") -> dict[str, float]:
        """Accuracy on pairs of test images (5.2), as shares of the pairs, in eval mode.

        Pairs are formed inside each batch and stay the same from test to test, for one batch size and number of processes.

        Returns:
            test_accuracy_first, test_accuracy_second, test_accuracy_both: the class predicted for the first, the second, both is
            right ("top2-precision" of 3.2 with one head); test_confusion: the classes differ and are predicted in the wrong
            order ("top2-all-precision" is test_accuracy_both plus this).
        """

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for index, (images, labels) in enumerate(batches):
                partner = fixed_partner(len(images), seed=index).to(images.device)
                yield join(images, images[partner]), torch.stack((labels, labels[partner]), 1)

        def counts(logits: Tensor, labels: Tensor) -> Tensor:
            return pair_counts(self.predicted(self.of_both(logits)), labels)

        count, *counted = summed(counts, self.network, pairs(), size=5, accelerator=accelerator).tolist()
        names = ("test_accuracy_first", "test_accuracy_second", "test_accuracy_both", "test_confusion")
        return {name: value / count for name, value in zip(names, counted, strict=True)}

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Both images of each pair, as strong as the network gets them."""
        draws = Draws(len(images), device=images.device, shared=self.per_batch, generator=generator)
        partner = draws.partner()
        first, second = join(images, images[partner], self.shares(draws)[0]).chunk(2, 1)
        return {"first": self.normalise.undo(first), "second": self.normalise.undo(second)}


class SelfPaired(nn.Module):
    """Logits (B,K) of single images (B,C,H,W) by a network of pairs: the heads' mean for each image paired with itself."""

    def __init__(self, network: nn.Module, heads: int) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, images: Tensor) -> Tensor:
        return self.network(join(images, images)).unflatten(1, (self.heads, -1)).mean(1)


def join(first: Tensor, second: Tensor, share: Tensor | None = None) -> Tensor:
    """Concatenate (B,C,H,W) images on channels: (B,2C,H,W).

    Args:
        share: (B,) in 0..1, the share a of the first in [2a*first, 2(1-a)*second]; 1/2 without.
    """
    if share is not None:
        weight = 2 * share.view(-1, 1, 1, 1)
        first, second = weight * first, (2 - weight) * second
    return torch.cat((first, second), 1)


def pair_counts(predicted: Tensor, labels: Tensor) -> Tensor:
    """(5,) float64: pairs; first right, second right, both right; classes differ and are predicted in the wrong order.

    Args:
        predicted, labels: (B,2) classes.
    """
    correct = predicted == labels
    swapped = (predicted == labels.flip(1)).all(1) & (labels[:, 0] != labels[:, 1])
    counts = (torch.ones_like(swapped), correct[:, 0], correct[:, 1], correct.all(1), swapped)
    return to_float64(torch.stack(counts).sum(1))


def fixed_partner(count: int, *, seed: int) -> Tensor:
    """A partner for each of ``count`` images, (count,) int64: never itself if there are two or more."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(order).scatter(0, order, order.roll(1))
