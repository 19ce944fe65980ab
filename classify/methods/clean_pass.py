"""The clean loss of a batch and the saliency map that it has anyway, for the price of the loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.mixing import saliency_of_gradient


@torch.compiler.disable
def clean_loss_with_saliency(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the network on unmixed images, and its saliency map, from ONE forward and ONE backward pass.

    A clean loss in training needs a forward pass, and a backward pass into the parameters. That backward pass goes through
    all activations down to the first layer; the gradient of the images is one convolution more. So it is made here, at
    once, and yields both. The parameters' share is kept, and added when the returned loss is back-propagated, which then runs
    no pass of its own. Compared with the same clean loss and no saliency, the map costs that one convolution and, until the
    step ends, one copy of the parameters. The graph of this pass is gone before the mixed samples' pass begins.

    The pass is a training pass: in training mode batch norm uses and updates the statistics of this batch, so that a map also
    shows what its image does to the others' losses (in the published code as well, with its clean loss on).

    Args:
        network: logits (B,K) of images; parameters that require gradients get them.
        images: (B,C,H,W).
        labels: (B,) int64.

    Returns:
        The mean loss, scalar float32, and the map (B,H,W) float32 as ``gradient_saliency`` makes it of the summed loss.
    """
    probe = images.detach().requires_grad_()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    # The sum, not the mean: B times larger gradients, which 16-bit floats hold better.
    loss = F.cross_entropy(network(probe).float(), labels, reduction="sum")
    of_images, *of_parameters = torch.autograd.grad(loss, [probe, *parameters], materialize_grads=True)
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
