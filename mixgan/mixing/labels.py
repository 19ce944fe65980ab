"""What mixing makes of labels other than classes: label maps, boxes, several labels, numbers; and partners chosen by label.

``Mixer`` calls these functions; ``choose_partner`` and ``MixedBoxes`` are public by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mixgan.mixing.sampling import is_eager_cpu
from mixgan.ops.transforms import resize

#: what labels are: one class of K, any of K labels at once, or numbers
LabelKind = Literal["class", "multi-label", "value"]
#: what a label's weight follows: the area that shows its image, or the share of its image's saliency that is shown
LabelBy = Literal["area", "saliency"]
#: how partners are chosen by label
PartnerPolicy = Literal["same", "other", "balanced", "nearest"]
_POLICIES = get_args(PartnerPolicy)  # here: torch 2.6 does not compile the call


def class_targets(
    labels: Tensor, other_labels: Tensor | None, sources: Tensor, weights: Tensor, classes: int
) -> Tensor:
    """(B,K) float32 from (B,) class indices or (B,K) soft labels; rows sum to 1."""
    count = len(weights)
    soft = labels.shape == (count, classes)
    if not soft and (labels.shape != (count,) or labels.is_floating_point()):
        raise ValueError(
            f"labels must be ({count},) class indices or ({count}, {classes}) soft labels, "
            f"got {tuple(labels.shape)} {labels.dtype}"
        )
    columns = source_labels(labels, other_labels, sources)
    if soft:
        return (weights[:, :, None] * columns.float()).sum(1)
    columns = columns.long()
    if is_eager_cpu(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < classes:
        wrong = columns[(columns < 0) | (columns >= classes)][0].item()
        raise ValueError(
            f"labels must be class indices from 0 to num_classes - 1 = {classes - 1}, got {wrong}; leave samples without a class"
            " out of the batch"
        )
    # Not F.one_hot: it reads the largest label back to the host.
    return weights.new_zeros(count, classes).scatter_add(1, columns, weights)


def multi_label_targets(
    labels: Tensor, other_labels: Tensor | None, sources: Tensor, weights: Tensor, classes: int, *, union: bool
) -> Tensor:
    """(B,K) float32 from (B,K) labels of 0 and 1: weighted, or with ``union`` every label of every source that is shown."""
    if labels.shape != (len(weights), classes):
        raise ValueError(
            f"multi-label labels must be ({len(weights)}, {classes}), one column for each label, got {tuple(labels.shape)}"
        )
    columns = source_labels(labels, other_labels, sources).float()
    if union:
        return (columns * (weights > 0)[:, :, None]).amax(1)
    return (weights[:, :, None] * columns).sum(1)


def value_targets(labels: Tensor, other_labels: Tensor | None, sources: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of numbers (B,) or (B,D), float32."""
    if labels.ndim not in (1, 2) or len(labels) != len(weights):
        raise ValueError(f"values must be ({len(weights)},) or ({len(weights)}, D), got {tuple(labels.shape)}")
    columns = source_labels(labels, other_labels, sources).float()
    return (weights.view(*weights.shape, *[1] * (labels.ndim - 1)) * columns).sum(1)


def source_labels(labels: Tensor, other_labels: Tensor | None, sources: Tensor) -> Tensor:
    """(B,M,...): the labels of every sample's sources; with ``other_labels`` the sample's own and theirs (M = 2)."""
    if other_labels is None:
        return labels[sources]
    if other_labels.shape != labels.shape:
        raise ValueError(f"other_labels must be {tuple(labels.shape)} like labels, got {tuple(other_labels.shape)}")
    return torch.stack((labels, other_labels), 1)


def weights_by_saliency(shown: Tensor, weights: Tensor) -> Tensor:
    """(B,2) label weights in proportion to the share ``shown`` (B,2) of its saliency that each source shows; rows sum to 1.

    Where nothing salient is shown the weights by area (B,2) stay (Saliency Grafting, Eq. 4; OA-CutMix).
    """
    total = shown.sum(1, keepdim=True)
    return torch.where(total > 0, shown / total.clamp(min=1e-12), weights)


