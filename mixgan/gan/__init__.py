"""GANs trained on mixed samples: ``MixCycleGAN`` and CycleGAN's networks, imported when they are first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixgan.gan.mixcyclegan import MixCycleGAN
    from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator

__all__ = ["MixCycleGAN", "PatchDiscriminator", "ResnetGenerator"]
_MODULES = {"MixCycleGAN": "mixcyclegan", "PatchDiscriminator": "networks", "ResnetGenerator": "networks"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
