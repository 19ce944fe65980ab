"""What both GANs do around an optimizer step."""

from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


def check_precision(mixed_precision: str, accelerator: Accelerator) -> None:
    """ValueError for fp16 where there is no GPU; accelerate would train in float32 without a word."""
    if mixed_precision == "fp16" and accelerator.scaler is None:
        raise ValueError("--mixed-precision fp16 needs a GPU and there is none; bf16 works on CPUs too")


def update(name: str, networks: nn.Module, optimizer: Optimizer, accelerator: Accelerator) -> dict[str, Tensor]:
    """A step of an optimizer where one is due, and under ``name`` the norm of the gradient that it took."""
    if not accelerator.sync_gradients:
        return {}
    accelerator.unscale_gradients(optimizer)
    norm = get_total_norm([p.grad for p in networks.parameters() if p.grad is not None])
    if accelerator.scaler is not None:  # which skips a step of infinite gradients; that is not a divergence
        norm = norm.nan_to_num(0.0, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    return {name: norm}
