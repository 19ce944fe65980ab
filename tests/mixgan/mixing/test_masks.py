"""Blending. Oracle: mask * own + (1 - mask) * partner, written out, and its gradient."""

import torch

from mixgan.mixing.mixer import blend


def test_blend_is_the_definition_and_copies_exactly():
    own, partner, mask = torch.randn(3, 2, 4, 6), torch.randn(3, 2, 4, 6), torch.rand(3, 1, 4, 6)
    mask[0], mask[1] = 0, 1
    expected, before = mask * own + (1 - mask) * partner, (own.clone(), partner.clone())
    mixed = blend(own, partner, mask)
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(mixed[0], before[1][0])
    assert torch.equal(mixed[1], before[0][1])
    assert torch.equal(own, before[0])
    assert torch.equal(partner, before[1])


def test_a_learned_mask_gets_its_gradient():
    own, partner = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = torch.rand(2, 1, 4, 4).requires_grad_()
    blend(own, partner, mask).sum().backward()
    torch.testing.assert_close(mask.grad, (own - partner).sum(1, keepdim=True))


def test_a_smaller_mask_keeps_the_mean():
    mask = torch.rand(2, 1, 8, 12)
    mixed = blend(torch.ones(2, 5, 4, 3), torch.zeros(2, 5, 4, 3), mask)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), mask.mean((1, 2, 3)))
