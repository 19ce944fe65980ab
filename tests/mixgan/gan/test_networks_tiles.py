"""Any size in, the same size out: padding against NumPy's, tiles against translation in one piece, seams by their steps."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mixgan.data.tiles import make_tiles
from mixgan.gan.networks import ResnetGenerator, init_weights
from mixgan.gan.translate import lay_tiles, pad_by_reflection, translate_images

LAYOUTS = [
    (length, tile, overlap) for length in (36, 40, 64, 100, 132, 520) for tile, overlap in ((32, 8), (32, 16), (64, 5))
]


def noise(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def identity() -> nn.Module:
    network = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def generator() -> ResnetGenerator:
    """Random weights, but smooth pictures like those of a trained one: else texture of the step's size hides every seam."""
    torch.manual_seed(0)
    network = ResnetGenerator(width=8, blocks=2).eval()
    init_weights(network)
    last = network.layers[-2].weight.data
    last.copy_(last.mean((2, 3), keepdim=True) * 7)
    return network


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (5, 7), (8, 12), (33, 30)])
def test_padding_is_numpys_repeated_reflection(size: tuple[int, int]):
    images = noise(2, 3, *size)
    padded, inside = pad_by_reflection(images)
    sides = [max(8, -(-side // 4) * 4) for side in size]
    assert padded.shape == (2, 3, *sides)
    room = [((new - old) // 2, new - old - (new - old) // 2) for new, old in zip(sides, size, strict=True)]
    assert np.array_equal(padded, np.pad(images.numpy(), [(0, 0), (0, 0), *room], mode="reflect"))
    assert torch.equal(padded[inside], images)


@pytest.mark.parametrize(("length", "tile", "overlap"), LAYOUTS)
def test_tiles_cover_a_side_and_their_weights_sum_to_one(length: int, tile: int, overlap: int):
    starts, weights = lay_tiles(length, tile, overlap)
    total = torch.zeros(length)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + len(row)] += row
    assert torch.allclose(total, torch.ones(length), atol=1e-6)
    assert weights.min() >= 0
    assert all(start % 4 == 0 for start in starts)
    assert all(after <= before + tile - overlap for before, after in itertools.pairwise(starts))
    margin = overlap // 4  # where the network sees the end of a tile rather than the image
    assert weights[1:, :margin].sum() == weights[:-1, tile - margin :].sum() == 0
    steps = weights.diff(dim=1).abs().max()
    assert steps <= np.pi / overlap * 1.01  # a raised cosine over half the overlap climbs pi/2 per width at most


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (31, 33), (70, 131), (200, 9)])
def test_a_network_that_changes_nothing_gives_back_every_pixel(size: tuple[int, int]):
    images = noise(3, 3, *size)
    assert torch.equal(translate_images(identity(), images, tile=32, batch_size=2), images)


def test_tiles_equal_one_piece_where_the_network_looks_no_farther_than_their_margin():
    torch.manual_seed(0)  # strides as in a generator: tiles that began between them would be sampled at other pixels
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1),
        nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    nn.init.normal_(network[3].weight, std=0.5)
    images = noise(1, 3, 150, 210)
    whole = translate_images(network, images, tile=512).int()
    assert whole.float().std() > 20
    for tile, overlap in ((64, 32), (96, 40)):
        tiled = translate_images(network, images, tile=tile, overlap=overlap, batch_size=3).int()
        assert (tiled - whole).abs().max() <= 1  # a sum of two roundings


def seams(image: Tensor, middles: list[int], ends: list[int], hand_over: int) -> list[float]:
    """Mean absolute step at the middles of the tiles' overlaps, and at their ends, over that inside, both ways."""
    ratios = []
    for turned in (image, image.transpose(1, 2)):
        steps = turned.float().diff(dim=-1).abs().mean((0, 1))
        inside = torch.ones(len(steps), dtype=torch.bool)
        for middle in middles:
            inside[middle - hand_over // 2 - 1 : middle + hand_over // 2] = False
        for columns in (middles, ends):
            ratios.append((steps[[column - 1 for column in columns]].mean() / steps[inside].mean()).item())
    return ratios


def without_blending(network: nn.Module, image: Tensor, tile: int, starts: list[int], middles: list[int]) -> Tensor:
    """Every tile translated alone, with norms of its own, and cut off in the middle of its overlaps."""
    cuts = [0, *middles, image.shape[-1]]
    done = torch.empty_like(image)
    for y, (top, bottom) in zip(starts, itertools.pairwise(cuts), strict=True):
        for x, (left, right) in zip(starts, itertools.pairwise(cuts), strict=True):
            piece = translate_images(network, image[None, :, y : y + tile, x : x + tile])[0]
            done[:, top:bottom, left:right] = piece[:, top - y : bottom - y, left - x : right - x]
    return done


def test_tiles_of_an_instance_norm_generator_show_no_seam_and_look_like_one_piece():
    network, tile = generator(), 64
    starts, _ = lay_tiles(256, tile, tile // 4)
    middles = [(a + b + tile) // 2 for a, b in itertools.pairwise(starts)]
    ends = [column for start in starts for column in (start, start + tile) if 0 < column < 256]
    scenes = make_tiles(2, size=256, start=40)
    apart, apart_unblended = [], []
    for image in (*scenes.photos, *scenes.maps):
        whole, tiled = (translate_images(network, image[None], tile=side)[0] for side in (256, tile))
        unblended = without_blending(network, image, tile, starts, middles)
        assert max(seams(unblended, middles, ends, tile // 8)) > 1.4  # what the next line would be without all this
        assert max(seams(tiled, middles, ends, tile // 8)) <= 1.2
        apart.append((tiled.float() - whole).abs().mean().item())
        apart_unblended.append((unblended.float() - whole).abs().mean().item())
    assert np.mean(apart) < 0.6 * np.mean(apart_unblended)


class Spy(nn.Module):
    """The identity, noting what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = identity()
        self.seen: list[tuple[int, ...]] = []

    def __deepcopy__(self, memo: dict) -> "Spy":
        return self

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.convolution(images)


def test_a_pass_never_holds_more_than_a_batch_of_tiles():
    spy, progress = Spy(), []
    translate_images(spy, noise(2, 3, 300, 200), tile=64, batch_size=4, advance=progress.append)
    assert all(count * height * width <= 4 * 64 * 64 for count, _, height, width in spy.seen)
    assert sum(progress) == pytest.approx(2)


def test_the_generator_itself_stays_as_it_was():
    network, images = generator(), noise(1, 3, 40, 40)
    before = translate_images(network, images)
    translate_images(network, noise(1, 3, 50, 90), tile=32)
    assert torch.equal(translate_images(network, images), before)
    assert not network.training


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tile": 30}, "tile must be a multiple of 4, at least 32, got 30"),
        ({"tile": 28}, "at least 32, got 28"),
        ({"tile": 64, "overlap": 40}, "overlap must be between 4 and half of the tile, 32, got 40"),
        ({"overlap": 0}, "got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_wrong_numbers(options: dict[str, int], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        translate_images(identity(), noise(1, 3, 8, 8), **options)
