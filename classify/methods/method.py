"""The contract of a training method, and every mixer of ``mixgan.mixing`` as one: soft cross-entropy on mixed samples."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.engine.annotations import Probability, Range
from mixgan.mixing import (
    CoMixup,
    Mixer,
    Plan,
    build_mixer,
    choose_partner,
    gradient_saliency,
    saliency_of_gradient,
    static_saliency,
)
from mixgan.mixing.interpolation import Erm, smoothed
from mixgan.mixing.sampling import host_choice
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


# ---- Every mixer as a training method


@dataclass(frozen=True, kw_only=True)
class MixSchedule:
    """Which batches are mixed, by epoch (counted from 0), and with which partners; all of them at random by default.

    Args:
        prob: share of the batches while mixing is on (CutMix on CIFAR: 0.5).
        off_epoch: no mixing from this epoch on.
        epochs: "K/N", mixing in K of every N epochs: N-K epochs without, then K with, repeated (SamplePairing, as
            Multi-sample 3.3 words it: 2/10).
        warmup: the share rises linearly over this many epochs.
        partner: "random", or a policy of ``mixgan.choose_partner``: samples of the "same" class, of any "other", or "balanced"
            over the classes of the batch.

    Raises:
        ValueError: ``epochs`` is something else.
    """

    prob: float = 1.0
    off_epoch: int | None = None
    epochs: str | None = None
    warmup: int = 0
    partner: Literal["random", "same", "other", "balanced"] = "random"

    def __post_init__(self) -> None:
        self._cycle()

    def share(self, epoch: int) -> float:
        """The share of batches that are mixed in an epoch, 0..1."""
        if self.off_epoch is not None and epoch >= self.off_epoch:
            return 0.0
        on, period = self._cycle()
        if epoch % period < period - on:
            return 0.0
        return self.prob * min(1.0, (epoch + 1) / (self.warmup + 1))

    def _cycle(self) -> tuple[int, int]:
        """(K, N) of ``epochs``; (1, 1) without."""
        if self.epochs is None:
            return 1, 1
        match = re.fullmatch(r"(\d+)/(\d+)", self.epochs)
        if not match or not 0 < int(match[1]) <= int(match[2]):
            raise ValueError(f"--mix-epochs must be K/N with 0 < K <= N, such as 2/10, got {self.epochs!r}")
        return int(match[1]), int(match[2])


class MixedSamples(Method):
    """loss = cross-entropy of the network on mixed images against the mixed labels.

    Equal to lam*CE(f(x), y_i) + (1-lam)*CE(f(x), y_j), as the papers' code writes it.

    Args:
        mixer: the mixing method.
        schedule: when mixing is on; other batches are trained on unmixed.
        loss: ``"soft-ce"``, or ``"bce"``, binary cross-entropy of the softmax, as PuzzleMix published (``soft_target_loss``).
        clean_weight: w, adds w times the cross-entropy on the unmixed images to the loss of a mixed batch, at the cost of
            a second training pass; beside "bce", whose mean over K classes makes it smaller, times 2/K (PuzzleMix's published
            code). PuzzleMix: 0 on CIFAR, 1 on larger images.
        reuse_forward: take the gradient saliency map from the clean loss's training pass (``clean_loss_with_saliency``)
            at almost no cost, instead of from a separate pass in eval mode. Needs a clean weight.
        smoothing: label smoothing on top of the mixed labels, (1 - smoothing) * t + smoothing / K (LaMix table 5).

    Raises:
        ValueError: ``reuse_forward`` without a clean loss or gradient saliency.
    """

    def __init__(
        self,
        network: nn.Module,
        mixer: Mixer,
        *,
        schedule: MixSchedule | None = None,
        loss: SoftLoss = "soft-ce",
        clean_weight: Weight = 0.0,
        reuse_forward: bool = False,
        smoothing: Probability = 0.0,
    ) -> None:
        super().__init__(network)
        if reuse_forward and clean_weight == 0:
            raise ValueError(
                "--method.reuse-forward reuses the clean loss's pass: it needs --method.clean-weight above 0"
            )
        if reuse_forward and mixer.saliency_kind != "gradient":
            raise ValueError(f"--method.reuse-forward is for gradient saliency; {type(mixer).__name__} uses none")
        if schedule is not None and schedule.partner != "random" and isinstance(mixer, (Erm, CoMixup)):
            raise ValueError(f"--partner is for methods that mix pairs; {type(mixer).__name__} does not")
        self.mixer = mixer
        self.unmixed = build_mixer("erm", num_classes=mixer.num_classes)
        self.schedule = schedule or MixSchedule()
        self.loss, self.clean_weight, self.reuse_forward = loss, clean_weight, reuse_forward
        self.smoothing = smoothing
        self.share = self.schedule.share(0)

    def before_step(self, epoch: int, progress: float) -> None:
        """Set the share of mixed batches of this epoch."""
        self.share = self.schedule.share(epoch)

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Mix, classify, compare with the mixed labels.

        Logs the loss and the lambda-weighted accuracy; top-2 metrics of batches mixed in pairs; the clean loss where there
        is one.
        """
        if not self.mixes_this_batch():
            logits, targets, _ = self.classify(self.unmixed, images, labels, None)
            return self.output(self.target_loss(logits, targets), logits, targets)
        clean_loss = saliency = None
        if self.reuse_forward:
            clean_loss, saliency = clean_loss_with_saliency(self.network, images, labels)
        elif self.clean_weight > 0:
            clean_loss = F.cross_entropy(self.network(images).float(), labels)
        if saliency is None:
            saliency = self.saliency(self.mixer, images, labels)
        logits, targets, plan = self.classify(self.mixer, images, labels, saliency)
        loss = self.mixed_loss(logits, targets)
        logs = {}
        if not isinstance(self.mixer, Erm) and logits.shape[1] > 1:
            logs = top2_metrics(logits.detach(), labels, labels[main_partner(plan)])
        if clean_loss is not None:
            scale = 1.0 if self.loss == "soft-ce" else 2.0 / logits.shape[1]
            loss = loss + self.clean_weight * scale * clean_loss
            logs["clean_loss"] = clean_loss.detach()
        return self.output(loss, logits, targets, logs)

    def output(
        self, loss: Tensor, logits: Tensor, targets: Tensor, logs: dict[str, Tensor] | None = None
    ) -> MethodOutput:
        """The step's output, with loss and accuracy among its logs."""
        accuracy = soft_accuracy(logits, targets)
        return MethodOutput(loss, logits, {"loss": loss.detach(), "accuracy": accuracy, **(logs or {})})

    def classify(
        self, mixer: Mixer, images: Tensor, labels: Tensor, saliency: Tensor | None
    ) -> tuple[Tensor, Tensor, Plan]:
        """Logits (B,K) float32 of mixed samples, their targets (B,K), and the plan that mixed them."""
        policy = self.schedule.partner
        partner = None if policy == "random" or mixer is self.unmixed else choose_partner(labels, policy)
        mixed = mixer.mix(images, labels, saliency=saliency, partner=partner)
        return self.network(mixed.images).float(), mixed.targets, mixed.plan

    def mixed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a mixed batch."""
        return self.target_loss(logits, targets)

    def target_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, mixed or not, against its targets, which are smoothed if ``smoothing`` is set."""
        return soft_target_loss(logits, smoothed(targets, self.smoothing) if self.smoothing else targets, self.loss)

    def mixes_this_batch(self) -> bool:
        """Random where the schedule mixes a share of the batches; processes may differ."""
        if self.share in (0.0, 1.0):
            return self.share == 1.0
        return host_choice([1.0 - self.share, self.share]) == 1

    @not_compiled
    def saliency(self, mixer: Mixer, images: Tensor, labels: Tensor) -> Tensor | None:
        """The saliency map (B,H,W) that the mixer's paper uses: static, or of the clean loss in eval mode."""
        if mixer.saliency_kind is None:
            return None
        if mixer.saliency_kind == "static":
            return static_saliency(self.normalise.undo(images))
        training = self.network.training
        self.network.eval()
        try:
            return gradient_saliency(
                lambda x: F.cross_entropy(self.network(x).float(), labels, reduction="sum"), images
            )
        finally:
            self.network.train(training)

    def image_plan(
        self, images: Tensor, labels: Tensor, *, lam: Tensor | None = None, generator: torch.Generator
    ) -> Plan | None:
        """The mixer's plan, with the saliency map that it needs."""
        saliency = self.saliency(self.mixer, images, labels)
        return self.mixer.plan(images, saliency=saliency, lam=lam, generator=generator)


