"""Mixing by regions: which pixels come from which image. CutMix, stitches, ResizeMix, GridMix, PatchShuffle."""

import torch
from torch import Tensor

from mixgan.mixing.interpolation import Erm
from mixgan.mixing.mixer import (
    BetaMixer,
    Fidelity,
    Mixer,
    Plan,
    check_fidelity,
    check_probability,
    check_range,
    image_size,
    paired_plan,
)
from mixgan.mixing.sampling import Draws, is_eager_cpu

#: top, bottom, left, right of a box in each image, each (B,) int64; bottom and right are exclusive
Box = tuple[Tensor, Tensor, Tensor, Tensor]


#: image size in numbers from which on an eager CPU copies the boxes of a batch one by one: about 100 x 100 RGB pixels
LARGE = 2**15


class BoxMixer(BetaMixer):
    """Base of the methods that paste a box of the partner, whose plans ``boxed_plan`` makes.

    Where the host sees the boxes, in eager calls on a CPU, large images are copied once and only the boxes written; elsewhere
    the mask selects. Both give the same bits.
    """

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """The partner inside the box."""
        if plan.geometry is None or not can_paste(images, plan, others):
            return super().mix_pixels(images, plan, others)
        return paste(images, plan, others)


class CutMix(BoxMixer):
    """Pastes a box of the partner: area 1-lam around a uniform centre, clipped; labels by the clipped area.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Yun et al. 2019; AutoMix 2"

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """r_x ~ U(0, W), r_y ~ U(0, H), r_w = W sqrt(1 - lam), r_h = H sqrt(1 - lam)."""
        lam = self.draw_lambda(draws) if lam is None else lam
        size = image_size(images)
        box = centred_box(1.0 - lam, *random_centre(size, draws), size)
        return boxed_plan(lam, draws.partner(), box, size)


def boxed_plan(
    lam: Tensor, partner: Tensor, box: Box, size: tuple[int, int], *, own_weight: Tensor | None = None
) -> Plan:
    """The plan of pairs whose partners (B,) show in a box; own labels weigh the area it leaves, or ``own_weight`` (B,)."""
    weight = share_outside(box, size) if own_weight is None else own_weight
    geometry = torch.stack(box, 1)
    masks = slice(1) if all_alike(geometry) else slice(None)  # one mask serves boxes that are alike
    top, bottom, left, right = (side[masks] for side in box)
    mask = outside_box((top, bottom, left, right), size).expand(len(partner), -1, -1, -1)
    return paired_plan(lam, partner, weight, mask, geometry=geometry)


def all_alike(boxes: Tensor) -> bool:
    """Whether the host sees that all boxes (B,4) are the same, as with ``per_batch``."""
    return is_eager_cpu(boxes) and bool((boxes == boxes[:1]).all())


def can_paste(images: Tensor, plan: Plan, others: Tensor | None) -> bool:
    """Whether copying the boxes (B,4) of a plan one by one is possible and faster than selecting by its mask."""
    assert plan.mask is not None
    learned = torch.is_grad_enabled() and (images.requires_grad or (others is not None and others.requires_grad))
    same_size = image_size(images) == image_size(plan.mask)
    fast = is_eager_cpu(images) and not learned and same_size and images[0].numel() >= LARGE
    return fast and mask_is_of_boxes(plan)


def mask_is_of_boxes(plan: Plan) -> bool:
    """Whether a plan's mask is still that of its boxes, 0 in the box and 1 elsewhere: it may have been replaced."""
    assert plan.mask is not None
    assert plan.geometry is not None
    masks, geometry = plan.mask, plan.geometry
    if masks.stride(0) == 0 and all_alike(geometry):
        masks, geometry = masks[:1], geometry[:1]
    top, bottom, left, right = geometry.unbind(1)
    covered = (bottom - top).clamp_min(0) * (right - left).clamp_min(0)
    if not torch.equal(masks.sum((1, 2, 3)), float(masks[0].numel()) - covered.float()):
        return False
    boxes = zip(masks[:, 0], geometry.tolist(), strict=True)
    return not torch.stack([mask[top:bottom, left:right].sum() for mask, (top, bottom, left, right) in boxes]).any()


