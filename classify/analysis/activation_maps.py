"""Where in an image a network sees a class: class activation maps (LaMix Fig. 7), and accuracy with hidden patches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classify.analysis.masks import pairs_of_two_classes
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from mixgan.engine.annotations import AtLeast0, AtLeast1
from mixgan.mixing import build_mixer
from mixgan.ops.transforms import resize
from mixgan.report.grid import image_grid

Kind = Literal["cam", "grad-cam"]
MixedBy = Literal["mixup", "cutmix"]

# ---- Class activation maps


@torch.no_grad()
def class_activation(network: Any, images: Tensor, classes: Tensor) -> Tensor:
    """CAM (Zhou et al. 2016, Eq. 2): what each place of the last feature map adds to the logit of a class.

    The mean over all places plus the classifier's bias is the logit. What a network does between its last stage and the mean (the
    batch norm and ReLU of pre-activation networks) is part of the feature map.

    Args:
        network: in eval mode; its embedding is the spatial mean of a function of each place of its last stage.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.

    Returns:
        (B,h,w), of either sign.

    Raises:
        ValueError: the network has no stages, or its embedding is something else.
    """
    return torch.einsum("bchw,bc->bhw", place_features(network, images), network.classifier.weight[classes])


def place_features(network: Any, images: Tensor) -> Tensor:
    """(B,D,h,w), whose spatial mean is the embedding: every place of the last stage, embedded as if it were alone."""
    last = _stages(network)(images)[-1]
    places = last.permute(0, 2, 3, 1).reshape(-1, last.shape[1], 1, 1)
    features = None
    try:
        with _replaced_stages(network, lambda _: [places]):
            alone = network.embedding(images)
        features = alone.view(len(images), *last.shape[-2:], -1).permute(0, 3, 1, 2)
    except RuntimeError:  # a pooling window that is larger than one place
        pass
    if features is None or not torch.allclose(features.mean((2, 3)), network.embedding(images), rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"CAM needs a network whose embedding is the mean over its last stage, unlike that of {type(network).__name__}; "
            "use grad-cam"
        )
    return features


def grad_cam(network: Any, images: Tensor, classes: Tensor, *, stage: int = 0) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1, 2): a stage's maps weighted by the logit's mean gradient, without negatives.

    Args:
        network: in eval mode, with the stages of the contract; weights may be frozen.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.
        stage: from 1; 0 is the last.

    Returns:
        (B,h,w), not negative. On the last stage of a network whose embedding is that stage's mean it is the positive part of CAM,
        divided by h*w.

    Raises:
        ValueError: the network has no such stage, or its logits do not depend on its stages.
    """
    original = _stages(network)
    recorded: list[list[Tensor]] = []

    def stages(x: Tensor) -> list[Tensor]:
        recorded.append(original(x))
        return recorded[-1]

    with torch.enable_grad(), _replaced_stages(network, stages):
        scores = network(images.detach().requires_grad_()).gather(1, classes[:, None])
        if not recorded:
            raise ValueError(f"the logits of {type(network).__name__} do not use its stages(), which Grad-CAM needs")
        count = len(recorded[-1])
        if not 0 <= stage <= count:
            raise ValueError(f"stage must be 1 to {count} with this network, or 0 for the last, got {stage}")
        maps = recorded[-1][stage - 1]
        (gradient,) = torch.autograd.grad(scores.sum(), maps)
    return (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1).clamp(min=0)


def class_maps(network: Any, images: Tensor, classes: Tensor, kind: Kind, stage: int) -> Tensor:
    """Maps (B,h,w) of the classes (B,) in images (B,C,H,W); ``stage`` is Grad-CAM's."""
    if kind == "grad-cam":
        return grad_cam(network, images, classes, stage=stage)
    if stage != 0:
        raise ValueError(f"stage {stage} needs the kind grad-cam: CAM is of the last stage")
    return class_activation(network, images, classes)


def _stages(network: Any) -> Callable[[Tensor], list[Tensor]]:
    if not hasattr(network, "stages"):
        raise ValueError(f"{type(network).__name__} has no stages(); see classify.networks.contract")
    return network.stages


@contextmanager
def _replaced_stages(network: Any, stages: Callable[[Tensor], list[Tensor]]) -> Iterator[None]:
    """Inside, ``network.embedding`` gets its feature maps from another function."""
    network.stages = stages
    try:
        yield
    finally:
        del network.stages


def normalised(maps: Tensor) -> Tensor:
    """Maps (B,h,w), each scaled to 0..1; a constant one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def enlarged(maps: Tensor, size: int | Sequence[int]) -> Tensor:
    """Maps (B,h,w) at the size of the images: (B,H,W), bilinear, scaled to 0..1."""
    height, width = (size, size) if isinstance(size, int) else size
    return normalised(resize(maps[:, None], (height, width))[:, 0])


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B,3,H,W) of maps (B,h,w), in colour, over gray images (B,C,H,W) in 0..1."""
    heat = mpl.colormaps["inferno"](enlarged(maps, images.shape[-2:]).cpu().numpy())[..., :3]
    colours = torch.from_numpy(heat).permute(0, 3, 1, 2).float()
    return 0.35 * images.mean(1, keepdim=True).cpu() + 0.65 * colours


