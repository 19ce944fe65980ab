"""Mixing methods by name, and composites of which one method is drawn for each batch or each sample."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from mixgan.mixing.comixup import CoMixup
from mixgan.mixing.fmix import FMix
from mixgan.mixing.interpolation import DisturbLabel, Erm, LabelSmoothing, Mixup, MixupL, MixupX, MixupXL, SamplePairing
from mixgan.mixing.labels import LabelBy, LabelKind
from mixgan.mixing.mixer import Mixer, Plan
from mixgan.mixing.puzzlemix import PuzzleMix
from mixgan.mixing.regions import CutMix, GridMix, MixupH, MixupHC, MixupHV, MixupV, PatchShuffle, ResizeMix, StitchRect
from mixgan.mixing.saliency import SaliencyMix
from mixgan.mixing.sampling import Draws
from mixgan.ops.transforms import filled

MIXERS: dict[str, type[Mixer]] = {
    "erm": Erm,
    "label-smoothing": LabelSmoothing,
    "disturblabel": DisturbLabel,
    "samplepairing": SamplePairing,
    "patchshuffle": PatchShuffle,
    "mixup": Mixup,
    "mixup-x": MixupX,
    "mixup-l": MixupL,
    "mixup-xl": MixupXL,
    "mixup-h": MixupH,
    "mixup-v": MixupV,
    "mixup-hv": MixupHV,
    "mixup-hc": MixupHC,
    "stitch-rect": StitchRect,
    "cutmix": CutMix,
    "resizemix": ResizeMix,
    "gridmix": GridMix,
    "fmix": FMix,
    "saliencymix": SaliencyMix,
    "puzzlemix": PuzzleMix,
    "comixup": CoMixup,
}
ALIASES = {"mixup-c": "mixup"}  # "mixup-C" of Understanding Mixup is the original mixup


def list_mixers() -> list[str]:
    """The names that ``build_mixer`` takes, aliases not repeated."""
    return list(MIXERS)


def parts_of(name: str) -> list[str]:
    """The methods that a composite's name joins by "+", e.g. mixup+cutmix; one for a single method's name.

    Raises:
        ValueError: one of them is unknown, or named twice.
    """
    parts = name.split("+")
    if len({mixer_class(part) for part in parts}) < len(parts):
        raise ValueError(f"{name} names a method twice; give it more weight instead")
    return parts


def mixer_class(name: str) -> type[Mixer]:
    """The class behind a name or alias; ValueError naming the known ones."""
    found = MIXERS.get(ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"unknown mixing method {name!r}; known: {', '.join(MIXERS)}")
    return found


def mixer_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method by name (without num_classes), with their annotations and defaults."""
    owner = Composite if len(parts_of(name)) > 1 else mixer_class(name)
    parameters = inspect.signature(owner.__init__).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "num_classes", "mixers")}


def build_mixer(
    name: str,
    *,
    num_classes: int | None = None,
    label_kind: LabelKind = "class",
    union: bool = False,
    label_by: LabelBy = "area",
    label_blend: float = 1.0,
    **options: Any,
) -> Mixer:
    """A mixing method by name, e.g. ``build_mixer("mixup", num_classes=10, alpha=0.2)``.

    ``label_kind``, ``union``, ``label_by`` and ``label_blend`` are those of ``Mixer.with_labels``; ``"value"`` needs no
    ``num_classes``.

    Names joined by "+" make a composite of which one method is drawn per batch (``weights=``, ``per_sample=``, see
    ``Composite``); its methods' own options come as dictionaries under their names with "_" for "-":
    ``build_mixer("mixup+cutmix", num_classes=10, weights=(1, 3), mixup={"alpha": 0.2})``.

    Raises:
        ValueError: unknown name, an option that the method does not know, or a value out of range; each names what is known.
    """
    if num_classes is None:
        if label_kind != "value":
            raise ValueError(f"label_kind={label_kind!r} needs num_classes=, the number of classes or labels")
        num_classes = 1
    mixer = _build(name, num_classes, options)
    return mixer.with_labels(label_kind, union=union, by=label_by, blend=label_blend)


def _build(name: str, num_classes: int, options: dict[str, Any]) -> Mixer:
    parts = parts_of(name)
    if len(parts) > 1:
        own = {part: options.pop(part.replace("-", "_"), {}) for part in parts}
        _check_options(name, options, mixer_options(name))
        mixers = [_build(part, num_classes, own[part]) for part in parts]
        return Composite(mixers, **options)
    _check_options(name, options, mixer_options(name))
    return mixer_class(name)(num_classes=num_classes, **options)


def _check_options(name: str, options: dict[str, Any], known: dict[str, inspect.Parameter]) -> None:
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(map(repr, unknown))}; it knows: {', '.join(known) or 'none'}"
        )


