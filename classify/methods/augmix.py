"""AugMix: mixtures of chains of simple augmentations, and a consistency loss between the clean image and two mixtures."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import Method, MethodOutput, Weight
from mixgan.engine.annotations import Above0, AtLeast1, Range
from mixgan.mixing.sampling import Draws
from mixgan.ops import augment

VIEWS = 2
#: The published list without colour, contrast, brightness and sharpness, which the test corruptions contain.
OPERATIONS = (
    "autocontrast", "equalize", "posterize", "solarize", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"
)  # fmt: skip
#: The first this many are tone curves; the others are affine.
CURVES = 4
#: Index of "no operation".
NOTHING = len(OPERATIONS)


class AugMix(Method):
    """Augmented views that are mixtures of augmentation chains, with a consistency loss between image and views.

    A view is (1-m)*x + m * sum over chains of w_k * chain_k(x), w ~ Dirichlet(alpha), m ~ Beta(alpha, alpha), drawn per image; a
    chain applies a random number of random operations of ``OPERATIONS`` one after the other.
    loss = CE(clean) + consistency * JS(p_clean, p_view1, p_view2), where JS is the mean of KL(p || mean of the three p).

    Args:
        width: chains per view.
        depth: (least, most) operations in a chain.
        severity: strengths are drawn from U(0.1, severity), where 10 is the strongest.
        alpha: of the Dirichlet and Beta draws.
        consistency: weight of the Jensen-Shannon term.
    """

    source = "Hendrycks et al. 2020 (arXiv:1912.02781)"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        width: AtLeast1 = 3,
        depth: tuple[AtLeast1, AtLeast1] = (1, 3),
        severity: Annotated[float, Range(least=1, most=10)] = 3.0,
        alpha: Above0 = 1.0,
        consistency: Weight = 12.0,
    ) -> None:
        super().__init__(network)
        if depth[0] > depth[1]:
            raise ValueError(f"--method.depth must be (least, most) with least <= most, got {depth}")
        self.width, self.depth, self.severity = width, depth, severity
        self.alpha, self.consistency = alpha, consistency

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """One pass of the clean batch and both views. Logs the loss, the clean accuracy and the Jensen-Shannon divergence."""
        views = self.views(images).flatten(0, 1)
        logits = self.network(torch.cat((images, views))).float().unflatten(0, (1 + VIEWS, -1))
        divergence = jensen_shannon(logits)
        loss = F.cross_entropy(logits[0], labels) + self.consistency * divergence
        accuracy = (logits[0].argmax(1) == labels).float().mean()
        logs = {"loss": loss.detach(), "accuracy": accuracy, "divergence": divergence.detach()}
        return MethodOutput(loss, logits[0], logs)

    def views(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Two augmented views of every normalised image, normalised: (B,C,H,W) -> (2,B,C,H,W)."""
        clean = self.normalise.undo(images)
        count, chains_each = len(images), VIEWS * self.width
        draws = Draws(chains_each * count, device=images.device, generator=generator)
        # All chains of all views are one batch, ordered by view, chain, image.
        chains = self.chains(clean.repeat(chains_each, 1, 1, 1), draws).view(VIEWS, self.width, *clean.shape)
        shares = draws.log_gamma(self.alpha).view(VIEWS, self.width, count, 1, 1, 1).softmax(1)
        amount = Draws(VIEWS * count, device=images.device, generator=generator).beta(self.alpha)
        amount = amount.view(VIEWS, count, 1, 1, 1)
        mixed = (1 - amount) * clean + amount * (shares * chains).sum(1)
        return self.normalise(mixed.flatten(0, 1)).view_as(mixed)

    def chains(self, images: Tensor, draws: Draws) -> Tensor:
        """A random number of random operations on every image, (N,C,H,W) in 0..1; results are 8-bit, as in the published code."""
        least, most = self.depth
        length = least + draws.randint(most - least + 1)
        levels = augment.to_levels(images)
        for step in range(most):
            operation = torch.where(step < length, draws.randint(len(OPERATIONS)), NOTHING)
            levels = operate(levels, operation, draws.uniform(0.1, self.severity) / 10, draws.bernoulli())
        return levels / 255

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The clean image and its two views."""
        first, second = self.normalise.undo(self.views(images, generator=generator))
        return {"clean": self.normalise.undo(images), "view 1": first, "view 2": second}


def operate(levels: Tensor, operation: Tensor, strength: Tensor, mirrored: Tensor) -> Tensor:
    """One operation per image, at a share of its full strength: 30 degrees, shear 0.3, a third of the size, 4 bits, 256 levels.

    Args:
        levels: (N,C,H,W) int64, 8-bit images as of ``to_levels``.
        operation: (N,) int64, positions in ``OPERATIONS``, or ``NOTHING``.
        strength: (N,) in 0..1.
        mirrored: (N,) bool, the other direction of the affine operations.

    Returns:
        (N,C,H,W) int64, 0..255.
    """
    curve = pick(curves(levels, strength), operation.clamp(max=CURVES))
    matrix = pick(
        affine_matrices(torch.where(mirrored, -strength, strength), (levels.shape[-2], levels.shape[-1])),
        (operation - CURVES + 1).clamp(min=0),
    )
    return augment.to_levels(augment.affine(augment.apply_curve(levels, curve), matrix))


def curves(levels: Tensor, strength: Tensor) -> tuple[Tensor, ...]:
    """The tone curves of the first ``CURVES`` operations, and one that changes nothing: (N,C,256) each."""
    counts = augment.histogram(levels)
    options = (
        augment.autocontrast_curve(counts),
        augment.equalize_curve(counts),
        augment.posterize_curve(4 - (4 * strength).floor()),
        augment.solarize_curve(256 - (256 * strength).floor()),
        augment.identity_curve(levels.device),
    )
    return tuple(curve.expand(counts.shape) for curve in options)


def affine_matrices(strength: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """The matrices (N,2,3) of the affine operations for strengths (N,) in -1..1, between two that change nothing."""
    none = torch.zeros_like(strength)
    nothing = augment.translation(none, none)
    return (
        nothing,
        augment.rotation((30 * strength).trunc(), size),
        augment.shear(0.3 * strength, none),
        augment.shear(none, 0.3 * strength),
        augment.translation((size[1] / 3 * strength).trunc(), none),
        augment.translation(none, (size[0] / 3 * strength).trunc()),
        nothing,
    )


def pick(options: tuple[Tensor, ...], index: Tensor) -> Tensor:
    """For every image one of several tensors: options (N,...) each, index (N,) -> (N,...)."""
    return torch.stack(options)[index, torch.arange(len(index), device=index.device)]


def jensen_shannon(logits: Tensor) -> Tensor:
    """Generalised Jensen-Shannon divergence of n predictions for the same images, averaged over the images.

    Args:
        logits: (n,B,K) float32.

    Returns:
        Scalar in nats, 0..log n. In log space, so that nothing needs clamping (published code clamps at 1e-7).
    """
    log_p = logits.log_softmax(2)
    log_mean = (log_p.logsumexp(0) - math.log(len(logits))).expand_as(log_p)
    return F.kl_div(log_mean, log_p, reduction="sum", log_target=True) / (logits.shape[0] * logits.shape[1])