def in_colour(images: Tensor) -> Tensor:
    """Images (N,1,H,W) or (N,3,H,W) with 3 channels."""
    return images.expand(-1, 3, -1, -1)


# ---- The figure cam: plain and mixed images (LaMix Fig. 7)

CAM_TEXT = """The brighter, the more a place speaks for the class; every map is scaled to its own range. Mixed images hold two
classes: their maps show whether a network finds each of them where it is. The table has the mean share of an image where the
map of the true class is above half of its range: the narrower the regions that a network uses, the smaller."""


@dataclass(frozen=True)
class Maps:
    """A run's maps: of plain images (N,h,w), of mixed ones for the own and the partner's class (P,h,w); and the mean area."""

    plain: Tensor
    own: Tensor
    partner: Tensor
    area: float


def cam(
    runs: Runs, study: Study, *, kind: Kind = "cam", stage: int = 0, images: AtLeast1 = 8, mixed_by: MixedBy = "mixup"
) -> Result:
    """Class activation maps (CAM or Grad-CAM) of test images and of mixtures of them.

    Args:
        kind: cam: of the last stage, for networks that average it; grad-cam: of any stage of any network.
        stage: whose feature maps, from 1; 0 is the last.
        images: plain images, and mixed ones, that are shown.
        mixed_by: how two images are mixed, at lambda 0.5.
    """
    first = runs[0]
    batch, labels = next(first.batches(count=4 * images, batch_size=4 * images))
    pairs = pairs_of_two_classes(labels.cpu(), images, seed=study.seed).to(labels.device)
    mixed = mix_halves(batch, pairs, mixed_by, seed=study.seed)
    plain, partners, blends = (first.as_pictures(x) for x in (batch[pairs[:, 0]], batch[pairs[:, 1]], mixed))

    def maps_of(run: TrainedRun) -> Maps:
        if run.image_source != first.image_source:
            raise ValueError(
                f"{run.label} was trained on other images than {first.label}, so it is not compared with it"
            )
        network = run.network
        own, partner = (class_maps(network, run.normalise(blends), labels[side], kind, stage) for side in pairs.T)
        alone = class_maps(network, run.normalise(plain), labels[pairs[:, 0]], kind, stage)
        return Maps(alone, own, partner, mean_area(run, study, kind, stage))

    found, warnings = each(runs, maps_of)
    names = [[first.classes[label] for label in labels[side].tolist()] for side in pairs.T]
    plain, partners, blends = (in_colour(pictures.clamp(0, 1).cpu()) for pictures in (plain, partners, blends))
    result = Result(text=CAM_TEXT, warnings=warnings)
    rows = [plain, *(overlay(plain, own.plain) for own in found.values())]
    sheet = image_grid(rows, row_labels=["image", *found], column_labels=names[0], cell_size=96)
    result.pictures["Plain images"] = (sheet, "Maps of the true class.")
    rows, sides = [plain, partners, blends], ["own", "partner", "mixed"]
    for label, maps in found.items():
        rows += [overlay(blends, maps.own), overlay(blends, maps.partner)]
        sides += [f"{label}: own class", f"{label}: partner's class"]
    both = [f"{own}\n{partner}" for own, partner in zip(*names, strict=True)]
    caption = f"Mixed by {mixed_by} at lambda 0.5; maps of the own and of the partner's class."
    sheet = image_grid(rows, row_labels=sides, column_labels=both, cell_size=96)
    result.pictures["Mixed images"] = (sheet, caption)
    areas = {label: maps.area for label, maps in found.items()}
    result.add_table("Area of the maps", {label: {"share above half": area} for label, area in areas.items()})
    result.metrics = {"kind": kind, "stage": stage, "area": areas}
    return result


def mix_halves(batch: Tensor, pairs: Tensor, mixed_by: MixedBy, *, seed: int) -> Tensor:
    """The pairs (P,2) of a batch, mixed at lambda 0.5: (P,C,H,W)."""
    mixer = build_mixer(mixed_by, num_classes=1)
    own, partner = batch[pairs[:, 0]], batch[pairs[:, 1]]
    generator = torch.Generator(batch.device).manual_seed(seed)
    lam = torch.full((len(own),), 0.5, device=batch.device)
    return mixer.mix_images(own, mixer.plan(own, lam=lam, generator=generator), others=partner)


def mean_area(run: TrainedRun, study: Study, kind: Kind, stage: int) -> float:
    """The mean share of a test image where the map of its class is above half of its range."""
    areas = []
    for images, labels in study.batches(run):
        heat = enlarged(class_maps(run.network, images, labels, kind, stage), images.shape[-2:])
        areas.append((heat > 0.5).float().mean((1, 2)))
    return float(torch.cat(areas).mean())


# ---- The figure occlusion: accuracy by the hidden share, and which places matter

