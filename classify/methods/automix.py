"""AutoMix (Unveiling the Power of Mixup for Stronger Classifiers): masks learned along with the classifier.

Reading order: the Mix Block and its mask loss (4.1), the momentum teacher (4.2), the training step (Algorithm 1).
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.evaluation import evaluate
from classify.methods.method import Method, MethodOutput, Weight, soft_accuracy
from classify.networks.contract import class_head, stage_shapes
from mixgan.engine.annotations import Above0, AtLeast1, Probability
from mixgan.engine.ema import follow
from mixgan.mixing import Plan, build_mixer

if TYPE_CHECKING:
    from accelerate import Accelerator

Mask = Literal["mix-block", "mixup", "cutmix"]
MaskNorm = Literal["l1", "l2"]
Tested = Literal["teacher", "student"]
MomentumSchedule = Literal["cosine", "published"]
#: The published schedule: the share of the run in which the momentum keeps its first value, and the value at the end.
HELD, LAST = 0.1, 0.999999


class Projections(NamedTuple):
    """Features after W_Q, W_K (B,A,h,w) and W_Z (B,1,h,w), all without their lambda."""

    query: Tensor
    key: Tensor
    value: Tensor


class MixBlock(nn.Module):
    """The mask of the own image, from the features z of a pair, i = own and j = partner (AutoMix Eq. 4, 5).

    With z_lam = (z, lam), lambda as one more channel, and all W 1x1 convolutions:

        P = softmax over the places of i of ((W_Q z_j,1-lam)^T (W_K z_i,lam) / sqrt(A))        (h*w, h*w)
        mask = nearest enlargement of sigmoid(P W_Z z_i,lam)

    Every place of the partner looks for similar places of the own image; their values decide about the own share there. (P as
    printed has i for rows. The authors' code computes the partner's mask from W_Z z_j in the same way and takes 1 - mask as
    the own one: the same with i and j exchanged. Eq. 4 has one W_P; with two the parameters are those of table 7.)

    Args:
        channels: C of the features.
        reduction: W_Q and W_K have A = C / reduction channels.
    """

    def __init__(self, channels: int, *, reduction: int = 2) -> None:
        super().__init__()
        width = max(1, channels // reduction)
        # Lambda is the last input channel of all three.
        self.query = nn.Conv2d(channels + 1, width, 1, bias=False)
        self.key = nn.Conv2d(channels + 1, width, 1, bias=False)
        self.value = nn.Conv2d(channels + 1, 1, 1)

    def project(self, features: Tensor) -> Projections:
        """The features (B,C,h,w) of a batch, ready to be paired in any way: own or partner, with any lambda."""
        with torch.autocast(features.device.type, enabled=False):  # the authors saw attention overflow in 16 bits
            layers = (self.query, self.key, self.value)  # lambda's part of them is ``_of_lam``
            return Projections(*(F.conv2d(features.float(), one.weight[:, :-1], one.bias) for one in layers))

    def forward(self, projections: Projections, partner: Tensor, lam: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (B,1,H,W) float32 in [0,1], the own image's share at every pixel.

        Args:
            projections: of the batch.
            partner: (B,) int64, the sample that each one is mixed with.
            lam: (B,), the weight of the own label.
            size: (H, W) of the images.
        """
        query, key, value = projections
        with torch.autocast(query.device.type, enabled=False):
            queries = query[partner] + _of_lam(self.query, 1.0 - lam)
            keys = key + _of_lam(self.key, lam)
            values = value + _of_lam(self.value, lam)
            q, k, v = (maps.flatten(2).mT for maps in (queries, keys, values))  # (B,h*w,A), twice, (B,h*w,1)
            mask = F.scaled_dot_product_attention(q, k, v).mT.reshape(value.shape).sigmoid()
            return F.interpolate(mask, size=size, mode="nearest")


def _of_lam(layer: nn.Conv2d, lam: Tensor) -> Tensor:
    """(B,A,1,1): the part of a 1x1 convolution of (features, lambda) that depends on lambda (B,)."""
    return lam.view(-1, 1, 1, 1) * layer.weight[:, -1:].transpose(0, 1)


