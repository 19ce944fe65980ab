"""Boxes around what a map shows: those of its connected components, at every threshold at once.

At a threshold, the pixels above it form components (of pixels that touch, also at corners). Over all thresholds they are
unions of few basins, one around each peak of the map: every pixel climbs to a peak through higher pixels, so what is left of a
basin at a threshold hangs together; and two basins are one component up to the highest saddle on the way between them. So each
map is looked at once, and not once for each threshold; only batched tensor operations are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from classify.analysis.activation_maps import Kind, enlarged, in_colour, maps, overlay
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.data import evaluation_boxes
from mixgan.ops.transforms import resize
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot

THRESHOLDS = 1000
#: numbers held at once for a batch of maps: images * peaks * thresholds
_AT_ONCE = 4_000_000


class BoxScores(NamedTuple):
    """How well a map's boxes fit, at the thresholds 0, 0.001, ... 0.999.

    Attributes:
        best: (B,T), the largest intersection over union of a component's box with the true box; 0 where nothing is above.
        largest: (B,T), that of the component with the most pixels.
        boxes: (B,T,4), its first and last pixel x0, y0, x1, y1.
    """

    best: Tensor
    largest: Tensor
    boxes: Tensor


def box_scores(maps: Tensor, truth: Tensor) -> BoxScores:
    """Boxes of the components of ``maps > threshold`` against true ones.

    Args:
        maps: (B,H,W) in 0..1.
        truth: (B,4), first and last pixel x0, y0, x1, y1 of the true boxes; pixels are inclusive.
    """
    levels = (maps.float() * THRESHOLDS).ceil().long() - 1  # a pixel is above the thresholds 0..level
    basins, peaks = basins_of(maps, levels)
    part = max(1, _AT_ONCE // (peaks * THRESHOLDS))
    scores = [
        _scores(*pieces, peaks)
        for pieces in zip(levels.split(part), basins.split(part), truth.split(part), strict=True)
    ]
    return BoxScores(*map(torch.cat, zip(*scores, strict=True)))


def basins_of(maps: Tensor, levels: Tensor) -> tuple[Tensor, int]:
    """The basin (B,H,W) of every pixel, from 0, one for each peak, and the largest number of peaks in a map."""
    batch, height, width = maps.shape
    # Ranks and not values: no two neighbours are alike, so every climb ends.
    order = maps.flatten(1).argsort(dim=1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(height * width, device=maps.device).expand(batch, -1)
    )
    _, higher = F.max_pool2d(rank.view(batch, 1, height, width).double(), 3, 1, 1, return_indices=True)
    higher = higher.flatten(1)
    here = torch.arange(height * width, device=maps.device)
    peak = (higher == here) & (levels.flatten(1) >= 0)
    while not torch.equal(further := higher.gather(1, higher), higher):
        higher = further
    number = (peak.cumsum(1) - 1).clamp(min=0)
    return number.gather(1, higher).view_as(maps), max(1, int(peak.sum(1).max()))


def saddles_of(levels: Tensor, basins: Tensor, peaks: int) -> Tensor:
    """(B,P,P): up to which level two basins are one component, directly or through others; -1 for never. Diagonal: the peaks."""
    batch, height, width = levels.shape
    joined = torch.full((batch, peaks * peaks), -1, device=levels.device)
    here = basins * peaks + basins
    joined.scatter_reduce_(1, here.flatten(1), levels.flatten(1), "amax")
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = (slice(None), slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        b = (slice(None), slice(down, height), slice(max(0, right), width - max(0, -right)))
        lower = torch.minimum(levels[a], levels[b]).flatten(1)
        for first, second in ((a, b), (b, a)):
            pair = basins[first] * peaks + basins[second]
            joined.scatter_reduce_(1, pair.flatten(1), lower, "amax")
    joined = joined.view(batch, peaks, peaks)
    for via in range(peaks):
        joined = torch.maximum(joined, torch.minimum(joined[:, :, via, None], joined[:, None, via]))
    return joined


def _scores(levels: Tensor, basins: Tensor, truth: Tensor, peaks: int) -> BoxScores:
    joined = saddles_of(levels, basins, peaks)
    edges, sizes = _basin_boxes(levels, basins, peaks)
    thresholds = torch.arange(THRESHOLDS, device=levels.device)
    outer, count = torch.full_like(edges, _FAR), torch.zeros_like(sizes)
    for other in range(peaks):
        member = joined[:, :, other, None] >= thresholds  # (B,P,T): the other basin is in the component of each
        outer = torch.where(member, torch.minimum(outer, edges[:, :, other, None]), outer)
        count += member * sizes[:, other, None]
    boxes = torch.stack((outer[0], outer[1], -outer[2], -outer[3]), -1)
    overlap = torch.where(count > 0, intersection_over_union(boxes, truth[:, None, None]), 0.0)
    largest = count.argmax(1, keepdim=True)
    chosen = boxes.gather(1, largest[..., None].expand(-1, -1, -1, 4))[:, 0]
    return BoxScores(overlap.amax(1), overlap.gather(1, largest)[:, 0], chosen)


#: beyond any pixel; edges of nothing
_FAR = 1 << 20


def _basin_boxes(levels: Tensor, basins: Tensor, peaks: int) -> tuple[Tensor, Tensor]:
    """(4,B,P,T): x0, y0, -x1, -y1 of what is left of every basin at every threshold; (B,P,T): its number of pixels."""
    batch, height, width = levels.shape
    cell = (basins * THRESHOLDS + levels.clamp(min=0)).flatten(1)
    inside = (levels >= 0).flatten(1)
    y, x = torch.meshgrid(*(torch.arange(side, device=levels.device) for side in (height, width)), indexing="ij")
    edges = []
    for places in (x, y, -x, -y):
        values = torch.where(inside, places.flatten(), _FAR)
        empty = torch.full((batch, peaks * THRESHOLDS), _FAR, device=levels.device)
        edges.append(empty.scatter_reduce_(1, cell, values, "amin").view(batch, peaks, THRESHOLDS))
    lowest = torch.stack(edges).flip(3).cummin(3).values.flip(3)
    empty = torch.zeros(batch, peaks * THRESHOLDS, dtype=torch.int64, device=levels.device)
    sizes = empty.scatter_add_(1, cell, inside.long()).view(batch, peaks, THRESHOLDS)
    return lowest, sizes.flip(2).cumsum(2).flip(2)


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Of boxes (...,4) x0, y0, x1, y1 in inclusive pixels, broadcast against each other: (...), float32."""
    first, last = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    shared = (last - first + 1).clamp(min=0).prod(-1)
    areas = [(some[..., 2:] - some[..., :2] + 1).clamp(min=0).prod(-1) for some in (boxes, others)]
    return (shared / (areas[0] + areas[1] - shared)).float()