def shown_share(shown: Tensor, saliency: Tensor, share: Tensor) -> Tensor:
    """(B,): the share of a map (B,H,W) that weights ``share`` (B,1,H,W) show, the map being ``shown`` (B,1,H,W) when mixed."""
    total = saliency.sum((1, 2))
    visible = (share * shown).sum((1, 2, 3))
    # A map without any saliency counts as its area.
    return torch.where(total > 0, visible / total.clamp(min=1e-12), share.mean((1, 2, 3))).clamp(0, 1)


def choose_partner(
    labels: Tensor,
    policy: PartnerPolicy,
    *,
    bandwidth: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Partners drawn by label, for ``plan(images, partner=...)`` and ``mix(..., partner=...)``.

    Each sample draws one partner from the batch, uniformly among those that the policy allows:

    - ``"same"``: other samples of its class;
    - ``"other"``: samples of other classes;
    - ``"balanced"``: any sample, every class of the batch alike (a sample's probability is 1 / (classes * its class's count));
    - ``"nearest"``: other samples, with probability in proportion to exp(-|y_i - y_j|^2 / (2 bandwidth^2)) (C-Mixup, Eq. 5).

    A sample without an allowed partner is its own. No host synchronisation.

    Args:
        labels: (B,) class indices or (B,K) soft labels, of which the largest counts; for ``"nearest"`` numbers (B,) or (B,D).
        policy: one of the four.
        bandwidth: sigma of the kernel of ``"nearest"``, in units of the labels, above 0.
        generator: source of the draws; without it torch's global generator of the labels' device.

    Returns:
        (B,) int64.

    Raises:
        ValueError: unknown policy, labels of another form, or a bandwidth that is not above 0.
    """
    if policy not in _POLICIES:
        raise ValueError(f"policy must be one of {', '.join(_POLICIES)}, got {policy!r}")
    if labels.ndim not in (1, 2) or len(labels) == 0:
        raise ValueError(f"labels must be (B,) or (B,K), got {tuple(labels.shape)}")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    if policy == "nearest":
        values = labels.float().view(len(labels), -1)
        distance = (values[:, None] - values).square().sum(2) / (2 * bandwidth**2)
        # Relative to the nearest: far from all others, every weight would underflow to 0.
        distance = distance.masked_fill(itself, torch.inf)
        weights = torch.exp(distance.amin(1, keepdim=True).nan_to_num(posinf=0.0) - distance)
    else:
        classes = labels if labels.ndim == 1 else labels.argmax(1)
        same = classes[:, None] == classes
        allowed = {"same": same & ~itself, "other": ~same, "balanced": torch.ones_like(same)}[policy]
        weights = allowed / (same.sum(0) if policy == "balanced" else 1)
    draws = torch.empty_like(weights, dtype=torch.float32)
    # An exponential race: the first arrival is a draw in proportion to the rates.
    first = (weights / (draws.exponential_() if generator is None else draws.exponential_(generator=generator))).argmax(
        1
    )
    return torch.where((weights > 0).any(1), first, torch.arange(len(labels), device=labels.device))


@dataclass(frozen=True)
class MixedBoxes:
    """The boxes of a mixed batch, one entry per image.

    Attributes:
        boxes: (N,4) each, as given (corner coordinates, or torchvision ``BoundingBoxes`` in their format).
        labels: (N,) each.
        weights: (N,) float32 each: the share with which the box's image is shown inside the box, 1 for methods that select.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    weights: list[Tensor]


def mixed_boxes(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    shares: Sequence[tuple[Tensor, Tensor]],
    sources: list[list[int]],
    pasted: list[list[int]] | None,
    *,
    min_visible: float,
) -> MixedBoxes:
    """Boxes of every sample's sources, clipped to what the mixed image shows of them.

    Args:
        boxes, labels: of the unmixed images.
        shares: per sample the (H,W) share of the own image and of the partner at every pixel, on the CPU.
        sources: per sample its own index and the partner's.
        pasted: per sample the box (top, bottom, left, right) that the whole partner is resized into, if it is.
        min_visible: boxes that show less of their area are dropped.
    """
    out: list[tuple[Tensor, Tensor, Tensor]] = []
    for place, (own, partner) in enumerate(sources):
        parts = [clip_boxes(corners(boxes[own]), shares[place][0], min_visible)]
        members = [own]
        if own != partner or pasted is not None:
            theirs = corners(boxes[partner])
            if pasted is not None:
                theirs = resize_boxes(theirs, pasted[place], shares[place][0].shape)
            parts.append(clip_boxes(theirs, shares[place][1], min_visible))
            members.append(partner)
        else:  # a sample mixed with itself is shown whole
            parts = [clip_boxes(corners(boxes[own]), torch.ones_like(shares[place][0]), min_visible)]
        kept = torch.cat([part[0] for part in parts])
        label = torch.cat([labels[m][part[2].to(labels[m].device)] for m, part in zip(members, parts, strict=True)])
        out.append((like_boxes(kept, boxes[own]), label, torch.cat([part[1] for part in parts])))
    return MixedBoxes(*map(list, zip(*out, strict=True)))


