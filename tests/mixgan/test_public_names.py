"""What ``import mixgan`` offers, and what it and ``mixgan.mixing`` do not import."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import mixgan
from mixgan import mixing
from mixgan.mixing.registry import MIXERS

HEAVY = (
    "accelerate",
    "kornia",
    "matplotlib",
    "torchvision",
    "scipy",
    "sklearn",
    "jinja2",
    "timm",
    "PIL",
    "rich",
)


def imported_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True, timeout=120)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_mixgan_imports_no_torch():
    assert "torch" not in imported_by("import mixgan; mixgan.__version__; dir(mixgan)")


def test_importing_the_mixers_imports_torch_only():
    found = imported_by("import mixgan.mixing; from mixgan import CutMix; CutMix(num_classes=2)")
    assert "torch" in found
    assert found.isdisjoint(HEAVY)


def test_every_mixer_and_the_two_functions_are_public():
    assert mixgan.build_mixer is mixing.build_mixer
    assert mixgan.list_mixers is mixing.list_mixers
    for mixer in MIXERS.values():
        assert getattr(mixgan, mixer.__name__) is mixer
        assert mixer.__name__ in dir(mixgan)
        assert mixer.__name__ in mixing.__all__
    assert set(mixing.__all__) - {"BetaMixer"} <= set(mixgan.__all__)
    assert mixgan.CutMix(num_classes=10, alpha=0.5).alpha == 0.5
    assert mixgan.mixing is mixing
    assert mixgan.__version__ == "0.2.0"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mixgan' has no attribute 'CutMx'"):
        _ = mixgan.CutMx


def mixer_classes(base: type = mixing.Mixer) -> Iterator[type]:
    for owner in base.__subclasses__():
        if owner.__module__.startswith("mixgan.mixing"):
            yield owner
            yield from mixer_classes(owner)


def test_no_mixer_overrides_a_name_of_torchs_module():
    allowed = {"__init__", "__module__", "__doc__", "__annotations__", "forward"}
    for owner in (mixing.Mixer, *mixer_classes()):
        assert vars(owner).keys() & vars(nn.Module).keys() <= allowed, owner


def test_a_module_that_holds_a_mixer_can_apply_an_initialisation():
    parent = nn.Sequential(nn.Linear(2, 2), mixing.build_mixer("mixup+puzzlemix", num_classes=2))
    parent.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Linear) else None)
    assert torch.equal(parent[0].weight, torch.ones(2, 2))