def max_box_acc(scores: Tensor, overlap: float) -> tuple[float, int]:
    """The share of maps whose overlap (B,T) is at least ``overlap``, at the one threshold where most are, and which one."""
    shares = (scores >= overlap).float().mean(0)
    best = int(shares.argmax())
    return float(shares[best]), best


# How well class activation maps find objects: MaxBoxAcc and MaxBoxAccV2 (AutoMix table 4).


TEXT = """The map of the true class, enlarged to 224 px and scaled to 0..1, is cut at thresholds 0, 0.001, ... 0.999;
each connected part above gives a box. MaxBoxAccV2 (Choe et al. 2020): the share of images where some part's box
overlaps the true one enough, at the best threshold for the whole set, averaged over the overlaps 0.3, 0.5 and 0.7;
MaxBoxAcc: of the largest part only, overlap 0.5. The row "centre" is a map that knows nothing but the middle of the
image: what a network finds shows above it. Components are joined at corners too; boxes are inclusive pixels (the
published code makes them one pixel wider)."""
SIZE = 224
OVERLAPS = (0.3, 0.5, 0.7)
SHOWN = 6
TRUE_COLOUR, FOUND_COLOUR = (1.0, 1.0, 1.0), (0.34, 0.71, 0.91)


@dataclass(frozen=True)
class Found:
    """What a run's maps find: overlaps (N,T) of the best and of the largest part, and its boxes and map in the first images."""

    best: Tensor
    largest: Tensor
    boxes: Tensor
    heat: Tensor


def localization(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    kind: Kind = "cam",
    stage: int = 0,
) -> Result:
    """MaxBoxAcc and MaxBoxAccV2 of class activation maps, on sets with boxes (cub-200, tiles).

    Args:
        kind: cam or grad-cam, as of the figure cam.
        stage: whose feature maps, from 1; 0 is the last.

    Raises:
        ValueError: no run can take part.
    """
    if kind == "cam" and stage != 0:
        raise ValueError(f"--localization.stage {stage} needs --localization.kind grad-cam: CAM is of the last stage")
    found, skipped = each(runs, lambda run: found_boxes(run, study, kind=kind, stage=stage))
    first = next(run for run in runs if run.label in found)
    found_by = {**found, "centre": centre_boxes(true_boxes(first, study), study)}
    result = Result(text=TEXT, skipped=skipped)
    rows = {label: figures(scores) for label, scores in found_by.items()}
    result.tables["Localization"] = [{"run": label, **row} for label, row in rows.items()]
    thresholds = [step / THRESHOLDS for step in range(THRESHOLDS)]
    curves = {label: (thresholds, (scores.best >= 0.5).float().mean(0).tolist()) for label, scores in found_by.items()}
    result.pictures["Boxes found by threshold"] = (
        line_plot(curves, title="Boxes found at overlap 0.5", x_label="threshold", y_label="share of images"),
        "",
    )
    for run in runs:
        if run.label in found:
            result.pictures[f"{run.label}: boxes"] = (
                box_sheet(run, found[run.label], study),
                f"{run.label}: the true box white, that of the largest part blue, at the threshold of MaxBoxAcc.",
            )
    result.numbers = {
        "figures": rows,
        "thresholds": thresholds,
        "found": {label: y for label, (_, y) in curves.items()},
    }
    return result


