"""How much memory mixing takes: the mixed batch and at most one more. Oracle: the storages that every operation leaves alive."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mixgan.mixing import build_mixer, list_mixers, puzzlemix

# What methods hold for every pixel beside images and masks, in units of an int64 index: indices, fmix's complex field.
INDICES = {"resizemix": 1.1, "patchshuffle": 3, "comixup": 3, "fmix": 0.2, "puzzlemix": 0.5}


class PeakBytes(TorchDispatchMode):
    """The most bytes that tensors made inside it, and still alive, hold at once."""

    def __init__(self):
        super().__init__()
        self.made, self.peak = [], 0  # tensor, address and bytes of its storage

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {pointer for _, pointer, _ in storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        self.made = [one for one in self.made if one[0]() is not None]
        before = given - {pointer for _, pointer, _ in self.made}  # what was made outside
        self.made += [one for one in storages(result) if one[1] not in before]
        self.peak = max(self.peak, sum({pointer: size for _, pointer, size in self.made}.values()))
        return result


def storages(values):
    found = [(value, value.untyped_storage()) for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
    return [(weakref.ref(value), storage.data_ptr(), storage.nbytes()) for value, storage in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list_mixers())
def test_a_mixed_batch_takes_at_most_one_more_and_its_masks(name, dtype, monkeypatch):
    # What is listed and moved at once has a fixed size, many times these few small images.
    monkeypatch.setattr(puzzlemix, "ENTRIES", 2**11)
    monkeypatch.setattr(puzzlemix, "MOVED", 2**14)
    mixer = build_mixer(name, num_classes=8)
    saliency = {"saliency": torch.rand(8, 128, 128)} if mixer.saliency_kind else {}
    labels, pixels = torch.arange(8), 8 * 128 * 128
    # small images, on which the mask selects; large ones, into which boxes are copied; with a NaN, which is to stay in its place
    for shape, bad in (((8, 1, 128, 128), 0.5), ((8, 3, 128, 128), 0.5), ((8, 3, 128, 128), math.nan)):
        images = torch.rand(shape).to(dtype)
        images[0, 0, 0, 0] = bad
        with PeakBytes() as memory:
            mixer.mix(images, labels, **saliency)
        masks = pixels * (4 + images.element_size() + 1)  # the plan's, that of the images' type, one of booleans
        indices = INDICES.get(name, 0.05) * 8 * pixels
        assert memory.peak <= 2 * images.nbytes + masks + indices
        assert memory.peak >= images.nbytes or mixer.mix_images(images, mixer.plan(images, **saliency)) is images


def test_the_counter_counts_what_is_alive():
    with PeakBytes() as memory:
        first = torch.zeros(100)
        first[:50].add_(1)
        second = first + 1
        del first
        third = second + torch.ones(100)
    assert memory.peak == 1200
    assert third.sum() == 250
