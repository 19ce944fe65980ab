"""Mixing of hidden features: Manifold Mixup and PatchUp, at a random layer of any network.

Reading order: the step they share, the two methods, PatchUp's blocks, and how layers are found by name and replaced.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import MixedSamples, MixSchedule, SoftLoss, not_compiled, soft_target_loss
from mixgan.engine.annotations import Above0, Probability
from mixgan.mixing import Mixer, Plan, build_mixer
from mixgan.mixing.mixer import paired_plan
from mixgan.mixing.sampling import Draws, host_choice

PatchMode = Literal["soft", "hard"]


class HiddenMixing(MixedSamples):
    """Base of the methods that mix a batch at one of several layers: the input, or the output of a module.

    Everything up to that layer sees unmixed samples; the labels are mixed by the same plan. A hook replaces the layer's output
    for one forward pass; the network itself is not changed.

    Args:
        input_mixer: mixes the images where the input is drawn.
        hidden_mixer: mixes features (B,C,h,w). Features of another shape (B,...) count as channels of 1 x 1 pixels.
        layers: see ``HiddenLayers``; each is as likely as the others.
    """

    def __init__(
        self,
        network: nn.Module,
        input_mixer: Mixer,
        hidden_mixer: Mixer,
        *,
        layers: tuple[str, ...],
        schedule: MixSchedule | None = None,
        loss: SoftLoss,
    ) -> None:
        super().__init__(network, input_mixer, schedule=schedule, loss=loss)
        self.hidden_mixer = hidden_mixer
        self.layers = HiddenLayers(network, layers)

    def classify(
        self, mixer: Mixer, images: Tensor, labels: Tensor, saliency: Tensor | None
    ) -> tuple[Tensor, Tensor, Plan]:
        """Logits (B,K) float32 of a batch mixed at a random layer, the targets (B,K), and the plan that mixed it."""
        module = self.drawn_layer(images) if mixer is self.mixer else None
        if module is None:
            return super().classify(mixer, images, labels, saliency)
        return self.classify_hidden(module, images, labels)

    @not_compiled
    def classify_hidden(self, module: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Plan]:
        """``classify`` for a batch mixed at the output of a module."""
        plans: list[Plan] = []

        def mix(features: Tensor) -> Tensor:
            if len(features) != len(images):
                raise ValueError(
                    f"--method.layers must name modules that keep the batch dimension: {type(module).__name__} returned "
                    f"{tuple(features.shape)} for {len(images)} images"
                )
            maps = features if features.ndim == 4 else features.flatten(1)[:, :, None, None]
            plans.append(self.hidden_mixer.plan(maps))
            return self.hidden_mixer.mix_images(maps, plans[0]).view_as(features)

        with replaced_output(module, mix):
            logits = self.network(images).float()
        return logits, self.hidden_mixer.targets(labels, plans[0]), plans[0]

    def drawn_layer(self, images: Tensor) -> nn.Module | None:
        """A random layer; None for the input."""
        names = self.layers.names
        return self.layers.module(names[host_choice([1.0] * len(names))], images)

    def image_plan(
        self, images: Tensor, labels: Tensor, *, lam: Tensor | None = None, generator: torch.Generator
    ) -> Plan | None:
        """That of the input; None where it is not among the layers."""
        if {"0", "input"}.isdisjoint(self.layers.names):
            return None
        return super().image_plan(images, labels, lam=lam, generator=generator)


class ManifoldMixup(HiddenMixing):
    """Interpolates the features of a random layer, or the images, and the labels: mixup in hidden space.

    At a layer drawn in every step, h = lam h_i + (1-lam) h_j and y = lam y_i + (1-lam) y_j with lam ~ Beta(alpha, alpha).

    Args:
        layers: where to mix: 0 is the input, 1, 2, ... the network's stages, all else a module's name.
        alpha: both parameters of the Beta distribution, above 0 (2 on CIFAR, 0.2 on Tiny-ImageNet).
        per_batch: one lambda for the batch, as published.
        loss: ``"soft-ce"``, or ``"bce"`` as published.
    """

    source = "Verma et al. 2019; AutoMix 2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        layers: tuple[str, ...] = ("0", "1", "2"),
        alpha: Above0 = 2.0,
        per_batch: bool = False,
        loss: SoftLoss = "soft-ce",
    ) -> None:
        mixer = build_mixer("mixup", num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        super().__init__(network, mixer, mixer, layers=layers, loss=loss)


class PatchUp(HiddenMixing):
    """Changes random blocks of every feature map of a random layer: interpolated (soft) or from the partner (hard).

    See ``PatchUpBlocks``. With p the unchanged share and W = p y_i + (1-p) Y the target of the whole, where Y is that of the
    changed blocks, the paper minimises p l(y_i) + (1-p) l(Y) + l(W), which is 2 l(W) for both losses: they are linear in
    the target. Where the input is drawn, images are mixed by CutMix instead (alpha 1), as published, under the same loss.

    Args:
        mode: ``"soft"`` or ``"hard"``.
        layers: where to mix: 0 is the input, 1, 2, ... the network's stages, all else a module's name.
        block: side of the blocks, odd; smaller where the features are.
        gamma: sets the probability of a block as in DropBlock, where it is the share of changed features, overlaps aside.
        alpha: lam ~ Beta(alpha, alpha) inside soft blocks.
        prob: share of the batches that are mixed (published: 1 for soft, 0.7 for hard).
        per_batch: one lambda and the same blocks for the batch, as published.
        loss: ``"soft-ce"``, or ``"bce"`` as published.

    Raises:
        ValueError: an even block, or an unknown layer.
    """

    source = "Faramarzi et al. 2020; AutoMix 2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mode: PatchMode = "soft",
        layers: tuple[str, ...] = ("0", "1", "2"),
        block: int = 7,
        gamma: Probability = 0.9,
        alpha: Above0 = 2.0,
        prob: Probability = 1.0,
        per_batch: bool = False,
        loss: SoftLoss = "soft-ce",
    ) -> None:
        blocks = PatchUpBlocks(
            num_classes=num_classes, mode=mode, block=block, gamma=gamma, alpha=alpha, per_batch=per_batch
        )
        cutmix = build_mixer("cutmix", num_classes=num_classes, per_batch=per_batch)
        schedule = MixSchedule(prob=prob)
        super().__init__(network, cutmix, blocks, layers=layers, schedule=schedule, loss=loss)

    def mixed_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Twice the loss against the mixed target, for the paper's two terms."""
        return 2.0 * soft_target_loss(logits, targets, self.loss)


