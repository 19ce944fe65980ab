"""A GPU played by the CPU: where code places its tensors and where it waits for the device, on a machine without one.

Inside ``fake_cuda`` tensors on ``cuda`` hold values on the CPU, and operations compute with these. As on a GPU, operations on
tensors of both devices are errors, and so are generators of the other device. What makes the host wait is recorded: reading
values, shapes that depend on values, copies from the device, and copies to it that are not asynchronous
(``torch.tensor(..., device=...)``, an index on the CPU).

Kernels are the CPU's, so this says nothing about a GPU's rounding, types that it does not support, or memory.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mixgan.ops import transforms

CUDA, CPU, META = torch.device("cuda", 0), torch.device("cpu"), torch.device("meta")
ROOT = Path(__file__).parents[2]
PACKAGES = tuple(f"{ROOT / name}/" for name in ("mixgan", "classify"))
#: Operations whose CUDA kernels read something back to the host, or whose results are on the host.
READING = {
    "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero",
    "masked_select", "multinomial", "nonzero", "unique_consecutive", "unique_dim",
}  # fmt: skip
#: Functions that ask for tensors without values.
SHAPES = {"stage_shapes", "feature_layers", "_fid_inception", "_score_classifier"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class GpuTensor(Tensor):
    """A tensor on the GPU whose values are in ``held``.

    For Python it is on ``cuda``. For the autograd engine it is on ``meta``, as the engine has no queue for a GPU that is not
    there; inside ``fake_cuda(autocast=True)`` it is on ``cuda`` there too.
    """

    held: Tensor

    @staticmethod
    def __new__(cls: Any, held: Tensor, engine: torch.device) -> "GpuTensor":
        layout: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        self = Tensor._make_wrapper_subclass(cls, held.shape, **layout, dtype=held.dtype, device=engine)
        self.held = held
        return self

    def __init__(self, *_: object) -> None:
        super().__init__()

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: object) -> Any:
        raise RuntimeError(f"{func} of a GPU tensor outside of fake_cuda")

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return CUDA

    is_cuda = True  # type: ignore[assignment]

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        if args and args[0] == META and wants_shapes():
            return self.held.to(META)
        return super().to(*args, **kwargs)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = found = self.detach().clone().requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                found._is_param = True  # type: ignore[attr-defined]
        return memo[id(self)]

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held})"


#: Generators by the address of their C++ object, as operations see another Python object.
_GPU_GENERATORS: dict[int, torch.Generator] = {}


class CudaGenerator(torch.Generator):
    """A generator on the GPU; its draws are those of a CPU's with the same seed."""

    device = CUDA  # type: ignore[assignment]

    def __init__(self) -> None:
        _GPU_GENERATORS[self._cdata] = self

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> None:
        pass


class _AnyDevice(type):
    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        return CudaGenerator() if torch.device(device).type == "cuda" else torch._C.Generator(device)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, torch._C.Generator)


class AnyGenerator(metaclass=_AnyDevice):
    """``torch.Generator``, also for the GPU."""


