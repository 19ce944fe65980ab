"""Saliency maps (B,H,W), non-negative: from the gradient of a loss, or from contrast alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from mixgan.mixing.mixer import Plan, image_size
from mixgan.mixing.regions import BoxMixer, boxed_plan, centred_box
from mixgan.mixing.sampling import Draws
from mixgan.ops.filters import binomial_blur, box_sums, integral_image
from mixgan.ops.transforms import gray_levels

#: half sides of the surrounds in pixels
HALF_WIDTHS = (12, 24, 28, 48, 56, 112)


def gradient_saliency(loss: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """sqrt(mean over channels of (d loss / d x)^2): how much every pixel matters to a loss (PuzzleMix).

    One forward pass and one backward pass to the images only. Parameters keep their requires_grad and the gradients they had;
    batch-norm statistics and all other buffers of modules in training mode are put back as they were.

    ``loss`` maps images to the sum or mean of one loss per image, or to these losses (B,); a mean makes every map B times
    smaller than a sum does. Let it run the network in eval mode: batch norm in training mode ties the images of a batch
    together, so that a map also shows what its image does to the losses of the others. Compiled networks run eagerly here;
    a compiled pass of one's own can be given to ``gradient_saliency_of``.

    Args:
        loss: e.g. ``lambda x: F.cross_entropy(network(x), labels, reduction="sum")``.
        images: (B,C,H,W) float.

    Returns:
        (B,H,W) float32, non-negative.

    Raises:
        ValueError: the loss does not depend on the images.
    """
    probe = images.detach().requires_grad_()
    with torch.enable_grad(), _buffers_kept():
        return _gradient_size(loss(probe), probe, keep_graph=False)


def gradient_saliency_of(loss: Tensor, images: Tensor) -> Tensor:
    """``gradient_saliency`` from a forward pass that was made anyway, e.g. the clean loss of a training step.

    The graph is kept, so that ``loss`` can still be part of what is back-propagated::

        images = images.detach().requires_grad_()
        clean_loss = F.cross_entropy(network(images), labels)
        saliency = gradient_saliency_of(clean_loss, images)
        (clean_loss + mixed_loss(saliency)).backward()

    Args:
        loss: what the forward pass gave, as in ``gradient_saliency``.
        images: (B,C,H,W), required gradients before that pass.

    Returns:
        (B,H,W) float32, non-negative, no part of the graph.

    Raises:
        ValueError: the loss does not depend on the images.
    """
    return _gradient_size(loss, images, keep_graph=True)


def static_saliency(images: Tensor) -> Tensor:
    """The fine-grained static map of Montabone and Soto (2010) as OpenCV contrib computes it; no network, no labels.

    8-bit gray, blurred twice, against the mean of its surround at six sizes, clipped to the image: brighter (on) and darker
    (off) differences are summed over the sizes, each scaled to its maximum, and added.

    Args:
        images: (B,C,H,W) float in [0,1], H and W at least 2. Three channels are RGB, any other number is averaged. Values
            outside are clamped, so a normalised image gives the map of a picture with lost shadows and lights: undo the
            normalisation first. (Published SaliencyMix feeds normalised floats and finds objects no better than chance.)

    Returns:
        (B,H,W) float32, multiples of 1/255; 1 is the largest on or off response. OpenCV's values up to one such step (three
        for OpenCV 5), except that a pixel with both may exceed 1 where 8 bits overflow.
    """
    gray = gray_levels(images)
    for _ in range(2):
        gray = torch.floor(binomial_blur(gray) + 0.5)
    integral = integral_image(gray.int())
    on, off = torch.zeros_like(gray), torch.zeros_like(gray)
    # from the image's longer side on, all surrounds are the whole image
    for half, times in Counter(min(half, max(images.shape[-2:])) for half in HALF_WIDTHS).items():
        total, count = box_sums(integral, before=half - 1, after=half)
        contrast = gray - (total - gray) / (count - 1)
        on += times * contrast.clamp(min=0).floor()
        off += times * (-contrast).clamp(min=0).floor()
    on, off = _scaled_to_255(on), _scaled_to_255(off)
    strongest = torch.maximum(on, off).amax((2, 3), keepdim=True).clamp(min=1)
    return (torch.floor(255 * (on + off) / strongest) / 255).squeeze(1)


def _gradient_size(loss: Tensor, images: Tensor, *, keep_graph: bool) -> Tensor:
    if not (loss.requires_grad and images.requires_grad):
        raise ValueError(
            f"the loss {tuple(loss.shape)} must depend on images that require gradients; "
            f"requires_grad is {loss.requires_grad} and {images.requires_grad}"
        )
    (gradient,) = torch.autograd.grad(loss.sum(), images, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise ValueError("the loss does not depend on these images: it must be computed from this very tensor")
    return saliency_of_gradient(gradient)


def saliency_of_gradient(gradient: Tensor) -> Tensor:
    """sqrt(mean over channels of gradient^2), for a gradient of the images (B,C,H,W) that is known: (B,H,W) float32."""
    return gradient.float().square().mean(1).sqrt()


@contextmanager
def _buffers_kept() -> Iterator[None]:
    """Puts back the buffers of all modules that are called inside, where they are in training mode.

    The caller gives a function, not a network, so a hook finds the modules; eagerly, as compiled code skips hooks. Buffers are
    put back only at the end: a backward pass inside must see what its forward pass left.
    """
    seen: set[nn.Module] = set()
    before: list[tuple[Tensor, Tensor]] = []

    def remember(module: nn.Module, _: object) -> None:
        if module not in seen:
            new = [part for part in module.modules() if part not in seen]
            seen.update(new)
            buffers = (b for part in new if part.training for b in part.buffers(recurse=False))
            before.extend((buffer, buffer.clone()) for buffer in buffers)

    handle = register_module_forward_pre_hook(remember)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        handle.remove()
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _scaled_to_255(values: Tensor) -> Tensor:
    """(B,1,H,W), the maximum of every image to 255, whole numbers; zeros stay."""
    return torch.floor(255 * values / values.amax((2, 3), keepdim=True).clamp(min=1))


class SaliencyMix(BoxMixer):
    """Pastes a box of the partner at the same place: area 1-lam around the partner's most salient pixel, clipped.

    Labels by the clipped area. Needs ``saliency=`` (B,H,W) of the images, e.g. ``static_saliency`` as in the paper; a partner
    that comes from ``others`` is cut where ``images[partner]`` is salient. With ``per_batch=True`` the first pair's box
    serves all, as in the published code.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    saliency_kind = "static"
    source = "Uddin et al. 2021; AutoMix 2"

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """All but a box around the partner's peak is own."""
        assert saliency is not None
        size = image_size(images)
        lam = self.draw_lambda(draws) if lam is None else lam
        partner = draws.partner()
        row, column = peak(saliency[partner[:1] if self.per_batch else partner])
        return boxed_plan(lam, partner, centred_box(1.0 - lam, row, column, size), size)


def peak(saliency: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column (each (B,) int64) of the largest value of every map (B,H,W); the first in row order where several tie."""
    place = saliency.flatten(1).argmax(1)
    return place // saliency.shape[-1], place % saliency.shape[-1]