class PatchUpBlocks(Mixer):
    """Random blocks of feature maps, other blocks in every channel, come from the partner wholly or in part.

    With holes = 1 in blocks around random places, lam ~ Beta(alpha, alpha) for soft and 0 for hard: mask = 1 - holes (1-lam).
    The plan's mask is (B,C,h,w), for these features only; the label weight is its mean, p + (1-p) lam.
    Options are those of ``PatchUp``.
    """

    source = PatchUp.source

    def __init__(
        self, *, num_classes: int, mode: PatchMode, block: int, gamma: float, alpha: float, per_batch: bool
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        if block < 1 or block % 2 == 0:
            raise ValueError(f"--method.block must be odd and at least 1, got {block}")
        self.mode, self.block, self.gamma, self.alpha = mode, block, gamma, alpha

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Blocks, lambda and partner; ``images`` are the features. A given ``lam`` is the own share inside the blocks."""
        size = (images.shape[-2], images.shape[-1])
        block = fitting_block(self.block, size)
        like = images[:1] if draws.shared else images
        # Channels last, whatever the features are: a CPU pools such maps four times as fast.
        centres = torch.empty_like(like, dtype=torch.float32, memory_format=torch.channels_last)
        centres.bernoulli_(centre_probability(self.gamma, block, size), generator=draws.generator)
        if lam is None:
            lam = draws.beta(self.alpha) if self.mode == "soft" else torch.zeros(len(images), device=images.device)
        mask = 1.0 - blocks_around(centres, block) * (1.0 - lam).view(-1, 1, 1, 1)
        return paired_plan(lam, draws.partner(), mask.mean((1, 2, 3)), mask)


def fitting_block(block: int, size: tuple[int, int]) -> int:
    """The largest odd block side up to ``block`` that fits into features of this size."""
    fits = min(block, *size)
    return fits - 1 + fits % 2


def centre_probability(gamma: float, block: int, size: tuple[int, int]) -> float:
    """The probability of a block around a place: gamma h w / (k^2 (h-k+1) (w-k+1)), DropBlock's for a share gamma.

    As published, any place may be a centre, not only those whose block lies inside.
    """
    height, width = size
    inside = (height - block + 1) * (width - block + 1)
    return gamma * height * width / (block**2 * inside)


def blocks_around(centres: Tensor, block: int) -> Tensor:
    """1 in the block x block places around every 1 of centres (B,C,h,w), cut off at the border; 0 elsewhere."""
    half = block // 2
    # one axis after the other: 2k reads, not k^2
    in_rows = F.max_pool2d(centres, (block, 1), stride=1, padding=(half, 0))
    return F.max_pool2d(in_rows, (1, block), stride=1, padding=(0, half))


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
        #: the names of the stages; None for a network of the contract until its stages have been found with a batch
        by_contract = callable(getattr(network, "stages", None)) and not isinstance(
            network.stages, nn.Module
        )  # as timm's
        self.stages: list[str] | None = None if by_contract else stages_by_name(network)
        for name in names:
            number = stage_number(network, name)
            if number is None and find_module(network, name) is None:
                raise self.unknown(f"module {name!r}")
            if number and self.stages is not None:
                self.stage(number, self.stages)

    def module(self, name: str, images: Tensor) -> nn.Module | None:
        """The module of a name; None for the input. The first of the images (B,C,H,W) may be run to find it."""
        number = stage_number(self.network, name)
        if number == 0:
            return None
        if number is None:
            return find_module(self.network, name)
        if self.stages is None:
            self.stages = stages_by_contract(self.network, images[:1])
        return find_module(self.network, self.stage(number, self.stages))

    def stage(self, number: int, stages: list[str]) -> str:
        """The name of stage ``number``, counted from 1."""
        if number > len(stages):
            raise self.unknown(f"stage {number} ({len(stages)} stages are known)")
        return stages[number - 1]

    def unknown(self, what: str) -> ValueError:
        """The error for a missing layer, naming the modules that exist."""
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


def stages_by_name(network: nn.Module) -> list[str]:
    """The names of the stages of a network outside the contract; empty where they follow no known pattern."""
    for pattern, number in _STAGE_NAMES:
        found = []
        while find_module(network, pattern.format(number)) is not None:
            found.append(pattern.format(number))
            number += 1
        if found:
            return found
    return []


@torch.no_grad()
def stages_by_contract(network: Any, image: Tensor) -> list[str]:
    """The names of the modules whose outputs ``network.stages`` returns, found by hooks in one call, in eval mode.

    Args:
        image: (1,C,H,W).

    Raises:
        ValueError: a stage is not the output of a module.
    """
    outputs: list[tuple[str, object]] = []

    def record(name: str, module: nn.Module, inputs: object, output: object) -> None:
        outputs.append((name, output))

    training = network.training
    handles = [module.register_forward_hook(partial(record, name)) for name, module in network.named_modules()]
    try:
        network.eval()
        # Earlier versions of torch would keep weights that are cast here, without gradients, for the training pass.
        with torch.autocast(image.device.type, enabled=False):
            maps = network.stages(image)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    names = []
    for number, stage in enumerate(maps, 1):
        # Of several modules that returned this very tensor the last one contains the others.
        sources = [name for name, output in outputs if output is stage]
        if not sources:
            kind = type(network).__name__
            raise ValueError(
                f"--method.layers: stage {number} of {kind} is not the output of a module; name modules instead"
            )
        names.append(sources[-1])
    return names


@contextmanager
def replaced_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Context in which the module's output is replaced by ``change(output)``, for one forward pass of its network.

    The hook is removed afterwards, also after an exception. A compiled network runs eagerly inside: compiled code would
    silently ignore the new hook.

    Raises:
        ValueError: the module did not run exactly once, or did not return a tensor.
    """
    runs = 0
    kind = type(module).__name__

    def hook(_: nn.Module, inputs: object, output: object) -> Tensor:
        nonlocal runs
        runs += 1
        if not isinstance(output, Tensor):
            raise ValueError(
                f"--method.layers must name modules that return one tensor; {kind} returned {type(output).__name__}"
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
