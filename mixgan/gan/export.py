"""A generator as an ONNX file for other programs, checked against torch before it gets its name."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mixgan.gan.data import to_signed
from mixgan.gan.networks import ResnetGenerator
from mixgan.gan.tiled import SMALLEST, STEP, pad_by_reflection

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
#: The largest difference from torch, in images of [-1, 1], that an exported generator may show.
TOLERANCE = 1e-3


def check_packages() -> None:
    """ValueError naming the optional packages that are missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"--export onnx needs {', '.join(missing)}: pip install 'mixgan[export]'")


@torch.no_grad()
def export_onnx(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Write a generator as ONNX and compare it with torch on an image.

    The file maps ``images`` (batch,3,4h,4w) float32 in [-1,1] to ``translated`` of the same shape; batch, h >= 2 and w >= 2 are
    free. It appears under its name only when onnxruntime has found what torch finds.

    Args:
        generator: in eval mode, on the CPU.
        path: the file, replaced if there is one.
        image: (3,H,W) uint8 to compare on, of any size.

    Returns:
        The largest absolute difference of the two outputs.

    Raises:
        ValueError: optional packages are missing, or the difference is above ``TOLERANCE``.
    """
    check_packages()
    free = torch.export.Dim("batch"), *(STEP * torch.export.Dim(side, min=SMALLEST // STEP) for side in ("h", "w"))
    example = torch.zeros(2, 3, 8 * STEP, 12 * STEP)  # sizes that differ, so that none is taken for another
    program = torch.onnx.export(
        generator,
        (example,),
        dynamo=True,
        dynamic_shapes={"images": dict(zip((0, 2, 3), free, strict=True))},
        input_names=["images"],
        output_names=["translated"],
        verbose=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        program.save(partial, external_data=False)
        difference = difference_from_torch(generator, partial, image)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path} was not written: onnxruntime's output differs from torch's by {difference:.2g}, more than {TOLERANCE:g}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def difference_from_torch(generator: ResnetGenerator, path: Path, image: Tensor) -> float:
    """Largest absolute difference between what onnxruntime and torch make of an image (3,H,W) uint8."""
    import onnxruntime  # optional, so not at the top

    padded, _ = pad_by_reflection(to_signed(image[None]))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": padded.numpy()})
    return (torch.from_numpy(found) - generator(padded)).abs().max().item()
