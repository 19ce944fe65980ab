"""Hidden layers of any network by name, and forward passes in which the output of one of them is replaced."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

#: How torchvision and timm call the stages of their networks, and the first one's number.
_STAGE_NAMES = (
    ("layer{}", 1),  # ResNet and its kin
    ("stages.{}", 0),  # timm's ConvNeXt, ResNetV2, RepVGG, CSPNet and more
    ("blocks.{}", 0),  # timm's EfficientNet and MobileNet; the blocks of its vision transformers
    ("s{}", 1),  # timm's RegNet
    ("trunk_output.block{}", 1),  # torchvision's RegNet
    ("features.denseblock{}", 1),  # DenseNet
)


class HiddenLayers:
    """Layers of a network by their names in ``--method.layers``: 0 or "input", stages 1, 2, ..., or any module.

    Stages are those of the network contract (``stages()``), or modules with the names that torchvision and timm give to stages
    (layer1, stages.0 and others). Anything else is a module's name as ``named_modules()`` has it, for example ``features.4``.

    Args:
        network: any network.
        names: at least one of these names; "stage2" is the same as 2.

    Raises:
        ValueError: no names, or one that the network does not have.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        if not names:
            raise ValueError("--method.layers must name at least one layer, got none")
        self.network = network
        self.names = names
        #: the names of the stages; None for a network of the contract, whose stages the first batch shows
        self.stages: list[str] | None = None if has_contract(network) else stages_by_name(network)
        for name in names:
            number = stage_number(network, name)
            if number is None and find_module(network, name) is None:
                raise self.unknown(f"module {name!r}")
            if number and self.stages is not None:
                self.stage(number)

    def module(self, name: str, images: Tensor) -> nn.Module | None:
        """The module behind a name; None for the input. The first of the images (B,C,H,W) may be run to find it."""
        number = stage_number(self.network, name)
        if number == 0:
            return None
        if number is not None and self.stages is None:
            self.stages = stages_by_contract(self.network, images[:1])
        return find_module(self.network, name if number is None else self.stage(number))

    def stage(self, number: int) -> str:
        """The name of stage ``number``, counted from 1."""
        if number > len(self.stages):
            raise self.unknown(f"stage {number} ({len(self.stages)} stages are known)")
        return self.stages[number - 1]

    def unknown(self, what: str) -> ValueError:
        """The error that names what is there."""
        kind = type(self.network).__name__
        children = ", ".join(name for name, _ in self.network.named_children())
        return ValueError(
            f"--method.layers: {kind} has no {what}; name modules below {children or 'it'}, or 0 for the input"
        )


def stage_number(network: nn.Module, name: str) -> int | None:
    """0 for the input, n for stage n, None for a module's name."""
    if name == "input":
        return 0
    match = re.fullmatch(r"(stage)?(\d+)", name)
    if match is None or (match[1] and find_module(network, name) is not None):  # a module may be called stage1
        return None
    return int(match[2])


def find_module(network: nn.Module, name: str) -> nn.Module | None:
    """The module of this name, where there is one; the network itself has none."""
    try:
        return network.get_submodule(name) if name else None
    except AttributeError:
        return None


def has_contract(network: nn.Module) -> bool:
    """Whether the network gives its stages itself; in timm ``stages`` may be a container of modules."""
    stages = getattr(network, "stages", None)
    return callable(stages) and not isinstance(stages, nn.Module)


def stages_by_name(network: nn.Module) -> list[str]:
    """The names of the stages of a network outside the contract; none where they are called otherwise."""
    for pattern, number in _STAGE_NAMES:
        found = []
        while find_module(network, pattern.format(number)) is not None:
            found.append(pattern.format(number))
            number += 1
        if found:
            return found
    return []


@torch.no_grad()
def stages_by_contract(network: nn.Module, image: Tensor) -> list[str]:
    """The names of the modules whose outputs ``network.stages`` returns, found by watching one call, in eval mode.

    Args:
        image: (1,C,H,W).

    Raises:
        ValueError: a stage is not the output of a module.
    """
    made: list[tuple[str, object]] = []

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        made.append((name, output))

    training = network.training
    handles = [module.register_forward_hook(partial(note, name)) for name, module in network.named_modules()]
    try:
        network.eval()
        maps = network.stages(image)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    names = []
    for number, stage in enumerate(maps, 1):
        # Of several modules that gave this very tensor the last one contains the others.
        makers = [name for name, output in made if output is stage]
        if not makers:
            kind = type(network).__name__
            raise ValueError(f"--method.layers: stage {number} of {kind} is no module's output; name modules instead")
        names.append(makers[-1])
    return names


@contextmanager
def replaced_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the module's output is replaced by ``change(output)``, in one forward pass of the network it belongs to.

    The hook that does it is gone afterwards, also after an exception. A compiled network runs eagerly inside: compiled code
    would pass the new hook by without a word.

    Raises:
        ValueError: the module did not run exactly once, or gave no tensor.
    """
    runs = 0
    kind = type(module).__name__

    def hook(_: nn.Module, inputs: object, output: object) -> Tensor:
        nonlocal runs
        runs += 1
        if not isinstance(output, Tensor):
            raise ValueError(
                f"--method.layers must name modules that give one tensor; {kind} gave {type(output).__name__}"
            )
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        handle.remove()
    if runs != 1:
        raise ValueError(f"--method.layers must name modules that run once in a forward pass; {kind} ran {runs} times")
