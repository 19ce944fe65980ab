"""The pairs of bench/ops.py: where docs/ops.md says that Kornia gives the same bits, it does, and elsewhere it does not."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is in no installed package

from bench.ops import pairs

PAIRS = pairs(torch.device("cpu"))
OTHER = ("denormalise", "random resized crop", "box mean", "shrink", "JPEG", "rotate")


@pytest.mark.parametrize("name", PAIRS)
def test_kornia_agrees_where_the_page_says_so(name):
    ours, kornias = (call().double() for call in PAIRS[name])
    if name.startswith("SSIM"):
        torch.testing.assert_close(ours, kornias, atol=1e-5, rtol=0)
    else:
        assert torch.equal(ours, kornias) != name.startswith(OTHER)