def clip_boxes(boxes: Tensor, share: Tensor, min_visible: float) -> tuple[Tensor, Tensor, Tensor]:
    """Corner boxes (N,4) that show enough, clipped to where ``share`` (H,W) is above 0; their weights; their indices."""
    height, width = share.shape
    kept: list[Tensor] = []
    weights: list[Tensor] = []
    indices: list[int] = []
    for index, box in enumerate(boxes):
        left, top = (max(0, int(side)) for side in box[:2].floor().tolist())
        right, bottom = (int(side) for side in box[2:].ceil().tolist())
        inside = share[top : min(bottom, height), left : min(right, width)]
        seen = inside > 0
        if inside.numel() == 0 or not seen.any() or seen.float().mean() < min_visible:
            continue
        rows, columns = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
        shown = torch.tensor([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        shown = shown.to(box)
        kept.append(torch.cat((torch.maximum(box[:2], shown[:2]), torch.minimum(box[2:], shown[2:]))))
        weights.append(inside[seen].mean())
        indices.append(index)
    empty = boxes.new_zeros(0, 4)
    return (
        torch.stack(kept) if kept else empty,
        torch.stack(weights).float() if weights else torch.zeros(0),
        torch.tensor(indices, dtype=torch.int64),
    )


def resize_boxes(boxes: Tensor, pasted: list[int], size: Sequence[int]) -> Tensor:
    """Corner boxes (N,4) of an image of ``size`` (H,W) after it was resized into the box (top, bottom, left, right)."""
    top, bottom, left, right = pasted
    scale = boxes.new_tensor([(right - left) / size[1], (bottom - top) / size[0]]).repeat(2)
    return boxes * scale + boxes.new_tensor([left, top, left, top])


def corners(boxes: Tensor) -> Tensor:
    """(N,4) float on the CPU, left top right bottom; torchvision ``BoundingBoxes`` are converted from their format."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (N,4), left, top, right, bottom in pixels, got {tuple(boxes.shape)}")
    form: Any = getattr(boxes, "format", None)
    if form is not None:
        from torchvision.ops import box_convert

        boxes = box_convert(boxes.as_subclass(Tensor), form.value.lower(), "xyxy")
    return boxes.cpu().to(torch.promote_types(boxes.dtype, torch.float32))


def like_boxes(boxes: Tensor, like: Tensor) -> Tensor:
    """Corner boxes in the type, format and on the device of ``like``; whole numbers are rounded."""
    form: Any = getattr(like, "format", None)
    if form is not None:
        from torchvision.ops import box_convert

        boxes = box_convert(boxes, "xyxy", form.value.lower())
    boxes = (boxes if like.is_floating_point() else boxes.round()).to(like.device, like.dtype)
    if form is None:
        return boxes
    from torchvision.tv_tensors import wrap

    return wrap(boxes, like=like)


def mix_label_map(own: Tensor, partner: Tensor, mask: Tensor) -> Tensor:
    """Integer label maps: at every pixel the label of the image that weighs at least as much there; dtype kept."""
    if mask.shape[-2:] != own.shape[-2:]:
        mask = resize(mask, (own.shape[-2], own.shape[-1]), mode="nearest")
    return torch.where(spread_over_slices(mask, own) >= 0.5, own, partner)


def spread_over_slices(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (B,1,H,W), with an axis of length 1 for the depth of volumes (B,C,D,H,W)."""
    return mask[:, :, None] if like.ndim == 5 else mask
