"""Where in an image a network sees a class: class activation maps, for any network of the contract, and pictures of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import matplotlib as mpl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from classify.analysis.masks import pairs_of_two_classes
from classify.analysis.result import Result, Study
from classify.analysis.trained_run import TrainedRun, each
from mixgan.mixing import build_mixer
from mixgan.ops.transforms import resize
from mixgan.report.grid import image_grid
from mixgan.report.plots import line_plot


@torch.no_grad()
def class_activation(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """CAM (Zhou et al. 2016, Eq. 2): at every place of the last feature map, what it adds to the logit of a class.

    The mean over all places plus the classifier's bias is the logit. What a network does between its last stage and the mean (the
    batch norm and ReLU of pre-activation networks) is part of the feature map.

    Args:
        network: in eval mode; its embedding is the spatial mean of what it makes of each place of its last stage.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.

    Returns:
        (B,h,w), of either sign.

    Raises:
        ValueError: the network has no stages, or its embedding is something else.
    """
    features = place_features(network, images)
    return torch.einsum("bchw,bc->bhw", features, network.classifier.weight[classes])


def place_features(network: nn.Module, images: Tensor) -> Tensor:
    """(B,D,h,w), whose spatial mean is the embedding: every place of the last stage as the network would see it alone."""
    last = _stages(network)(images)[-1]
    height, width = last.shape[-2:]
    places = last.permute(0, 2, 3, 1).reshape(-1, last.shape[1], 1, 1)
    try:
        with _replaced_stages(network, lambda _: [places]):
            alone = network.embedding(images)
    except RuntimeError:  # a pooling window that is larger than one place
        alone = None
    features = None if alone is None else alone.view(len(images), height, width, -1).permute(0, 3, 1, 2)
    if features is None or not torch.allclose(features.mean((2, 3)), network.embedding(images), rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"CAM needs a network whose embedding is the mean over its last stage, which {type(network).__name__}'s is not; "
            "Grad-CAM does without"
        )
    return features


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, *, stage: int = 0) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1, 2): a stage's maps weighed by the logit's mean gradient, without negatives.

    Args:
        network: in eval mode, with the stages of the contract; weights may be frozen.
        images: (B,C,H,W), as the network takes them.
        classes: (B,) int64.
        stage: from 1; 0 is the last.

    Returns:
        (B,h,w), not negative. On the last stage of a network whose embedding is that stage's mean it is the positive part of CAM,
        divided by h*w.

    Raises:
        ValueError: the network has no stages or not so many, or its logits are not made of them.
    """
    original, seen = _stages(network), []

    def recorded(x: Tensor) -> list[Tensor]:
        seen.append(original(x))
        return seen[-1]

    with torch.enable_grad(), _replaced_stages(network, recorded):
        scores = network(images.detach().requires_grad_()).gather(1, classes[:, None])
        if not seen:
            raise ValueError(f"{type(network).__name__} does not make its logits of its stages, which Grad-CAM needs")
        check_stage(stage, len(seen[-1]))
        maps = seen[-1][stage - 1]
        (gradient,) = torch.autograd.grad(scores.sum(), maps)
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * maps.detach()).sum(1).clamp(min=0)


def check_stage(stage: int, count: int) -> None:
    """ValueError unless there is such a stage: 0 for the last, else from 1."""
    if not 0 <= stage <= count:
        raise ValueError(f"stage must be 1 to {count} with this network, or 0 for the last, got {stage}")


def normalised(maps: Tensor) -> Tensor:
    """Maps (B,h,w), each scaled to 0..1; a constant one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def enlarged(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Maps (B,h,w) at the size of the images: (B,H,W), bilinear, scaled to 0..1."""
    return normalised(resize(maps[:, None], size)[:, 0])


def overlay(images: Tensor, maps: Tensor) -> Tensor:
    """Pictures (B,3,H,W) of maps (B,h,w), in colour, over gray images (B,C,H,W) in 0..1."""
    heat = mpl.colormaps["inferno"](enlarged(maps, tuple(images.shape[-2:])).cpu().numpy())[..., :3]
    colours = torch.from_numpy(heat).permute(0, 3, 1, 2).float()
    return 0.35 * images.mean(1, keepdim=True).cpu() + 0.65 * colours