@not_compiled
def clean_loss_with_saliency(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the network on unmixed images, and its saliency map, from ONE forward and ONE backward pass.

    The clean loss needs a backward pass through all activations anyway; the gradient of the images is one convolution more. So
    that pass runs here, at once. The gradients of the parameters are kept (one copy of the parameters until the step ends)
    and added when the returned loss is back-propagated, which then runs no pass of its own.

    Batch norm in training mode uses and updates the statistics of this batch, as in the published code with its clean loss on.

    Args:
        network: logits (B,K) of images; parameters that require gradients get them.
        images: (B,C,H,W).
        labels: (B,) int64.

    Returns:
        The mean loss, scalar float32, and the map (B,H,W) float32 as ``gradient_saliency`` makes it of the summed loss.
    """
    inputs = images.detach().requires_grad_()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    # The sum, not the mean: B times larger gradients, which 16-bit floats hold better.
    loss = F.cross_entropy(network(inputs).float(), labels, reduction="sum")
    of_images, *of_parameters = torch.autograd.grad(loss, [inputs, *parameters], materialize_grads=True)
    clean_loss = _KnownGradient.apply(loss.detach(), of_parameters, *parameters) / len(images)
    return clean_loss, saliency_of_gradient(of_images)


class _KnownGradient(torch.autograd.Function):
    """A value whose gradients with respect to some parameters have been computed already.

    They reach the parameters when the step's loss is back-propagated, together with all others: several processes wait for
    exactly one gradient of each parameter.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(upstream * gradient for gradient in ctx.gradients)