def mask_loss(mask: Tensor, lam: Tensor, *, margin: float, norm: MaskNorm) -> Tensor:
    """How far the masks' means are from lambda: mean over samples of max(|lam - mean(mask)| - margin, 0) (AutoMix Eq. 6).

    Args:
        mask: (B,1,H,W), the own image's share at every pixel.
        lam: (B,).
        margin: epsilon; up to it a difference is free.
        norm: ``"l2"`` squares difference and margin (table 5).
    """
    power = 1 if norm == "l1" else 2
    difference = (lam - mask.mean((1, 2, 3))).abs() ** power
    return (difference - margin**power).clamp(min=0.0).mean()


class MomentumTeacher(nn.Module):
    """A copy of the student, theta_k <- r(m) theta_k + (1 - r(m)) theta_q after every step (AutoMix Eq. 12).

    No loss trains it, and its forward passes leave it as it is: in training mode its batch norms use the batch's statistics,
    as in the authors' code, but do not record them. Their recorded statistics, which eval mode uses, follow the student's.
    ``momentum`` is m at the start of the run, ``momentum_at`` how it rises.
    """

    def __init__(
        self, student: nn.Module, *, momentum: float = 0.999, momentum_schedule: MomentumSchedule = "cosine"
    ) -> None:
        super().__init__()
        self.momentum = self.first_momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.network = copy.deepcopy(student).requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,K) of images (B,C,H,W)."""
        return self.network(images)

    def schedule(self, progress: float) -> None:
        """Set the momentum for a completed share of the run, 0..1."""
        self.momentum = momentum_at(progress, first=self.first_momentum, schedule=self.momentum_schedule)

    def follow(self, student: nn.Module) -> None:
        """One momentum step towards the student, in place; integer buffers (batch norm's counts) are copied."""
        follow(self.network, student, decay=self.momentum)


def momentum_at(progress: float, *, first: float, schedule: MomentumSchedule = "cosine") -> float:
    """r(m) at a completed share of the run, 0..1.

    ``"cosine"``: from ``first`` to 1 along half a cosine (5.1). ``"published"``, as the authors' code: ``first`` for a tenth of
    the run, then on the half cosine over the whole run that ends at 0.999999.
    """
    left = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    if schedule == "cosine":
        return 1.0 - (1.0 - first) * left
    return first if progress < HELD else LAST - (LAST - first) * left


class AutoMix(Method):
    """Mixes by learned masks, beside a teacher that follows the network slowly and supervises them.

    A step draws lambdas and permutations twice. q: the network, "student", classifies the clean batch and a mixed one; no
    gradient goes through its masks. k: the teacher classifies another mixed batch, whose gradient goes through the images
    into the Mix Block only. Both masks come from the teacher's features of the clean batch.

        loss = CE + MCE (student) + MCE + gamma * mask loss (Mix Block)                          (Eq. 8, 10, 11)

    CE has a class head of its own; the network's classifier, which is tested, is trained by MCE (as the authors' code does, and
    table 7 counts).

    Args:
        network: the classifier; with ``stages`` of the network contract where masks are learned.
        mask: ``"mix-block"``: learned; ``"mixup"``, ``"cutmix"``: that method's, so that only CE and teacher are AutoMix's
            (table 6, there with alpha 1).
        alpha: lambda ~ Beta(alpha, alpha).
        per_batch: one lambda for the batch, as Algorithm 1; False: one per sample.
        layer: the stage, from 1, whose features the Mix Block sees.
        reduction: the Mix Block compares features of 1/reduction of their channels.
        mask_weight: gamma at the start of the run, falling linearly to 0; 0 for no mask loss (table 5).
        mask_margin: epsilon, how far a mask's mean may be from lambda (table 5).
        mask_norm: of the mask loss, ``"l1"`` or ``"l2"`` (table 5).
        lam_margin: the student's samples with lambda or 1-lambda below it are mixed by plain mixup (the authors' code: 0.08).
        clean_loss: whether the student is trained on the clean batch too (CE in table 6).
        pipeline: False: no teacher, one mixed batch trains network and Mix Block end to end (Eq. 8; no MP in table 6).
        momentum: the teacher's at the start of the run.
        momentum_schedule: how it rises to 1, ``"cosine"`` or ``"published"`` (``momentum_at``).
        tested: which of the two networks is tested and saved; the other's accuracy is reported too. The gain that table 6 shows
            for MP around mixup and cutmix can only be the teacher's.

    Raises:
        ValueError: a network without the features that the Mix Block needs, or the embedding of the clean loss's head.
    """

    source = "AutoMix 4, Algorithm 1"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mask: Mask = "mix-block",
        alpha: Above0 = 2.0,
        per_batch: bool = True,
        layer: int = 3,
        reduction: AtLeast1 = 2,
        mask_weight: Weight = 0.1,
        mask_margin: Probability = 0.1,
        mask_norm: MaskNorm = "l1",
        lam_margin: Probability = 0.0,
        clean_loss: bool = True,
        pipeline: bool = True,
        momentum: Probability = 0.999,
        momentum_schedule: MomentumSchedule = "cosine",
        tested: Tested = "student",
    ) -> None:
        super().__init__(network)
        # The Mix Block takes lambda and partner from mixup's plan, and replaces its constant mask.
        name = "cutmix" if mask == "cutmix" else "mixup"
        self.mixer = build_mixer(name, num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        self.layer = layer
        self.mask_weight = self.gamma = mask_weight
        self.mask_margin, self.mask_norm, self.lam_margin = mask_margin, mask_norm, lam_margin
        self.tested = tested
        learned = mask == "mix-block"
        self.mix_block = MixBlock(stage_channels(network, layer), reduction=reduction) if learned else None
        self.clean_head = (
            class_head(network, num_classes, "automix (or --method.no-clean-loss)") if clean_loss else None
        )
        self.teacher = None
        if pipeline:
            self.teacher = MomentumTeacher(network, momentum=momentum, momentum_schedule=momentum_schedule)

    def before_step(self, epoch: int, progress: float) -> None:
        """Gamma falls linearly to 0, the momentum rises to 1."""
        self.gamma = self.mask_weight * (1.0 - progress)
        if self.teacher is not None:
            self.teacher.schedule(progress)

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Masks, then the student on the clean and on the mixed batch. Logs every part of the loss as it is summed."""
        plan = self.mixer.plan(images)
        losses: dict[str, Tensor] = {}
        if self.mix_block is not None:
            plan, losses = self.learn_masks(images, labels, plan)
        if self.clean_head is not None:
            losses["clean_loss"] = F.cross_entropy(self.clean_head(self.network.embedding(images)).float(), labels)
        targets = self.mixer.targets(labels, plan)
        logits = self.network(self.mixer.mix_images(images, plan)).float()
        losses["mixed_loss"] = F.cross_entropy(logits, targets)
        loss = torch.stack(list(losses.values())).sum()
        parts = {name: part.detach() for name, part in losses.items()}
        logs = {"loss": loss.detach(), "accuracy": soft_accuracy(logits, targets), **parts}
        return MethodOutput(loss, logits, logs)

    def learn_masks(self, images: Tensor, labels: Tensor, plan: Plan) -> tuple[Plan, dict[str, Tensor]]:
        """The student's plan with learned masks, and the losses of the Mix Block."""
        projections = self.project(images)
        if self.teacher is None:
            mask = self.learned_mask(images, plan, projections)
            return self.with_mask(plan, mask), {"mask_loss": self.mask_loss(mask, plan)}
        plan_k = self.mixer.plan(images)
        mask = self.learned_mask(images, plan_k, projections)
        plan_k = replace(plan_k, mask=mask)
        logits = self.teacher(self.mixer.mix_images(images, plan_k)).float()
        losses = {
            "teacher_loss": F.cross_entropy(logits, self.mixer.targets(labels, plan_k)),
            "mask_loss": self.mask_loss(mask, plan_k),
        }
        with torch.no_grad():
            return self.with_mask(plan, self.learned_mask(images, plan, projections)), losses

    def project(self, images: Tensor) -> Projections:
        """The Mix Block's projections of clean images (B,C,H,W): of the teacher's features, without a teacher the student's."""
        network: Any = self.network if self.teacher is None else self.teacher.network
        assert self.mix_block is not None
        return self.mix_block.project(network.stages(images)[self.layer - 1])

    def learned_mask(self, images: Tensor, plan: Plan, projections: Projections) -> Tensor:
        """The Mix Block's masks (B,1,H,W) for a plan's partners and lambdas."""
        assert self.mix_block is not None
        return self.mix_block(projections, plan.partner, plan.lam, (images.shape[-2], images.shape[-1]))

    def with_mask(self, plan: Plan, mask: Tensor) -> Plan:
        """The plan with a learned mask; where lambda or 1-lambda is below ``lam_margin`` mixup's constant mask stays."""
        assert plan.mask is not None
        extreme = torch.minimum(plan.lam, 1.0 - plan.lam) < self.lam_margin
        return replace(plan, mask=torch.where(extreme.view(-1, 1, 1, 1), plan.mask, mask))

    def mask_loss(self, mask: Tensor, plan: Plan) -> Tensor:
        """Eq. 6 at this time of the run."""
        return self.gamma * mask_loss(mask, plan.lam, margin=self.mask_margin, norm=self.mask_norm)

    def after_step(self) -> None:
        """The teacher follows the student."""
        if self.teacher is not None:
            self.teacher.follow(self.network)

    def side_parameters(self) -> Iterable[nn.Parameter]:
        """The Mix Block's; the clean loss's head learns at the network's rate."""
        return [] if self.mix_block is None else self.mix_block.parameters()

    def networks(self) -> dict[str, nn.Module]:
        """The networks that can be tested, by name."""
        return {"student": self.network} | ({} if self.teacher is None else {"teacher": self.teacher.network})

    def predictor(self) -> nn.Module:
        """The network that --method.tested names; the student if there is no teacher."""
        return self.networks().get(self.tested, self.network)

    saved_network = predictor

    def test_metrics(self, batches: Iterable[tuple[Tensor, Tensor]], accelerator: "Accelerator") -> dict[str, float]:
        """The accuracy of the other network: test_accuracy_student or test_accuracy_teacher, 0..1."""
        return {
            f"test_accuracy_{name}": evaluate(network, batches, accelerator=accelerator)["test_accuracy"]
            for name, network in self.networks().items()
            if network is not self.predictor()
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        former_block = f"{prefix}mix_block.similarity.weight" in state_dict
        if former_block or (self.clean_head is not None and f"{prefix}clean_head.weight" not in state_dict):
            raise ValueError(
                "this checkpoint is of an automix run before 0.2.0, whose Mix Block had another shape and whose losses shared a "
                "class head: it cannot be resumed, nor its masks shown; the network in the run's weights/ can still be loaded"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def image_plan(
        self, images: Tensor, labels: Tensor, *, lam: Tensor | None = None, generator: torch.Generator
    ) -> Plan | None:
        """The student's plan, its masks learned in eval mode."""
        plan = self.mixer.plan(images, lam=lam, generator=generator)
        if self.mix_block is None:
            return plan
        training = self.training
        self.eval()
        plan = self.with_mask(plan, self.learned_mask(images, plan, self.project(images)))
        self.train(training)
        return plan


def stage_channels(network: nn.Module, layer: int) -> int:
    """The channels of a stage's features, layers counted from 1.

    Raises:
        ValueError: the network has no such stage.
    """
    if not hasattr(network, "stages"):
        raise ValueError(
            f"automix learns its masks from network.stages(x), which {type(network).__name__} does not have; "
            "see classify.networks.contract, or use --method.mask mixup or cutmix"
        )
    maps = stage_shapes(network, 224)[1]
    if not 1 <= layer <= len(maps):
        raise ValueError(f"--method.layer must be 1 to {len(maps)} with this network, got {layer}")
    return maps[layer - 1].shape[1]