def paste(images: Tensor, plan: Plan, others: Tensor | None, *, scaled: bool = False) -> Tensor:
    """A copy of images (B,C,...,H,W) with the partners' pixels in the plan's boxes, or whole partners ``scaled`` into them."""
    assert plan.geometry is not None
    height, width = image_size(images)
    sources, mixed = images if others is None else others, images.clone()
    partners = plan.partner.tolist() if others is None else range(len(images))
    for image, partner, (top, bottom, left, right) in zip(mixed, partners, plan.geometry.tolist(), strict=True):
        if bottom <= top or right <= left:
            continue
        shown = sources[partner]
        if scaled:
            rows, columns = (torch.arange(side) for side in (bottom - top, right - left))
            shown = shown.index_select(-2, rows * height // (bottom - top))
            image[..., top:bottom, left:right] = shown.index_select(-1, columns * width // (right - left))
        else:
            image[..., top:bottom, left:right] = shown[..., top:bottom, left:right]
    return mixed


def random_centre(size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
    """Row and column, each (B,) int64, uniform in the image."""
    return torch.floor(draws.uniform() * size[0]).long(), torch.floor(draws.uniform() * size[1]).long()


def centred_box(area: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Box:
    """Boxes with the image's aspect ratio around given centres, clipped to the image.

    Args:
        area: (B,) share of the image's area before clipping; side lengths are 2 * floor(sqrt(area) * side / 2) as published.
        row, column: (B,) int64 centres.
        size: (H, W).
    """
    half = 0.5 * area.sqrt()
    half_height = torch.floor(half * size[0]).long()
    half_width = torch.floor(half * size[1]).long()
    return (
        (row - half_height).clamp(min=0),
        (row + half_height).clamp(max=size[0]),
        (column - half_width).clamp(min=0),
        (column + half_width).clamp(max=size[1]),
    )


def random_box(height: Tensor, width: Tensor, size: tuple[int, int], draws: Draws) -> Box:
    """Boxes of given height and width (B,) at a uniform place inside the image."""
    top = torch.floor(draws.uniform() * (size[0] - height + 1)).long()
    left = torch.floor(draws.uniform() * (size[1] - width + 1)).long()
    return top, top + height, left, left + width


def outside_box(box: Box, size: tuple[int, int]) -> Tensor:
    """Masks (B,1,H,W) float32, 0 inside the boxes and 1 outside."""
    top, bottom, left, right = box
    rows, columns = (torch.arange(side, device=top.device) for side in size)
    # A product of lines is much faster than comparing every pixel.
    in_rows = ((rows >= top[:, None]) & (rows < bottom[:, None])).float()
    in_columns = ((columns >= left[:, None]) & (columns < right[:, None])).float()
    return torch.addcmul(in_rows.new_ones(()), in_rows[:, None, :, None], in_columns[:, None, None, :], value=-1)


def share_outside(box: Box, size: tuple[int, int]) -> Tensor:
    """(B,): the share of the image's area outside the boxes, the mean of ``outside_box``."""
    top, bottom, left, right = box
    return 1.0 - (bottom - top) * (right - left) / float(size[0] * size[1])


class MixupH(BoxMixer):
    """Stitches two images side by side: the left P = floor(lam*W) columns are own (Eq. 2).

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        fidelity: "formula" for the label weight P/W, the area really used, or "published" for lambda as drawn, as the authors'
            code and Eq. 2 have it.
    """

    source = "Understanding Mixup IV-A, Eq. 2"

    def __init__(
        self, *, num_classes: int, alpha: float = 1.0, fidelity: Fidelity = "formula", per_batch: bool = False
    ) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        self.fidelity = check_fidelity(fidelity)
        self.label_follows_mask = fidelity == "formula"

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """Cut every sample in its direction."""
        size = image_size(images)
        lam = self.draw_lambda(draws) if lam is None else lam
        box, share = stitch_box(lam, self.horizontal(draws), size)
        weight = share if self.fidelity == "formula" else lam
        return boxed_plan(lam, draws.partner(), box, size, own_weight=weight)

    def horizontal(self, draws: Draws) -> Tensor:
        """(B,) bool: which samples are stitched side by side; here all."""
        return torch.ones(draws.count, dtype=torch.bool, device=draws.device)


class MixupV(MixupH):
    """Stitches two images one above the other: the upper floor(lam*H) rows are own.

    Args:
        alpha, fidelity: as in ``MixupH``.
    """

    source = "Understanding Mixup IV-A"

    def horizontal(self, draws: Draws) -> Tensor:
        """(B,) bool, all False."""
        return torch.zeros(draws.count, dtype=torch.bool, device=draws.device)


class MixupHV(MixupH):
    """Stitches each sample side by side (mixup-H) or one above the other (mixup-V).

    Args:
        alpha, fidelity: as in ``MixupH``; "published" also splits the batch: its first part, a share of h_prob, is mixup-H.
        h_prob: probability of mixup-H.
    """

    source = "Understanding Mixup IV-B"

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 1.0,
        h_prob: float = 0.5,
        fidelity: Fidelity = "formula",
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, fidelity=fidelity, per_batch=per_batch)
        self.h_prob = check_probability("h_prob", h_prob)

    def horizontal(self, draws: Draws) -> Tensor:
        """(B,) bool: drawn with probability h_prob, or as published the first h_prob * B samples."""
        if self.fidelity == "published":
            return torch.arange(draws.count, device=draws.device) < self.h_prob * draws.count
        return draws.bernoulli(self.h_prob)


class MixupHC(MixupHV):
    """Stitches each sample side by side (mixup-H) or interpolates it (mixup, "C" for channels).

    Args:
        alpha, h_prob, fidelity: as in ``MixupHV``.
    """

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """The stitch with probability h_prob, else the constant mask."""
        size = image_size(images)
        lam = self.draw_lambda(draws) if lam is None else lam
        stitched = self.horizontal(draws)
        (_, _, cut, _), share = stitch_box(lam, torch.ones_like(stitched), size)
        own_columns = (torch.arange(size[1], device=lam.device) < cut[:, None]).float()
        line = torch.where(stitched[:, None], own_columns, lam[:, None])
        mask = line[:, None, None].expand(-1, 1, *size)  # all rows are alike
        weight = torch.where(stitched, share, lam) if self.fidelity == "formula" else lam
        return paired_plan(lam, draws.partner(), weight, mask)


def stitch_box(lam: Tensor, horizontal: Tensor, size: tuple[int, int]) -> tuple[Box, Tensor]:
    """The partner's part for lambda (B,), and the share left to the own image (B,), P/W or P/H (Understanding Mixup, Eq. 2).

    Where ``horizontal`` (B,) the left P = floor(lam * W) columns are own; elsewhere the upper P = floor(lam * H) rows are.
    """
    length = torch.where(horizontal, size[1], size[0])
    cut = torch.floor(lam * length).long()
    bottom, right = (torch.full_like(cut, side) for side in size)
    return (torch.where(horizontal, 0, cut), bottom, torch.where(horizontal, cut, 0), right), cut / length


class StitchRect(BoxMixer):
    """Pastes a rectangle of the partner, of area about 1-lam and random shape, at the same place fully inside the image.

    The paper draws it (Fig. 4c) without a formula. Here: height (1-lam)^u * H and width (1-lam)^(1-u) * W with u ~ U(0, 1),
    rounded, at a uniform place inside; the label weight is the area really used.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
    """

    source = "Understanding Mixup IV-A, Fig. 4c"

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """A random rectangle of the partner."""
        lam = self.draw_lambda(draws) if lam is None else lam
        size = image_size(images)
        area, u = 1.0 - lam, draws.uniform()
        height = torch.round(area**u * size[0]).long()
        width = torch.round(area ** (1.0 - u) * size[1]).long()
        box = random_box(height, width, size, draws)
        return boxed_plan(lam, draws.partner(), box, size)


class ResizeMix(Mixer):
    """Pastes the whole partner, resized to tau ~ U(scale) of its height and width, at a uniform place fully inside.

    The paste is floor(tau*H) x floor(tau*W) px, resized with nearest as published; the own label weight is the area that is
    really not covered, about 1 - tau^2 (which is the lambda as drawn). The plan's ``geometry`` (B,4) int64 is the pasted box:
    top, bottom, left, right, bottom and right exclusive.

    Args:
        scale: (low, high) inside [0, 1], the range of tau.
        fidelity: "formula", or "published" for OpenMixup's box: around a uniform centre, with sides 2 * floor(tau * side / 2),
            clipped to the image; the whole partner is resized to what is left.
    """

    moves_pixels = True
    source = "Qin et al. 2020; AutoMix 2"

    def __init__(
        self,
        *,
        num_classes: int,
        scale: tuple[float, float] = (0.1, 0.8),
        fidelity: Fidelity = "formula",
        per_batch: bool = False,
    ) -> None:
        super().__init__(num_classes=num_classes, per_batch=per_batch)
        self.scale, self.fidelity = check_range("scale", scale), check_fidelity(fidelity)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """All but a box of side tau is own."""
        size = image_size(images)
        tau = draws.uniform(*self.scale) if lam is None else (1.0 - lam).sqrt()
        if self.fidelity == "published":
            box = centred_box(tau**2, *random_centre(size, draws), size)
        else:
            height, width = (torch.floor(tau * side).long() for side in size)
            box = random_box(height, width, size, draws)
        return boxed_plan(1.0 - tau**2 if lam is None else lam, draws.partner(), box, size)

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """The whole partner inside the box."""
        if can_paste(images, plan, others):
            return paste(images, plan, others, scaled=True)
        return super().mix_pixels(images, plan, others)

    def move_pixels(self, own: Tensor, partner: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
        """The partners, resized into their boxes."""
        assert plan.geometry is not None
        assert plan.mask is not None
        return own, resize_into(partner, plan.geometry, image_size(plan.mask))

    def pasted_boxes(self, plan: Plan) -> Tensor | None:
        """The pasted boxes themselves."""
        return plan.geometry

    def shown_saliency(self, saliency: Tensor, plan: Plan) -> Tensor:
        """The whole partner is shown, unless its box is empty."""
        own = super().shown_saliency(saliency, plan)[:, :1]
        return torch.cat((own, (plan.lam < 1).float()[:, None]), 1)


def resize_into(images: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B,C,h,w) scaled into their boxes (B,4) of an image of ``size`` (H,W); outside them the result means nothing."""
    height, width = images.shape[-2:]
    top, bottom, left, right = box.unbind(1)
    rows = nearest_source(top, bottom, size[0], height)
    columns = nearest_source(left, right, size[1], width)
    return take_pixels(images, rows[:, :, None] * width + columns[:, None, :])


def nearest_source(low: Tensor, high: Tensor, length: int, count: int) -> Tensor:
    """(B,count): the pixel shown at each place when an axis is scaled into its part low..high-1 (each (B,)) of ``length``."""
    place = torch.arange(count, device=low.device) * length - low[:, None] * count
    # nearest, as F.interpolate rounds; clamp: an empty part shows nothing, so any divisor will do
    return place.div((high - low).clamp(min=1)[:, None], rounding_mode="floor").clamp(0, count - 1)


def take_pixels(images: Tensor, index: Tensor) -> Tensor:
    """(B,C,h,w): every pixel, with all its channels, from place index (B,h,w) int64, row * w + column, of the same image."""
    moved = images.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, images.shape[1], -1)).view(images.shape)
    return same_format(moved, images)


def same_format(result: Tensor, like: Tensor) -> Tensor:
    """The result (B,C,h,w), channels last if ``like`` is."""
    if like.is_contiguous() or not like.is_contiguous(memory_format=torch.channels_last):
        return result
    return result.contiguous(memory_format=torch.channels_last)


class GridMix(BetaMixer):
    """Cuts images into cells x cells and takes round(lam * cells^2) random cells from the own image; labels by the area.

    Without the paper's second part, a loss on the label of every cell, which needs a network with such outputs.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), above 0.
        cells: cells per side (4 on 32 px).
    """

    source = "Baek et al. 2021; AutoMix 2"

    def __init__(self, *, num_classes: int, alpha: float = 1.0, cells: int = 4, per_batch: bool = False) -> None:
        super().__init__(num_classes=num_classes, alpha=alpha, per_batch=per_batch)
        if cells < 1 or cells % 1 != 0:
            raise ValueError(f"cells must be a whole number of at least 1, got {cells}")
        self.cells = int(cells)

    def draw(self, lam: Tensor, size: tuple[int, int], draws: Draws) -> tuple[Tensor, Tensor]:
        """The first round(lam * cells^2) cells of a random order are own."""
        own_cells = torch.round(lam * self.cells**2)
        own = draws.permutations(self.cells**2) < own_cells[:, None]
        mask = own.float().index_select(1, cell_of_pixel(self.cells, size, lam.device)).view(-1, 1, *size)
        return mask, mask.mean((1, 2, 3))


def cell_of_pixel(cells: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """(H*W,) int64, the cell 0..cells^2-1 of each pixel; sides of cells differ by a pixel where the size does not divide."""
    row, column = (torch.arange(side, device=device) * cells // side for side in size)
    return (row[:, None] * cells + column).flatten()


class PatchShuffle(Erm):
    """Permutes the pixels inside each patch of some images, every patch on its own; the label stays.

    All channels of a pixel move together. Rows and columns that fill no whole patch, at the bottom and at the right, stay as
    they are. The plan's ``geometry`` (B, H // n, W // n, n * n) int64 says, for every place in a patch in row order, which place
    its pixel comes from. Features of a smaller size use the permutations of the upper left patches.

    Args:
        patch_size: side n of the patches in pixels.
        p: probability that an image is shuffled.
    """

    moves_pixels = True
    source = "Kang et al. 2017; Understanding Mixup II"

    def __init__(self, *, num_classes: int, patch_size: int = 2, p: float = 0.05) -> None:
        super().__init__(num_classes=num_classes)
        if patch_size < 1 or patch_size % 1 != 0:
            raise ValueError(f"patch_size must be a whole number of at least 1, got {patch_size}")
        self.patch_size = int(patch_size)
        self.p = check_probability("p", p)

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """A permutation for every patch of an image with probability p, the identity for the other images."""
        n = self.patch_size
        shuffled = draws.permutations(images.shape[-2] // n, images.shape[-1] // n, n * n)
        unmoved = torch.arange(n * n, device=images.device)
        geometry = torch.where(draws.bernoulli(self.p).view(-1, 1, 1, 1), shuffled, unmoved)
        plan = super().build_plan(images, saliency, lam, draws)
        # Not dataclasses.replace, which torch 2.6 does not compile.
        return Plan(plan.drawn, plan.sources, plan.weights, plan.mask, geometry)

    def mix_pixels(self, images: Tensor, plan: Plan, others: Tensor | None) -> Tensor:
        """The images with the pixels of every patch in their new places."""
        assert plan.geometry is not None
        return take_pixels(images, patch_index(plan.geometry, self.patch_size, image_size(images)))

    def keeps_boxes(self, plan: Plan) -> bool:
        """Pixels move inside their patches only."""
        return True


def patch_index(order: Tensor, n: int, size: tuple[int, int]) -> Tensor:
    """(B,h,w) for ``take_pixels``: pixels of n x n patches moved by order (B,R,S,n*n), a permutation for each patch."""
    rows, columns = size[0] // n, size[1] // n
    if rows > order.shape[1] or columns > order.shape[2]:
        planned = f"{order.shape[1]} x {order.shape[2]} patches of {n} px"
        raise ValueError(f"a plan for {planned} is too small for images of {size}")
    place = torch.arange(size[0] * size[1], device=order.device).view(size)
    index = place.expand(len(order), *size).contiguous()
    first = place[: rows * n : n, : columns * n : n, None]  # of every patch
    order = order[:, :rows, :columns]
    moved = first + place[:n, :n].flatten().index_select(0, order.flatten()).view_as(order)
    moved = moved.unflatten(3, (n, n)).transpose(2, 3).reshape(len(order), rows * n, columns * n)
    index[:, : rows * n, : columns * n] = moved
    return index
