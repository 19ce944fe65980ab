"""The contract of a training method: the loss of a batch, and what happens around a step."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.engine.annotations import Range
from mixgan.mixing import Mixer, Plan
from mixgan.ops.transforms import Normalization

if TYPE_CHECKING:
    from accelerate import Accelerator

P = ParamSpec("P")
T = TypeVar("T")
#: Of a term in a loss.
Weight = Annotated[float, Range(least=0)]


def not_compiled(function: Callable[P, T]) -> Callable[P, T]:
    """``torch.compiler.disable`` for a function of a method, without its import of the compiler where nothing is compiled."""

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        run = torch.compiler.disable(function) if torch.compiler.is_compiling() else function
        return run(*args, **options)

    return call


class MethodOutput(NamedTuple):
    """What a method returns for one training batch.

    Attributes:
        loss: scalar float32 to minimise.
        logits: (B,K) of the batch as the network saw it.
        logs: scalars to log, by name.
    """

    loss: Tensor
    logits: Tensor
    logs: dict[str, Tensor]


class Method(nn.Module):
    """Owns the network and all that is trained or kept beside it (mixers, heads, teachers).

    ``forward`` is called once per step, so that several processes synchronise once. The loop never asks which method it runs.
    ``build_method`` checks the options, which are the constructor's keywords, by their annotations.
    Everything that a resumed run needs is in parameters, buffers and extra state. Parameters that are not trained have
    ``requires_grad`` off; all others get a gradient in every step.

    Args:
        network: the classifier.
    """

    #: where the method is defined
    source: str = ""
    #: any nn.Module; some methods need members of ``classify.networks.contract.Network``
    network: Any
    #: of the images, in methods that mix them
    mixer: Mixer

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        #: of the images; ``build_method`` puts the data set's here
        self.normalise = Normalization(0.0, 1.0)

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """The loss of a clean batch: images (B,C,H,W), labels (B,) int64."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def before_step(self, epoch: int, progress: float) -> None:
        """Called before every step with its epoch, counted from 0, and the completed share of all epochs, 0..1."""

    def after_step(self) -> None:
        """Called after every optimizer step: momentum updates and the like."""

    def side_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that learn at --side-lr: what the method trains beside the network."""
        of_network = {id(parameter) for parameter in self.network.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in of_network)

    def predictor(self) -> nn.Module:
        """The network that is tested: logits (B,K) of normalised images (B,C,H,W)."""
        return self.network

    def saved_network(self) -> nn.Module:
        """The network that a run saves."""
        return self.network

    def test_metrics(self, batches: Iterable[tuple[Tensor, Tensor]], accelerator: "Accelerator") -> dict[str, float]:
        """Further metrics of this process's share of the test set, the same on all processes."""
        return {}

    def epoch_records(self) -> dict[str, Any]:
        """Entries for the record of the epoch in metrics.jsonl, as JSON values."""
        return {}

    def image_plan(
        self, images: Tensor, labels: Tensor, *, lam: Tensor | None = None, generator: torch.Generator
    ) -> Plan | None:
        """How ``mixer`` mixes normalised images (B,C,H,W), with what was learned so far; None for a method that mixes none."""
        return None

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The method applied to a few normalised images: named columns of a figure, (B,C,H,W) or (B,1,H,W) in [0,1].

        Own image, the partner with the most weight, mixed image and mask; the image alone where none is mixed.
        """
        plan = self.image_plan(images, labels, generator=generator)
        mixed = images if plan is None else self.mixer.mix_images(images, plan)
        if plan is None or (bool((plan.weights[:, 0] == 1).all()) and torch.equal(mixed, images)):
            return {"image": self.normalise.undo(images)}
        batches = {"own": images, "partner": images[main_partner(plan)], "mixed": mixed}
        columns = {name: self.normalise.undo(batch) for name, batch in batches.items()}
        return columns if plan.mask is None else {**columns, "mask (white: own)": plan.mask}


SoftLoss = Literal["soft-ce", "bce"]


def main_partner(plan: Plan) -> Tensor:
    """(B,) int64: the source with the most weight in each mixed sample, itself left out."""
    others = plan.weights[:, 1:].argmax(1, keepdim=True) + 1
    return plan.sources.gather(1, others)[:, 0]


def soft_target_loss(logits: Tensor, targets: Tensor, kind: SoftLoss) -> Tensor:
    """Mean loss of a batch, scalar float32. Both kinds are linear in the target.

    Args:
        logits: (B,K) float32.
        targets: (B,K), rows sum to 1.
        kind: ``"soft-ce"``: -sum_k t_k log p_k, mean over B; ``"bce"``: -t_k log p_k - (1-t_k) log(1-p_k), mean over B and K
            (binary cross-entropy of the softmax, as the published code of Manifold Mixup, PatchUp and PuzzleMix).
    """
    if kind == "soft-ce":
        return F.cross_entropy(logits, targets)
    with torch.autocast(logits.device.type, enabled=False):  # torch refuses binary_cross_entropy in 16 bits
        return F.binary_cross_entropy(logits.softmax(1), targets)


def soft_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean target weight of the predicted class: accuracy for one-hot targets, lambda-weighted accuracy for mixed ones.

    Args:
        logits, targets: (B,K).
    """
    return targets.gather(1, logits.argmax(1, keepdim=True)).mean()


def top2_metrics(logits: Tensor, labels: Tensor, other_labels: Tensor) -> dict[str, Tensor]:
    """How often the two most probable classes are the two labels of a mixed pair.

    Multi-sample 3.2, Understanding Mixup III-A. A pair of one class counts as wrong, for two classes are predicted.

    Args:
        logits: (B,K), K at least 2.
        labels: (B,) class indices of the own samples x1, whatever their weight.
        other_labels: (B,) those of the partners x2.

    Returns:
        Shares of the batch, 0..1: ``top2_x1x2``, own class first ("top2-precision"), ``top2_x2x1``, partner's class first,
        and ``top2_all``, either ("top2-all-precision").
    """
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    in_order = ((first == labels) & (second == other_labels)).float().mean()
    swapped = ((first == other_labels) & (second == labels)).float().mean()
    return {"top2_x1x2": in_order, "top2_x2x1": swapped, "top2_all": in_order + swapped}
