"""Where in an image a network sees a class: class activation maps (LaMix Fig. 7), and how well they find objects.

Localization: MaxBoxAcc and MaxBoxAccV2 (AutoMix table 4; Choe et al. 2020).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from classify.analysis.masks import pairs_of_two_classes
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import Runs, TrainedRun, each
from classify.data import evaluation_boxes
from mixgan.engine.annotations import AtLeast1
from mixgan.mixing import build_mixer
from mixgan.mixing.mixer import Fidelity
from mixgan.ops.transforms import resize
from mixgan.report.plots import image_grid

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

    def maps_of(run: TrainedRun) -> tuple[Tensor, Tensor, Tensor, float]:
        """Of the plain images (P,h,w), of the mixed ones for the own and the partner's class; and the mean area."""
        if run.image_source != first.image_source:
            raise ValueError(
                f"{run.label} was trained on other images than {first.label}, so it is not compared with it"
            )
        network = run.network
        own, partner = (class_maps(network, run.normalise(blends), labels[side], kind, stage) for side in pairs.T)
        alone = class_maps(network, run.normalise(plain), labels[pairs[:, 0]], kind, stage)
        return alone, own, partner, mean_area(run, study, kind, stage)

    found, warnings = each(runs, maps_of)
    areas = {label: area for label, (*_, area) in found.items()}
    names = [[first.classes[label] for label in labels[side].tolist()] for side in pairs.T]
    plain, partners, blends = (in_colour(pictures.clamp(0, 1).cpu()) for pictures in (plain, partners, blends))
    result = Result(text=CAM_TEXT, warnings=warnings)
    rows = [plain, *(overlay(plain, alone) for alone, *_ in found.values())]
    sheet = image_grid(rows, row_labels=["image", *found], column_labels=names[0], cell_size=96)
    result.pictures["Plain images"] = (sheet, "Maps of the true class.")
    rows, sides = [plain, partners, blends], ["own", "partner", "mixed"]
    for label, (_, of_own, of_partner, _) in found.items():
        rows += [overlay(blends, of_own), overlay(blends, of_partner)]
        sides += [f"{label}: own class", f"{label}: partner's class"]
    both = [f"{own}\n{partner}" for own, partner in zip(*names, strict=True)]
    caption = f"Mixed by {mixed_by} at lambda 0.5; maps of the own and of the partner's class."
    sheet = image_grid(rows, row_labels=sides, column_labels=both, cell_size=96)
    result.pictures["Mixed images"] = (sheet, caption)
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


# ---- The figure localization: boxes found by the maps (AutoMix table 4)

LOCALIZATION_TEXT = """The map of the true class, enlarged to 224 px and scaled to 0..1, is cut at thresholds 0, 0.001, ...
0.999; each connected component gives a box. MaxBoxAccV2 (Choe et al. 2020): the share of images where some box overlaps the true
one enough, at the best threshold for the whole set, averaged over the overlaps 0.3, 0.5 and 0.7; MaxBoxAcc: of the largest
component only, overlap 0.5. The row "centre" is a map that knows nothing but the middle of the image. Components are joined at
corners too; boxes are inclusive pixels."""
TEXT_PUBLISHED = """ Boxes are those of the published code: of maps of 8 bits, of components and of their holes, one pixel wider
and higher; the largest component is that whose outline encloses most."""
SIZE = 224
THRESHOLDS = 1000
OVERLAPS = (0.3, 0.5, 0.7)
SHOWN = 6
TRUE_COLOUR, FOUND_COLOUR = (1.0, 1.0, 1.0), (0.34, 0.71, 0.91)


