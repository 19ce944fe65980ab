"""How well class activation maps find objects: MaxBoxAcc and MaxBoxAccV2 (AutoMix table 4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from classify.analysis.activation_maps import enlarged, overlay
from classify.analysis.cam import Kind, in_colour, maps
from classify.analysis.component_boxes import THRESHOLDS, box_scores, max_box_acc
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from classify.data import evaluation_boxes
from mixgan.ops.resize import resize
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot

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