def _stages(network: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    stages = getattr(network, "stages", None)
    if stages is None:
        raise ValueError(f"{type(network).__name__} has no stages(); see classify.networks.contract")
    return stages


@contextmanager
def _replaced_stages(network: nn.Module, stages: Callable[[Tensor], list[Tensor]]) -> Iterator[None]:
    """Inside, ``network.embedding`` gets its feature maps from another function."""
    network.stages = stages
    try:
        yield
    finally:
        del network.stages


# Where networks see a class, on plain and on mixed images (LaMix Fig. 7).


Kind = Literal["cam", "grad-cam"]
MixedBy = Literal["mixup", "cutmix"]

CAM_TEXT = """The brighter, the more a place speaks for the class; every map is scaled to its own range. On plain images
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
    result = Result(text=CAM_TEXT, skipped=skipped)
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
    return mixer.mix_images(own, mixer.plan(own, lam=lam, generator=generator), others=partner)


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


# What networks do when parts of an image are hidden: accuracy by the hidden share, and which parts matter.


OCCLUSION_TEXT = """Left of the plot, images are whole; to the right, more and more of their square patches are hidden at random,
filled with the data set's mean colour. The same patches are hidden for all runs, and what is hidden at one share stays
so at the next. The sheet is Zeiler and Fergus's sensitivity (2014): a patch slides over the image, and the brighter a
place, the more the probability of the true class falls where the patch covers it; every map is scaled to its own
range."""
SHARES = tuple(step / 10 for step in range(10))


def occlusion(
    runs: Sequence[TrainedRun],
    study: Study,
    *,
    patch: int = 0,
    images: int = 6,
) -> Result:
    """Accuracy against the share of the image that is hidden, and which places matter.

    Args:
        patch: side of the hidden squares in px; 0 for an eighth of the image.
        images: how many sensitivity maps are shown.

    Raises:
        ValueError: no run can take part, or an option out of range.
    """
    if patch < 0 or images < 1:
        raise ValueError(
            f"--occlusion.patch must be 0 or more and --occlusion.images at least 1, got {patch} and {images}"
        )
    accuracies, skipped = each(runs, lambda run: hidden_accuracies(run, study, patch=patch))
    series = {label: (list(SHARES), values) for label, values in accuracies.items()}
    figure = line_plot(series, title="Accuracy when parts are hidden", x_label="hidden share", y_label="accuracy")
    result = Result(text=OCCLUSION_TEXT, skipped=skipped, numbers={"hidden": list(SHARES), "accuracy": accuracies})
    result.pictures["Accuracy when parts are hidden"] = (figure, "")
    made = [run for run in runs if run.label in accuracies]
    for label, sheet in sensitivity_sheets(made, study, patch=patch, count=images).items():
        result.pictures[f"Sensitive places, {label}"] = (sheet, "How much hiding a place takes from the true class.")
    result.tables["Accuracy by hidden share"] = [
        {"run": label, **{f"{share:.1f}": value for share, value in zip(SHARES, values, strict=True)}}
        for label, values in accuracies.items()
    ]
    return result


def hidden_accuracies(run: TrainedRun, study: Study, *, patch: int) -> list[float]:
    """A run's accuracy on test images at every share of ``SHARES``."""
    network, generator = run.network, torch.Generator().manual_seed(study.seed)
    right, total = torch.zeros(len(SHARES), dtype=torch.float64, device=run.device), 0
    for images, labels in run.batches(count=study.count, batch_size=study.batch_size):
        order = patch_order(images, patch_side(images, patch), generator=generator)
        right += torch.stack([(network(hide(images, order, share)).argmax(1) == labels).sum() for share in SHARES])
        total += len(labels)
    return (right / total).tolist()


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
    count = rows * columns
    place = torch.rand(len(images), count, generator=generator).argsort(1).argsort(1)
    grid = (place / count).view(-1, 1, rows, columns)
    large = grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return large[..., :height, :width].to(images.device)


def hide(images: Tensor, order: Tensor, share: float) -> Tensor:
    """Normalised images with ``share`` of their patches at 0, the mean colour; ``order`` is from ``patch_order``."""
    return torch.where(order < share, torch.zeros_like(images), images)


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

    height, width = images.shape[-2:]
    tops, lefts = (range(0, side - patch + 1, stride) for side in (height, width))
    before = probability(images)
    drops = []
    for top in tops:
        for left in lefts:
            hidden = images.clone()
            hidden[..., top : top + patch, left : left + patch] = 0
            drops.append(before - probability(hidden))
    return torch.stack(drops, 1).view(len(images), len(tops), len(lefts))


def sensitivity_sheets(runs: Sequence[TrainedRun], study: Study, *, patch: int, count: int) -> dict[str, Image.Image]:
    """A sheet for each data set among the runs, by the runs' names: images, then a row of maps for each run."""
    groups: dict[tuple[object, ...], list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault(run.looked_at, []).append(run)
    sheets = {}
    for members in groups.values():
        images, labels = next(members[0].batches(count=min(count, study.count), batch_size=count))
        side = patch_side(images, patch)
        unnormalised = members[0].as_pictures(images)
        pictures = unnormalised.clamp(0, 1).cpu()
        rows = [pictures.expand(-1, 3, -1, -1)]
        for run in members:
            seen = run.normalise(unnormalised)
            drops = sensitivity(run.network, seen, labels, patch=side, stride=max(1, side // 2))
            # to the size of the image, of which the patch's centre never reaches the edge
            edge = round(side / 2 / max(1, side // 2))
            rows.append(overlay(pictures, F.pad(drops[:, None], (edge,) * 4, mode="replicate")[:, 0]))
        names = [members[0].classes[label] for label in labels.tolist()]
        sides = ["image", *(run.label for run in members)]
        sheets[", ".join(sides[1:])] = image_grid(rows, row_labels=sides, column_labels=names, cell_size=96)
    return sheets
