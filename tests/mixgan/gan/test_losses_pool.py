"""The image pool against the published algorithm, written out below over a plain list of images."""

import io

import pytest
import torch
from torch import Tensor

from mixgan.gan.losses import ImagePool


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def published_query(stored: list[Tensor], images: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """One query as CycleGAN states it, image by image; draws a uniform number, then where it swaps a slot."""
    handed_out = []
    for image in images:
        if len(stored) < size:
            stored.append(image)
            handed_out.append(image)
        elif torch.rand((), generator=generator) > 0.5:
            slot = torch.randint(size, (), generator=generator)
            handed_out.append(stored[slot])
            stored[slot] = image
        else:
            handed_out.append(image)
    return handed_out


def batches(seed: int, sizes: list[int]) -> list[Tensor]:
    generator = seeded(seed)
    return [torch.randn(size, 3, 4, 6, generator=generator) for size in sizes]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_hands_out_what_the_published_loop_does(memory_format: torch.memory_format):
    # A batch of 7 in a pool of 5 fills it, and displaces images of its own, inside one query.
    pool, reference_draws, stored, pairs = ImagePool(5, generator=seeded(0)), seeded(0), [], []
    for images in batches(1, [3, 7, 1, 1, 4, 16, 16]):
        before = images.clone()
        handed_out = pool.query(images.contiguous(memory_format=memory_format))
        assert handed_out.is_contiguous(memory_format=memory_format)
        pairs.append((handed_out, torch.stack(published_query(stored, images, 5, reference_draws))))
        assert torch.equal(images, before)
    # Compared at the end: what was handed out must not change when its slot is overwritten later.
    for handed_out, expected in pairs:
        assert torch.equal(handed_out, expected)
    assert torch.equal(pool.images, torch.stack(stored))


def test_images_come_back_detached():
    images = torch.randn(4, 3, 4, 4, requires_grad=True)
    for pool in (ImagePool(2), ImagePool(0)):
        assert not pool.query(images * 1.0).requires_grad


def test_size_zero_hands_every_image_back_and_keeps_none():
    pool = ImagePool(0)
    for images in batches(2, [3, 3]):
        assert torch.equal(pool.query(images), images)
    assert pool.images is None


@pytest.mark.parametrize("queries_before", [0, 1, 6], ids=["empty", "partly-filled", "full"])
def test_resume_from_a_file_is_exact(queries_before: int):
    pool = ImagePool(5, generator=seeded(3))
    stream = batches(4, [3] * 12)
    for images in stream[:queries_before]:
        pool.query(images)
    state, file = pool.state_dict(), io.BytesIO()
    expected = [pool.query(images) for images in stream[queries_before:]]  # the snapshot must not follow these
    torch.save(state, file)
    file.seek(0)
    resumed = ImagePool(5, generator=seeded(99))
    resumed.query(stream[0])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for images, wanted in zip(stream[queries_before:], expected, strict=True):
        assert torch.equal(resumed.query(images), wanted)
    assert torch.equal(resumed.images, pool.images)


def test_own_generators_differ_between_pools_and_follow_the_global_seed():
    def two_pools() -> list[Tensor]:
        torch.manual_seed(5)
        return [ImagePool(1).generator.get_state() for _ in range(2)]

    (first, second), (again, _) = two_pools(), two_pools()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_snapshot_of_another_size_is_refused():
    with pytest.raises(ValueError, match="holds 4 images, this one 5"):
        ImagePool(5).load_state_dict(ImagePool(4).state_dict())


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        ImagePool(-1)


@pytest.mark.parametrize("other", [torch.zeros(1, 3, 8, 4), torch.zeros(1, 3, 4, 4).double()], ids=["shape", "type"])
def test_images_unlike_the_stored_ones_are_refused(other: Tensor):
    pool = ImagePool(2)
    pool.query(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"stores torch.float32 images of shape \(3, 4, 4\), got torch.float"):
        pool.query(other)