OCCLUSION_TEXT = """To the right of the plot, more and more square patches are hidden at random, filled with the data set's mean
colour; the same ones for all runs, and those hidden at one share stay hidden at the next. The sheet is the sensitivity of
Zeiler and Fergus (2014): the brighter a place, the more hiding it takes from the probability of the true class; each map has
its own range."""
SHARES = tuple(step / 10 for step in range(10))


def occlusion(runs: Runs, study: Study, *, patch: AtLeast0 = 0, images: AtLeast1 = 6) -> Result:
    """Accuracy against the share of the image that is hidden, and which places matter.

    Args:
        patch: side of the hidden squares in px; 0 for an eighth of the image.
        images: how many sensitivity maps are shown.
    """
    accuracies, warnings = each(runs, lambda run: hidden_accuracies(run, study, patch=patch))
    result = Result(text=OCCLUSION_TEXT, warnings=warnings, metrics={"hidden": list(SHARES), "accuracy": accuracies})
    lines = {label: (SHARES, values) for label, values in accuracies.items()}
    result.add_lines("Accuracy when parts are hidden", lines, x_label="hidden share", y_label="accuracy")
    groups: dict[object, list[TrainedRun]] = {}
    for run in runs:
        if run.label in accuracies:
            groups.setdefault(run.image_source, []).append(run)
    for group in groups.values():
        title = f"Sensitive places, {', '.join(run.label for run in group)}"
        sheet = sensitivity_sheet(group, study, patch=patch, count=images)
        result.pictures[title] = (sheet, "How much hiding a place takes from the true class.")
    rows = {label: dict(zip(map(str, SHARES), values, strict=True)) for label, values in accuracies.items()}
    result.add_table("Accuracy by hidden share", rows)
    return result


def hidden_accuracies(run: TrainedRun, study: Study, *, patch: int) -> list[float]:
    """A run's accuracy on test images at every share of ``SHARES``."""
    generator = torch.Generator().manual_seed(study.seed)

    def hidden(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        order = patch_order(images, patch_side(images, patch), generator=generator)
        return (hide(images, order, share) for share in SHARES)

    return study.accuracies(run, hidden)


def patch_side(images: Tensor, patch: int) -> int:
    """The side of a patch in px; 0 is an eighth of the image; ValueError for one larger than the image."""
    size = min(images.shape[-2:])
    if patch > size:
        raise ValueError(f"--occlusion.patch {patch} is larger than the images of {size} px")
    return patch or max(1, size // 8)


def patch_order(images: Tensor, patch: int, *, generator: torch.Generator) -> Tensor:
    """(B,1,H,W) in [0,1): from which share on each pixel is hidden: one value for a square patch, in random order."""
    height, width = images.shape[-2:]
    rows, columns = -(-height // patch), -(-width // patch)
    place = torch.rand(len(images), rows * columns, generator=generator).argsort(1).argsort(1)
    grid = (place / (rows * columns)).view(-1, 1, rows, columns)
    large = grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return large[..., :height, :width].to(images.device)


def hide(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Normalised images with ``share`` of their patches at 0, the mean colour; ``order`` is from ``patch_order``."""
    return images.masked_fill(order < share, 0)


@torch.no_grad()
def sensitivity(network: nn.Module, images: Tensor, labels: Tensor, *, patch: int, stride: int) -> Tensor:
    """How much the probability of the true class falls when a patch hides each place (Zeiler and Fergus 2014, 4.2).

    Args:
        network: in eval mode, normalised images (B,C,H,W) -> logits.
        patch: side of the square in px; ``stride``: px from one to the next.

    Returns:
        (B,h,w), one value for each position of the patch, in -1..1.
    """

    def probability(batch: Tensor) -> Tensor:
        return network(batch).softmax(1).gather(1, labels[:, None])[:, 0]

    tops, lefts = (range(0, side - patch + 1, stride) for side in images.shape[-2:])
    before, drops = probability(images), []
    for top in tops:
        for left in lefts:
            hidden = images.clone()
            hidden[..., top : top + patch, left : left + patch] = 0
            drops.append(before - probability(hidden))
    return torch.stack(drops, 1).view(len(images), len(tops), len(lefts))


def sensitivity_sheet(runs: Runs, study: Study, *, patch: int, count: int) -> Image.Image:
    """Images of a data set, then a row of sensitivity maps for each run on it."""
    first = runs[0]
    images, labels = next(first.batches(count=min(count, study.count), batch_size=count))
    side = patch_side(images, patch)
    stride = max(1, side // 2)
    unnormalised = first.as_pictures(images)
    pictures = unnormalised.clamp(0, 1).cpu()
    rows = [in_colour(pictures)]
    for run in runs:
        drops = sensitivity(run.network, run.normalise(unnormalised), labels, patch=side, stride=stride)
        # To the size of the image: the centre of the patch never reaches the edge.
        rows.append(overlay(pictures, F.pad(drops[:, None], (round(side / 2 / stride),) * 4, mode="replicate")[:, 0]))
    names = [first.classes[label] for label in labels.tolist()]
    return image_grid(rows, row_labels=["image", *(run.label for run in runs)], column_labels=names, cell_size=96)
