"""Where networks see a class, on plain and on mixed images (LaMix Fig. 7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from classify.analysis.activation_maps import class_activation, enlarged, grad_cam, overlay
from classify.analysis.masks import pairs_of_two_classes
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from mixgan.mixing import build_mixer
from mixgan.report.grid import image_grid

Kind = Literal["cam", "grad-cam"]
MixedBy = Literal["mixup", "cutmix"]

TEXT = """The brighter, the more a place speaks for the class; every map is scaled to its own range. On plain images
the class is the true one. Mixed images hold two: their maps show whether a network finds each of them where it is. The
table has the mean share of an image where a map is above half of its range: the narrower the regions that a network
looks at, the smaller."""
MIXED_SHARE = 0.5


@dataclass(frozen=True)
class Maps:
    """A run's maps: of plain images (N,h,w), of mixed ones for the own and the partner's class (P,h,w); and the mean area."""

    plain: Tensor
    own: Tensor
    partner: Tensor
    area: float


def cam(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    kind: Kind = "cam",
    stage: int = 0,
    images: int = 8,
    mixed_by: MixedBy = "mixup",
) -> Result:
    """Class activation maps (CAM or Grad-CAM) of test images and of mixtures of them.

    Args:
        kind: cam: of the last stage, for networks that average it; grad-cam: of any stage of any network.
        stage: whose feature maps, from 1; 0 is the last.
        images: plain images, and mixed ones, that are shown.
        mixed_by: how two images are mixed, at lambda 0.5.

    Raises:
        ValueError: no run can take part, or an option out of range.
    """
    check_options(kind=kind, stage=stage, images=images, mixed_by=mixed_by)
    first = runs[0]
    batch, labels = next(first.batches(count=4 * images, batch_size=4 * images))
    pairs = pairs_of_two_classes(labels.cpu(), images, seed=study.seed).to(labels.device)
    mixed = mix_halves(batch, pairs, mixed_by, seed=study.seed)

    plain, partners, blends = (first.as_pictures(x) for x in (batch[pairs[:, 0]], batch[pairs[:, 1]], mixed))

    def maps_of(run: TrainedRun) -> Maps:
        if run.looked_at != first.looked_at:
            raise ValueError(
                f"{run.label} was trained on other images than {first.label}, so it is not compared with it"
            )
        network = run.network
        seen = run.normalise(blends)
        own, partner = (maps(network, seen, labels[pairs[:, side]], kind, stage) for side in (0, 1))
        alone = maps(network, run.normalise(plain), labels[pairs[:, 0]], kind, stage)
        return Maps(alone, own, partner, mean_area(run, study, kind, stage))

    made, skipped = each(runs, maps_of)
    plain, partners, blends = (pictures.clamp(0, 1) for pictures in (plain, partners, blends))
    names = [[first.classes[label] for label in labels[side].tolist()] for side in pairs.T]
    result = Result(text=TEXT, skipped=skipped)
    result.pictures["Plain images"] = (plain_sheet(plain, made, names[0]), "Maps of the true class.")
    sheet = mixed_sheet((plain, partners, blends), made, [f"{a}\n{b}" for a, b in zip(*names, strict=True)])
    result.pictures["Mixed images"] = (
        sheet,
        f"Mixed by {mixed_by} at lambda 0.5; maps of the own and of the partner's class.",
    )
    result.tables["Area of the maps"] = [
        {"run": label, "share above half": shown.area} for label, shown in made.items()
    ]
    result.numbers = {"kind": kind, "stage": stage, "area": {label: shown.area for label, shown in made.items()}}
    return result


def check_options(*, kind: str, stage: int, images: int, mixed_by: str) -> None:
    """ValueError for an option of the figure that is out of range."""
    if kind not in get_args(Kind) or mixed_by not in get_args(MixedBy) or images < 1:
        raise ValueError(f"--cam.kind, --cam.mixed-by or --cam.images is out of range: {kind}, {mixed_by}, {images}")
    if kind == "cam" and stage != 0:
        raise ValueError(f"--cam.stage {stage} needs --cam.kind grad-cam: CAM is of the last stage")


def maps(network: nn.Module, images: Tensor, classes: Tensor, kind: Kind, stage: int) -> Tensor:
    """Maps (B,h,w) of the classes (B,) in images (B,C,H,W); ``stage`` is Grad-CAM's."""
    if kind == "cam":
        return class_activation(network, images, classes)
    return grad_cam(network, images, classes, stage=stage)


def mix_halves(batch: Tensor, pairs: Tensor, mixed_by: MixedBy, *, seed: int) -> Tensor:
    """The pairs (P,2) of a batch, mixed at lambda 0.5: (P,C,H,W)."""
    mixer = build_mixer(mixed_by, num_classes=1)
    own, partner = batch[pairs[:, 0]], batch[pairs[:, 1]]
    generator = torch.Generator(batch.device).manual_seed(seed)
    lam = torch.full((len(own),), MIXED_SHARE, device=batch.device)
    return mixer.apply(own, mixer.plan(own, lam=lam, generator=generator), others=partner)


def mean_area(run: TrainedRun, study: Study, kind: Kind, stage: int) -> float:
    """The mean share of a test image where the map of its class is above half of its range."""
    network, areas = run.network, []
    for images, labels in run.batches(count=study.count, batch_size=study.batch_size):
        large = enlarged(maps(network, images, labels, kind, stage), tuple(images.shape[-2:]))
        areas.append((large > 0.5).float().mean((1, 2)))
    return float(torch.cat(areas).mean())


def plain_sheet(images: Tensor, made: dict[str, Maps], names: Sequence[str]) -> Image.Image:
    """The images, then a row of maps for each run."""
    rows = [images.cpu(), *(overlay(images, shown.plain) for shown in made.values())]
    return image_grid(in_colour(rows), row_labels=["image", *made], column_labels=names, cell_size=96)


def mixed_sheet(images: tuple[Tensor, Tensor, Tensor], made: dict[str, Maps], names: Sequence[str]) -> Image.Image:
    """Own image, partner and mixture, then two rows of maps for each run."""
    rows, sides = [x.cpu() for x in images], ["own", "partner", "mixed"]
    for label, shown in made.items():
        rows += [overlay(images[2], shown.own), overlay(images[2], shown.partner)]
        sides += [f"{label}: own class", f"{label}: partner's class"]
    return image_grid(in_colour(rows), row_labels=sides, column_labels=names, cell_size=96)


def in_colour(rows: Sequence[Tensor]) -> list[Tensor]:
    """Rows (N,1,H,W) or (N,3,H,W), all with 3 channels."""
    return [row.expand(-1, 3, -1, -1) for row in rows]
