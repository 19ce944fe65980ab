"""GANs trained on mixed samples: ``MixCycleGAN`` and CycleGAN's networks, imported when they are first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixgan.gan.mixcyclegan import MixCycleGAN
    from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator

__all__ = ["MixCycleGAN", "PatchDiscriminator", "ResnetGenerator", "UnetGenerator"]
_MODULES = dict.fromkeys(__all__, "networks") | {"MixCycleGAN": "mixcyclegan"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
