"""Mixed samples whose targets are partly learned: what LaMix does whatever mixes its inputs."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import MethodOutput
from classify.methods.mixed_samples import MixedSamples
from classify.methods.soft_target_record import SoftTargetRecord
from classify.methods.soft_targets import soft_accuracy
from mixgan.mixing import Mixer
from mixgan.mixing.mixer import check_odds


class LearnedTargets(MixedSamples):
    """loss = cross-entropy of softmax(W_l S), S = f(x), against beta * local + (1 - beta) * softmax(sigmoid(W_t S)).

    Steps alternate: one on original samples, whose local label is their own, the next on mixed ones (LaMix 2.3, 2.4). The
    gradient flows through the target too. Tested is W_l f(x), the network itself; W_t is there for the targets only.

    Args:
        network: the classifier, with ``embedding`` (f) and ``classifier`` (W_l) of the network contract.
        mixer: makes the mixed samples and their local labels.
        beta: weight of the local label, in [0, 1]; 1 = no global label.
        originals: whether every other step, the first to begin with, is on original samples.
        mean, std: the normalisation of the images.

    Raises:
        ValueError: beta out of range, or a network without an embedding.
    """

    def __init__(
        self,
        network: nn.Module,
        mixer: Mixer,
        *,
        beta: float,
        originals: bool,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(network, mixer, mean=mean, std=std)
        if not (hasattr(network, "embedding") and hasattr(network, "classifier")):
            raise ValueError(
                f"lamix needs a network with embedding() and classifier, as classify.networks.contract says; "
                f"{type(network).__name__} has not both"
            )
        self.beta = check_odds("beta", beta)
        self.originals = originals
        # "the same as the fully-connected layer of the original network" (3.1)
        bias = network.classifier.bias is not None
        self.global_layer = nn.Linear(network.classifier.in_features, mixer.num_classes, bias=bias)
        self.record = SoftTargetRecord(mixer.num_classes)
        self.epoch = 0
        self.mixed_turn = not originals

    def before_step(self, epoch: int, progress: float) -> None:
        """Begins the record of a new epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.record.clear()

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Classify original or mixed samples, compare with what the local and the global label say together.

        Logs the loss and the accuracy, which is the local label's weight of the predicted class.
        """
        mixer = self.mixer if self.mixed_turn else self.unmixed
        mixed = mixer.mix(images, labels, saliency=self.saliency(mixer, images, labels))
        embedding = self.network.embedding(mixed.images)
        logits = self.network.classifier(embedding).float()
        # At beta = 1 the global label stays in the graph: with several processes W_t must get a gradient, be it 0.
        global_labels = self.global_layer(embedding).float().sigmoid().softmax(1)
        targets = self.beta * mixed.targets + (1.0 - self.beta) * global_labels
        self.record.add(targets, global_labels, mixed=self.mixed_turn)
        loss = F.cross_entropy(logits, targets)
        logs = {"loss": loss.detach(), "accuracy": soft_accuracy(logits, mixed.targets)}
        return MethodOutput(loss, logits, logs)

    def after_step(self) -> None:
        """The next step is of the other kind. Counted here, so that accumulated batches are all of one kind."""
        if self.originals:
            self.mixed_turn = not self.mixed_turn

    def epoch_records(self) -> dict[str, Any]:
        """The epoch's soft targets and global labels: top five values and histograms, see ``SoftTargetRecord.means``."""
        return self.record.means()

    def get_extra_state(self) -> Tensor:
        """(2,) int64: whether the next step is a mixed one, and the epoch that is recorded."""
        return torch.tensor([int(self.mixed_turn), self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a state."""
        mixed_turn, self.epoch = state.tolist()
        self.mixed_turn = bool(mixed_turn)