class FakeCuda(TorchDispatchMode):
    """Computes what is on ``cuda`` by the CPU; ``waits`` has what the host waited for, and where in the code."""

    #: Where torch sees a mode of this kind it starts no driver for device="cuda".
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self, engine: torch.device, *, float64: bool) -> None:
        super().__init__()
        self.engine, self.float64 = engine, float64
        self.waits: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch would import its compiler to say so

    def places(self) -> set[str]:
        """The functions of this repository that waited."""
        return {wait.split(":")[0] for wait in self.waits}

    def wait(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGES)]
        frames = [frame for frame in frames if not frame.name.startswith("<")]
        where = "test" if not frames else frames[-1].name
        line = "" if not frames else f", {Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}"
        self.waits.append(f"{where}: {what}{line}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, dict(kwargs or {})
        flat = [*leaves(args), *leaves(kwargs.values())]
        owners = {id(value.held): value for value in flat if isinstance(value, GpuTensor)}
        to = kwargs.get("device")
        if to is not None and torch.device(to) == META:
            if wants_shapes():
                return func(*without_owner(args), **kwargs)
            to = CUDA  # that of a GPU tensor, as C++ sees it
        if not owners and (to is None or torch.device(to).type != "cuda"):
            return func(*args, **kwargs)
        on_gpu = self.check(name, flat, args, kwargs, to)
        if "device" in kwargs:
            kwargs["device"] = CPU
        found = func(*without_owner(args), **{key: without_owner(value) for key, value in kwargs.items()})
        return self.with_owner(found, owners, on_gpu)

    def with_owner(self, found: Any, owners: dict[int, GpuTensor], on_gpu: bool) -> Any:
        """Results as tensors on the GPU; those that were computed in place are the arguments themselves."""
        if isinstance(found, tuple | list):
            return type(found)(self.with_owner(one, owners, on_gpu) for one in found)
        if not isinstance(found, Tensor):
            return found
        if on_gpu and found.dtype == torch.float64 and not self.float64:
            raise TypeError("this device has no float64")
        return owners.get(id(found), GpuTensor(found, self.engine) if on_gpu else found)

    def check(self, name: str, flat: list[Any], args: Any, kwargs: Any, to: Any) -> bool:
        """Errors of a GPU, and what the host waits for; returns whether the results are on the GPU."""
        for value in flat:
            if isinstance(value, torch._C.Generator) and value._cdata not in _GPU_GENERATORS:
                raise RuntimeError(f"{name}: a generator on the CPU draws for the GPU")
        if name in READING:
            self.wait(f"{name} reads values")
        if name == "_to_copy":
            source, target = args[0].device.type, args[0].device.type if to is None else torch.device(to).type
            self.copied(source, target, kwargs.get("non_blocking"))
            return target == "cuda"
        if name == "copy_":
            self.copied(args[1].device.type, args[0].device.type, (args[2:] or [kwargs.get("non_blocking")])[0])
            return isinstance(args[0], GpuTensor)
        if name in INDEXING:
            if not isinstance(args[0], GpuTensor):
                raise RuntimeError(f"{name}: indices on the GPU for a tensor on the CPU")
            for index in args[1]:
                if index is not None and not isinstance(index, GpuTensor):
                    self.wait("copies an index to the device")
                elif index is not None and index.dtype == torch.bool and (name == "index" or args[2].ndim):
                    self.wait("a mask as index: the number of places depends on values")
            flat = [value for value in flat if not any(value is index for index in args[1])]
        wrong = [
            v for v in flat if isinstance(v, Tensor) and not isinstance(v, GpuTensor) and v.ndim and v.device == CPU
        ]
        if wrong and name not in ("_fused_adam_", "_fused_sgd_"):
            raise RuntimeError(
                f"{name}: tensors on cuda and on the CPU, the latter of shapes {[w.shape for w in wrong]}"
            )
        return True

    def copied(self, source: str, target: str, asynchronous: Any) -> None:
        if source == "cuda" and target == "cpu":
            self.wait("copies from the device")
        if source == "cpu" and target == "cuda" and not asynchronous:
            self.wait("copies to the device")


def leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from leaves(value)
        else:
            yield value


def wants_shapes() -> bool:
    """Whether the code itself asks for the meta device, which else is that of a GPU tensor for C++."""
    return any(frame.f_code.co_name in SHAPES for frame, _ in traceback.walk_stack(None))


def without_owner(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [without_owner(one) for one in value]
    return value.held if isinstance(value, GpuTensor) else value


@contextmanager
def fake_cuda(*, autocast: bool = False, float64: bool = True) -> Iterator[FakeCuda]:
    """The context in which ``cuda`` is a device.

    Args:
        autocast: whether ``torch.autocast("cuda")`` has an effect; there are no backward passes then.
        float64: whether the device has it; Apple's do not.
    """
    if torch.__version__ < (2, 7):  # later versions without the means fail
        pytest.skip(f"torch {torch.__version__} cannot play a GPU")
    swaps, lifts = torch.__future__.get_swap_module_params_on_conversion(), torch._C._only_lift_cpu_tensors()
    torch.__future__.set_swap_module_params_on_conversion(True)  # optimizers know the parameters already
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", AnyGenerator)
        patch.setattr(transforms, "WITHOUT_FLOAT64", set() if float64 else {"cuda"})
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
        patch.setattr("torch.cuda.synchronize", lambda *_: None)
        patch.setattr(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda tensor: []))  # of swapped tensors
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") is made on the CPU, then copied
        torch._C._ensureCUDADeviceGuardSet()
        try:
            mode = FakeCuda(CUDA if autocast else META, float64=float64)
            with torch.backends.cudnn.flags(enabled=False), mode:
                yield mode
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            torch.__future__.set_swap_module_params_on_conversion(swaps)


@contextmanager
def gpu_accelerator(**options: Any) -> Iterator[Accelerator]:
    """An Accelerator of one process on the GPU of ``fake_cuda``."""
    AcceleratorState._reset_state(True)
    try:
        accelerator = Accelerator(cpu=True, **options)
        PartialState._shared_state["device"] = AcceleratorState._shared_state["device"] = CUDA
        assert accelerator.device == CUDA
        yield accelerator
    finally:
        AcceleratorState._reset_state(True)  # with PartialState's
        GradientState._reset_state()