class Composite(Mixer):
    """Draws one of several methods, with probabilities in proportion to ``weights``.

    Per batch (the default) the choice is made on the host and only the chosen method runs; the plan's ``choice`` is its
    position. Per sample all methods draw and one of them is picked, which needs methods that are only a mask: x = mask *
    own + (1 - mask) * partner, labels by weights.

    Args:
        mixers: the methods.
        weights: one positive number each; equal by default.
        per_sample: choose for every sample instead of for the batch.

    Raises:
        ValueError: no methods, weights that do not fit, or a method that moves pixels or changes labels by itself drawn per
            sample.
    """

    source = "Understanding Mixup IV-B; common practice with mixup and CutMix"

    def __init__(
        self, mixers: Sequence[Mixer], *, weights: tuple[float, ...] | None = None, per_sample: bool = False
    ) -> None:
        if not mixers:
            raise ValueError("a composite needs at least one method, got none")
        super().__init__(num_classes=mixers[0].num_classes)
        self.weights = [1.0] * len(mixers) if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != len(mixers) or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"weights must be {len(mixers)} numbers above 0, got {tuple(self.weights)}")
        self.mixers: Sequence[Mixer] = nn.ModuleList(mixers)  # type: ignore[assignment]  # a list of mixers to its users
        self.per_sample = per_sample
        self.label_follows_mask = all(mixer.label_follows_mask for mixer in mixers)
        self.changes_labels = any(mixer.changes_labels for mixer in mixers)
        kinds = {mixer.saliency_kind for mixer in mixers} - {None}
        if len(kinds) > 1:
            raise ValueError("methods that need static and gradient saliency cannot share one composite")
        self.saliency_kind = self.parts_saliency = kinds.pop() if kinds else None
        self.moves_pixels = any(mixer.moves_pixels for mixer in mixers)
        if per_sample:
            own = [m for m in mixers if m.moves_pixels or type(m).targets is not Mixer.targets]
            if own:
                names = ", ".join(type(mixer).__name__ for mixer in own)
                raise ValueError(f"drawn per sample, methods must be only a mask; {names} is more: draw per batch")

    def with_labels(
        self, kind: LabelKind = "class", *, union: bool = False, by: LabelBy = "area", blend: float = 1.0
    ) -> Self:
        """As ``Mixer.with_labels``, for all methods."""
        super().with_labels(kind, union=union, by=by, blend=blend)
        for mixer in self.mixers:
            mixer.with_labels(kind, union=union)
        self.saliency_kind = self.parts_saliency or self.saliency_kind
        return self

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The plan of the chosen method, or of the method that each sample chose."""
        if not self.per_sample:
            choice = draws.choice(self.weights)
            return replace(self.mixers[choice].build_plan(images, saliency, lam, draws), choice=choice)
        plans = [mixer.build_plan(images, saliency, lam, draws) for mixer in self.mixers]
        shares = filled(self.weights, images.device).cumsum(0) / sum(self.weights)
        # The share that U falls into; the last share ends at 1 whatever its rounding.
        chosen = torch.searchsorted(shares[:-1].contiguous(), draws.uniform().contiguous(), right=True)
        plan = plans[0]
        for number, other in enumerate(plans[1:], 1):
            plan = _where(chosen == number, other, plan)
        return plan

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """Mix as the chosen method does; per sample, by the masks alone."""
        if plan.choice is None:
            return super().mix_pixels(images, plan, others)
        return self.mixers[plan.choice].mix_pixels(images, plan, others)

    def targets(self, labels: Tensor, plan: Plan, *, other_labels: Tensor | None = None) -> Tensor:
        """The chosen method's targets."""
        if plan.choice is None:
            return super().targets(labels, plan, other_labels=other_labels)
        return self.mixers[plan.choice].targets(labels, plan, other_labels=other_labels)

    def shown_saliency(self, saliency: Tensor, plan: Plan) -> Tensor:
        """As the chosen method shows it."""
        if plan.choice is None:
            return super().shown_saliency(saliency, plan)
        return self.mixers[plan.choice].shown_saliency(saliency, plan)

    def keeps_boxes(self, plan: Plan) -> bool:
        """Whether the chosen method does."""
        if plan.choice is None:
            return super().keeps_boxes(plan)
        return self.mixers[plan.choice].keeps_boxes(plan)

    def pasted_boxes(self, plan: Plan) -> Tensor | None:
        """The chosen method's."""
        if plan.choice is None:
            return super().pasted_boxes(plan)
        return self.mixers[plan.choice].pasted_boxes(plan)


def _where(condition: Tensor, first: Plan, second: Plan) -> Plan:
    """Sample by sample, the first plan where ``condition`` (B,) holds, else the second."""
    assert first.mask is not None
    assert second.mask is not None
    column = condition[:, None]
    return Plan(
        drawn=torch.where(condition, first.drawn, second.drawn),
        sources=torch.where(column, first.sources, second.sources),
        weights=torch.where(column, first.weights, second.weights),
        mask=torch.where(condition.view(-1, 1, 1, 1), first.mask, second.mask),
    )
