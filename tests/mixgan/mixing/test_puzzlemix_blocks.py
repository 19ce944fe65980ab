"""Blocks of an image. Oracles: slices and means of one block at a time, and torch's pooling where sides divide."""

import pytest
import torch

from mixgan.mixing.puzzlemix import block_means, block_of, enlarge_blocks, move_blocks

SIZES = [((32, 32), (4, 4)), ((33, 47), (4, 4)), ((12, 20), (3, 5)), ((16, 16), (16, 16)), ((9, 7), (2, 3))]


def edges(length, blocks):
    """First pixels of the blocks, and the length: pixel i belongs to block floor(i * blocks / length)."""
    owner = [i * blocks // length for i in range(length)]
    return [owner.index(block) for block in range(blocks)] + [length]


@pytest.mark.parametrize(("size", "blocks"), SIZES)
def test_means_and_enlargement_block_by_block(size, blocks):
    maps = torch.rand(2, *size)
    rows, columns = edges(size[0], blocks[0]), edges(size[1], blocks[1])
    means = block_means(maps, blocks)
    large = enlarge_blocks(means, size)
    for i in range(blocks[0]):
        for j in range(blocks[1]):
            window = (slice(None), slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
            torch.testing.assert_close(means[:, i, j], maps[window].mean((1, 2)))
            assert (large[window] == means[:, i, j, None, None]).all()


def test_means_of_batches_of_any_form():
    """Oracle: a mean over the pixels of each block, where sides divide."""
    maps = torch.rand(3, 2, 24, 32)
    torch.testing.assert_close(block_means(maps, (6, 8)), maps.view(3, 2, 6, 4, 8, 4).mean((3, 5)))


def test_means_are_as_exact_in_a_step_of_mixed_precision():
    """Oracle: the same means in float64; 33 x 47 px divide into no equal blocks."""
    maps = torch.rand(2, 33, 47, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        means = block_means(maps.float(), (4, 8))
    torch.testing.assert_close(means, block_means(maps, (4, 8)).float())


@pytest.mark.parametrize(("size", "blocks"), SIZES)
def test_moving_blocks_by_slices(size, blocks):
    images = torch.rand(2, 3, *size)
    source = torch.stack([torch.randperm(blocks[0] * blocks[1]) for _ in range(2)]).view(2, *blocks)
    rows, columns = edges(size[0], blocks[0]), edges(size[1], blocks[1])
    moved = move_blocks(images, source)
    for b in range(2):
        for i in range(blocks[0]):
            for j in range(blocks[1]):
                si, sj = divmod(int(source[b, i, j]), blocks[1])
                for y in range(rows[i], rows[i + 1]):
                    for x in range(columns[j], columns[j + 1]):
                        from_y = min(rows[si] + y - rows[i], rows[si + 1] - 1)
                        from_x = min(columns[sj] + x - columns[j], columns[sj + 1] - 1)
                        assert torch.equal(moved[b, :, y, x], images[b, :, from_y, from_x])


def test_every_block_has_pixels():
    assert block_of(7, 7, torch.device("cpu")).tolist() == list(range(7))
    assert block_of(9, 2, torch.device("cpu")).tolist() == [0] * 5 + [1] * 4