def figures(found: Found) -> dict[str, float]:
    """MaxBoxAccV2, its parts by overlap, and MaxBoxAcc, all 0..1."""
    parts = {f"overlap {overlap:g}": max_box_acc(found.best, overlap)[0] for overlap in OVERLAPS}
    return {"MaxBoxAccV2": sum(parts.values()) / len(parts), **parts, "MaxBoxAcc": max_box_acc(found.largest, 0.5)[0]}


def true_boxes(run: TrainedRun, study: Study) -> Tensor:
    """(N,4) first and last pixel of the boxes of the study's test images, at 224 px; ValueError for a set without boxes."""
    size = run.about["image_size"]
    edges = evaluation_boxes(run.sample(study.count)) * (SIZE / size)
    return torch.cat((edges[:, :2], edges[:, 2:] - 1), 1)


def found_boxes(run: TrainedRun, study: Study, *, kind: Literal["cam", "grad-cam"], stage: int) -> Found:
    """A run's maps of the true classes against the true boxes; images that show nothing of their box are left out."""
    network, truth = run.network, true_boxes(run, study)
    best, largest, shown, heat = [], [], None, None
    with study.progress(f"localization: {run.label}", -(-len(truth) // study.batch_size)) as bar:
        done = 0
        for images, labels in run.batches(count=study.count, batch_size=study.batch_size):
            large = enlarged(maps(network, images, labels, kind, stage), SIZE)
            boxes = truth[done : done + len(images)].to(images.device)
            scores = box_scores(large, boxes)
            seen = (boxes[:, 2:] >= boxes[:, :2]).all(1)
            best.append(scores.best[seen].cpu())
            largest.append(scores.largest[seen].cpu())
            if shown is None:
                shown, heat = scores.boxes[:SHOWN].cpu(), large[:SHOWN].cpu()
            done += len(images)
            bar.advance(1)
    return Found(torch.cat(best), torch.cat(largest), shown, heat)


def centre_boxes(truth: Tensor, study: Study) -> Found:
    """What a map that falls with the distance from the middle finds of true boxes (N,4)."""
    truth = truth[(truth[:, 2:] >= truth[:, :2]).all(1)]
    places = torch.linspace(-1, 1, SIZE)
    middle = 1 - (places[:, None] ** 2 + places**2).sqrt() / 2**0.5
    scores = [box_scores(middle.expand(len(part), -1, -1), part) for part in truth.split(study.batch_size)]
    best, largest, boxes = map(torch.cat, zip(*scores, strict=True))
    return Found(best, largest, boxes[:SHOWN], middle.expand(min(SHOWN, len(truth)), -1, -1))


def box_sheet(run: TrainedRun, found: Found, study: Study) -> Image.Image:
    """The first images with their true boxes, and their maps with the boxes found."""
    count = len(found.heat)
    images, labels = next(run.batches(count=study.count, batch_size=count))
    large = resize(run.as_pictures(images).clamp(0, 1).cpu(), SIZE, mode="nearest")
    (plain,) = in_colour([large])
    truth = true_boxes(run, study)[:count]
    chosen = found.boxes[:, max_box_acc(found.largest, 0.5)[1]]
    heat = framed(framed(overlay(large, found.heat), truth, TRUE_COLOUR), chosen, FOUND_COLOUR)
    names = [run.classes[label] for label in labels.tolist()]
    rows = [framed(plain, truth, TRUE_COLOUR), heat]
    return image_grid(rows, row_labels=["image", run.label], column_labels=names, cell_size=96)


def framed(pictures: Tensor, boxes: Tensor, colour: tuple[float, float, float], *, line: int = 4) -> Tensor:
    """Pictures (B,3,H,W) with boxes (B,4) drawn into them, in lines of so many px."""
    rows, columns = (torch.arange(side) for side in pictures.shape[-2:])
    x0, y0, x1, y1 = (edge.view(-1, 1) for edge in boxes.round().T)

    def inside(margin: int) -> Tensor:
        in_rows = (rows >= y0 + margin) & (rows <= y1 - margin)
        in_columns = (columns >= x0 + margin) & (columns <= x1 - margin)
        return (in_rows[:, :, None] & in_columns[:, None])[:, None]

    return torch.where(inside(0) & ~inside(line), torch.tensor(colour).view(3, 1, 1), pictures)