@dataclass(frozen=True)
class Boxes:
    """The boxes of a map's components, at all thresholds.

    Attributes:
        threshold: (n,) int64, the index of each component's threshold, ascending.
        edges: (n,4), first and last pixel x0, y0, x1, y1 of its box.
        largest: (T,4), the box of the component with the most pixels; 0, 0, -1, -1 where nothing is above the threshold.
    """

    threshold: Tensor
    edges: Tensor
    largest: Tensor

    def scores(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Overlap with a true box (4,): of the best component at every threshold (T,), and of the largest one (T,)."""
        best = torch.zeros(THRESHOLDS)
        best.scatter_reduce_(0, self.threshold, intersection_over_union(self.edges, truth), "amax")
        return best, intersection_over_union(self.largest, truth)


def component_boxes(heat: Tensor) -> Boxes:
    """Boxes of the components of ``heat > threshold`` for a map (H,W) in 0..1, at the thresholds 0, 0.001, ... 0.999.

    Components are labelled only where a threshold makes one vanish, above its highest pixel, or split: between such thresholds
    they keep their labels and lose pixels.
    """
    values = heat.float().cpu().numpy()
    levels = np.ceil(values * THRESHOLDS).astype(np.int64) - 1  # a pixel is above the thresholds 0..level
    peaks = np.unique(levels[values == ndimage.maximum_filter(values, 3)])
    pixels = torch.cartesian_prod(*map(torch.arange, heat.shape)).flip(1)
    largest = torch.tensor([0, 0, -1, -1]).repeat(THRESHOLDS, 1)
    thresholds, edges = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4, dtype=torch.int64)]
    start = 0
    while start <= peaks[-1]:
        labels, count = ndimage.label(levels >= start, structure=np.ones((3, 3)))
        last = int(peaks[np.searchsorted(peaks, start)])  # up to here no component vanishes, so the number only grows
        stop = start + bisect_right(
            range(start, last + 1), count, key=lambda t: ndimage.label(levels >= t, structure=np.ones((3, 3)))[1]
        )
        above = torch.from_numpy(labels.ravel() > 0)
        place = torch.from_numpy(levels.clip(max=stop - 1) - start).view(-1)[above]
        place = place * count + torch.from_numpy(labels.astype(np.int64)).view(-1)[above] - 1
        corners = torch.cat((-pixels[above], pixels[above]), 1)
        boxes = torch.full(((stop - start) * count, 4), -max(heat.shape))
        boxes = boxes.scatter_reduce(0, place[:, None].expand(-1, 4), corners, "amax").view(-1, count, 4)
        boxes = boxes.flip(0).cummax(0).values.flip(0) * torch.tensor([-1, -1, 1, 1])
        sizes = place.bincount(minlength=(stop - start) * count).view(-1, count).flip(0).cumsum(0).flip(0)
        largest[start:stop] = boxes[torch.arange(stop - start), sizes.argmax(1)]
        thresholds.append(torch.arange(start, stop).repeat_interleave(count))
        edges.append(boxes.flatten(0, 1))
        start = stop
    return Boxes(torch.cat(thresholds), torch.cat(edges), largest)


def published_boxes(heat: Tensor) -> Boxes:
    """Boxes of a map (H,W) in 0..1 as Choe et al.'s code has them, which takes OpenCV's contours.

    Maps have 8 bits. A hole has a box too, that of the pixels around it. Boxes reach one pixel further to the right and down,
    inside the map. The largest component is that whose outline, through the centres of its pixels, encloses the largest area.
    """
    values = (heat.float().cpu().numpy() * 255).astype(np.uint8)
    cuts = (np.arange(0, 1, 1 / THRESHOLDS) * values.max()).astype(np.int64)
    end = np.array(values.shape[::-1]) - 1
    largest = torch.tensor([0, 0, -1, -1]).repeat(THRESHOLDS, 1)
    thresholds, edges = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4, dtype=torch.int64)]
    for cut in np.unique(cuts):
        above = values > cut
        labels, count = ndimage.label(above, structure=np.ones((3, 3)))
        if count == 0:
            continue
        around = np.pad(~above, 1, constant_values=True)  # joins what touches the border; a hole's box includes its rim
        holes = [place for place in ndimage.find_objects(ndimage.label(around)[0]) if place[0].start > 0]
        components = ndimage.find_objects(labels)
        corners = [(x.start, y.start, x.stop, y.stop) for y, x in components]
        corners += [(x.start - 2, y.start - 2, x.stop, y.stop) for y, x in holes]
        boxes = np.array(corners)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], end)
        areas = [enclosed_area(labels[place] == number) for number, place in enumerate(components, 1)]
        at = torch.from_numpy(np.flatnonzero(cuts == cut))
        largest[at] = torch.from_numpy(boxes[int(np.argmax(areas))])
        thresholds.append(at.repeat_interleave(len(boxes)))
        edges.append(torch.from_numpy(boxes).repeat(len(at), 1))
    return Boxes(torch.cat(thresholds), torch.cat(edges), largest)


def enclosed_area(component: np.ndarray) -> float:
    """The area inside the outline through the centres of a component's pixels (H,W): OpenCV's contourArea of it."""
    filled = ndimage.binary_fill_holes(component).astype(np.int64)
    corners = (
        filled[:-1, :-1] + filled[:-1, 1:] + filled[1:, :-1] + filled[1:, 1:]
    )  # of each square between four centres
    return float((corners == 4).sum() + (corners == 3).sum() / 2)


BOXES_BY: dict[Fidelity, Callable[[Tensor], Boxes]] = {"formula": component_boxes, "published": published_boxes}


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Of boxes (...,4) x0, y0, x1, y1 in inclusive pixels, broadcast against each other: (...), float32."""
    first, last = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    shared = (last - first + 1).clamp(min=0).prod(-1)
    areas = [(some[..., 2:] - some[..., :2] + 1).clamp(min=0).prod(-1) for some in (boxes, others)]
    return (shared / (areas[0] + areas[1] - shared)).float()


def max_box_acc(scores: Tensor, overlap: float) -> tuple[float, int]:
    """The share of maps whose overlap (N,T) is at least ``overlap``, at the one threshold where most are, and which one."""
    shares = (scores >= overlap).float().mean(0)
    best = int(shares.argmax())
    return float(shares[best]), best


@dataclass(frozen=True)
class Found:
    """Overlaps (N,T) of a run's best and largest boxes; of the first images the largest boxes (n,T,4) and maps (n,224,224)."""

    best: Tensor
    largest: Tensor
    boxes: Tensor
    heat: Tensor


def localization(
    runs: Runs, study: Study, *, kind: Kind = "cam", stage: int = 0, fidelity: Fidelity = "formula"
) -> Result:
    """MaxBoxAcc and MaxBoxAccV2 of class activation maps, on sets with boxes (cub-200, tiles).

    Args:
        kind: cam or grad-cam, as of the figure cam.
        stage: whose feature maps, from 1; 0 is the last.
        fidelity: formula, or published for the boxes of the published code.
    """
    boxes_of = BOXES_BY[fidelity]
    found, warnings = each(runs, lambda run: found_boxes(run, study, kind=kind, stage=stage, boxes_of=boxes_of))
    first = next(run for run in runs if run.label in found)
    with_centre = {**found, "centre": centre_boxes(true_boxes(first, study), boxes_of)}
    rows = {label: localization_metrics(scores) for label, scores in with_centre.items()}
    thresholds = [step / THRESHOLDS for step in range(THRESHOLDS)]
    curves = {
        label: (thresholds, (scores.best >= 0.5).float().mean(0).tolist()) for label, scores in with_centre.items()
    }
    metrics = {"figures": rows, "thresholds": thresholds, "found": {label: y for label, (_, y) in curves.items()}}
    text = LOCALIZATION_TEXT + (TEXT_PUBLISHED if fidelity == "published" else "")
    result = Result(text=text, warnings=warnings, metrics=metrics)
    result.add_table("Localization", rows)
    result.add_lines("Boxes found by threshold", curves, x_label="threshold", y_label="share of images, overlap 0.5")
    for run in runs:
        if run.label in found:
            caption = f"{run.label}: the true box white, the largest component's blue, at the threshold of MaxBoxAcc."
            result.pictures[f"{run.label}: boxes"] = (box_sheet(run, found[run.label], study), caption)
    return result


def localization_metrics(found: Found) -> dict[str, float]:
    """MaxBoxAccV2, its parts by overlap, and MaxBoxAcc, all 0..1."""
    parts = {f"overlap {overlap:g}": max_box_acc(found.best, overlap)[0] for overlap in OVERLAPS}
    return {"MaxBoxAccV2": sum(parts.values()) / len(parts), **parts, "MaxBoxAcc": max_box_acc(found.largest, 0.5)[0]}


def true_boxes(run: TrainedRun, study: Study) -> Tensor:
    """(N,4) first and last pixel of the boxes of the study's test images, at 224 px; ValueError for a set without boxes."""
    edges = evaluation_boxes(run.sample(study.count)) * (SIZE / run.metadata["image_size"])
    return torch.cat((edges[:, :2], edges[:, 2:] - 1), 1)


def is_visible(box: Tensor) -> bool:
    """Whether the image shows something of its box; images that do not are left out."""
    return bool((box[2:] >= box[:2]).all())


def found_boxes(run: TrainedRun, study: Study, *, kind: Kind, stage: int, boxes_of: Callable[[Tensor], Boxes]) -> Found:
    """A run's maps of the true classes against the true boxes."""
    network, truth = run.network, iter(true_boxes(run, study))
    scores: list[tuple[Tensor, Tensor]] = []
    boxes: list[Tensor] = []
    heat: list[Tensor] = []
    for images, labels in study.batches(run, progress="localization"):
        for one in enlarged(class_maps(network, images, labels, kind, stage), SIZE):
            found, box = boxes_of(one), next(truth)
            if is_visible(box):
                scores.append(found.scores(box))
            if len(heat) < SHOWN:
                boxes.append(found.largest)
                heat.append(one.cpu())
    best, largest = (torch.stack(values) for values in zip(*scores, strict=True))
    return Found(best, largest, torch.stack(boxes), torch.stack(heat))


def centre_boxes(truth: Tensor, boxes_of: Callable[[Tensor], Boxes] = component_boxes) -> Found:
    """What a map that falls with the distance from the middle finds of true boxes (N,4)."""
    places = torch.linspace(-1, 1, SIZE)
    middle = 1 - (places[:, None] ** 2 + places**2).sqrt() / 2**0.5
    found = boxes_of(middle)
    scores = [found.scores(box) for box in truth if is_visible(box)]
    best, largest = (torch.stack(values) for values in zip(*scores, strict=True))
    return Found(best, largest, found.largest[None], middle[None])


def box_sheet(run: TrainedRun, found: Found, study: Study) -> Image.Image:
    """The first images with their true boxes, and their maps with the boxes found."""
    count = len(found.heat)
    images, labels = next(run.batches(count=study.count, batch_size=count))
    large = resize(run.as_pictures(images).clamp(0, 1).cpu(), SIZE, mode="nearest")
    truth = true_boxes(run, study)[:count]
    chosen = found.boxes[:, max_box_acc(found.largest, 0.5)[1]]
    heat = framed(framed(overlay(large, found.heat), truth, TRUE_COLOUR), chosen, FOUND_COLOUR)
    rows = [framed(in_colour(large), truth, TRUE_COLOUR), heat]
    names = [run.classes[label] for label in labels.tolist()]
    return image_grid(rows, row_labels=["image", run.label], column_labels=names, cell_size=96)


def framed(pictures: Tensor, boxes: Tensor, colour: tuple[float, float, float], *, line: int = 4) -> Tensor:
    """Pictures (B,3,H,W) with boxes (B,4) drawn into them, in lines of this many px."""
    rows, columns = (torch.arange(side) for side in pictures.shape[-2:])
    x0, y0, x1, y1 = (edge.view(-1, 1) for edge in boxes.round().T)

    def inside(margin: int) -> Tensor:
        in_rows = (rows >= y0 + margin) & (rows <= y1 - margin)
        in_columns = (columns >= x0 + margin) & (columns <= x1 - margin)
        return (in_rows[:, :, None] & in_columns[:, None])[:, None]

    return torch.where(inside(0) & ~inside(line), torch.tensor(colour).view(3, 1, 1), pictures)
