"""The Mix Block against AutoMix Eq. 4-6, written out sample by sample and place by place."""

import pytest
import torch
from torch import Tensor

from classify.methods.automix import MixBlock, mask_loss

SIZE = (9, 7)


def block_and_pairs() -> tuple[MixBlock, Tensor, Tensor, Tensor]:
    """A Mix Block with large weights, so that attention is far from uniform, features (4,8,4,3), partners and lambdas."""
    torch.manual_seed(0)
    block = MixBlock(8)
    assert block.query.weight.shape == block.key.weight.shape == (4, 9, 1, 1)  # half of the channels, lambda as a ninth
    for weight in block.parameters():
        torch.nn.init.normal_(weight)
    return block, 0.5 * torch.randn(4, 8, 4, 3), torch.tensor([2, 1, 3, 0]), torch.rand(4)


def mask_by_hand(block: MixBlock, own: Tensor, other: Tensor, lam: float) -> Tensor:
    """(H,W), from the features (C,h,w) of one pair with lambda as one more channel of both."""
    w_q, w_k, w_z = (layer.weight[:, :, 0, 0] for layer in (block.query, block.key, block.value))
    h, w = own.shape[1:]

    def at(features: Tensor, channel: float, place: int) -> Tensor:
        return torch.cat((features[:, place // w, place % w], torch.tensor([channel])))

    keys = [w_k @ at(own, lam, place) for place in range(h * w)]
    values = [w_z @ at(own, lam, place) + block.value.bias for place in range(h * w)]
    mask = torch.empty(h, w)
    for place in range(h * w):
        query = w_q @ at(other, 1 - lam, place)
        weights = torch.stack([query @ key / len(query) ** 0.5 for key in keys]).exp()
        total = sum(weight * value for weight, value in zip(weights, values, strict=True)) / weights.sum()
        mask[place // w, place % w] = 1 / (1 + (-total).exp())
    rows, columns = (torch.arange(side) * small // side for side, small in zip(SIZE, (h, w), strict=True))
    return mask[rows][:, columns]


def test_the_mask_is_that_of_equations_4_and_5():
    block, features, partner, lam = block_and_pairs()
    with torch.no_grad():
        masks = block(block.project(features), partner, lam, SIZE)
        expected = [mask_by_hand(block, features[i], features[partner[i]], float(lam[i])) for i in range(4)]
    assert masks.std((2, 3)).min() > 0.05
    torch.testing.assert_close(masks[:, 0], torch.stack(expected))


def test_the_mask_is_computed_in_float32_whatever_the_rest_is():
    block, features, partner, lam = block_and_pairs()
    expected = block(block.project(features.bfloat16().float()), partner, lam, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(block.project(features.bfloat16()), partner, lam, SIZE), expected)


def test_mask_loss_by_hand():
    # Means 0.2, 0.8 and 0.55, lambda 1/2: equation 6 is of each sample's mask; the batch's mean would be nearly right.
    masks = torch.stack([torch.full((1, 2, 2), mean) for mean in (0.2, 0.8, 0.55)])
    masks[0, 0] = torch.tensor([[0.0, 0.4], [0.4, 0.0]])
    lam = torch.full((3,), 0.5)
    assert mask_loss(masks, lam, margin=0.1, norm="l1") == pytest.approx((0.2 + 0.2 + 0.0) / 3)
    assert mask_loss(masks, lam, margin=0.0, norm="l1") == pytest.approx((0.3 + 0.3 + 0.05) / 3)
    assert mask_loss(masks, lam, margin=0.1, norm="l2") == pytest.approx((0.08 + 0.08 + 0.0) / 3)
