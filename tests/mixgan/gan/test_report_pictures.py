"""Sample grids of stand-in networks whose images are plain colours, read back from the sheet."""

import itertools

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from mixgan.data.domains import Domains
from mixgan.gan.config import directions
from mixgan.gan.data import DomainBatch
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.report import training_grid, translation_grid
from mixgan.ops.transforms import to_bytes, to_signed

SIDE = 16
#: Greys of the eight kinds of image that a sheet shows.
PHOTO, MAP, FAKE_B, CYCLED_A, SAME_B, FAKE_A, CYCLED_B, SAME_A = range(10, 90, 10)
PAPER = 255

WAYS = directions(("photo", "map"))


def grey(value: int, count: int) -> Tensor:
    return torch.full((count, 3, SIDE, SIDE), value, dtype=torch.uint8)


def stand_in(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """Takes the place of both generators; the order is that of Translations."""
    assert a.shape == b.shape
    return tuple(to_signed(grey(v, len(a))) for v in (FAKE_B, CYCLED_A, SAME_B, FAKE_A, CYCLED_B, SAME_A))


def cells(sheet: Image.Image) -> list[list[int]]:
    """The grey of every image on the sheet, row by row: 64 px and more of one grey that is not the paper's."""
    pixels = np.asarray(sheet.convert("L")).astype(int)
    rows = []
    for line in pixels:
        borders = [0, *(np.flatnonzero(np.diff(line)) + 1), len(line)]
        found = [int(line[s]) for s, e in itertools.pairwise(borders) if e - s >= 64 and line[s] != PAPER]
        if found and (not rows or rows[-1] is None):
            rows.append(found)
        elif not found and rows and rows[-1] is not None:
            rows.append(None)
    return [row for row in rows if row is not None]


@pytest.mark.parametrize(("count_a", "count_b", "paired", "shown"), [(6, 6, True, 4), (2, 3, False, 2)])
def test_translations_both_ways(count_a: int, count_b: int, paired: bool, shown: int):
    domains = Domains(grey(PHOTO, count_a), grey(MAP, count_b), paired=paired)
    sheet = translation_grid(stand_in, domains, Accelerator(cpu=True), title="a title", ways=WAYS)
    forth, back = [PHOTO, FAKE_B, CYCLED_A, SAME_A], [MAP, FAKE_A, CYCLED_B, SAME_B]
    if paired:
        forth, back = [*forth, MAP], [*back, PHOTO]
    assert cells(sheet) == [forth] * shown + [back] * shown


@pytest.mark.parametrize("mixing", ["mixcyclegan", "none"])
def test_training_inputs(mixing: str):
    torch.manual_seed(0)
    networks = (nn.Conv2d(3, 3, 1) for _ in range(4))
    # whole images are of one grey
    model = MixCycleGAN(*networks, accelerator=Accelerator(cpu=True), mixing=mixing, unstitched=1.0)
    model.generators = stand_in
    second = 100
    batch = DomainBatch(*(to_signed(grey(v, 6)) for v in (PHOTO, MAP, second, second)))
    sheet = training_grid(model, batch, title="", ways=WAYS)
    forth, back = [PHOTO, second, PHOTO, FAKE_B, CYCLED_A], [MAP, second, MAP, FAKE_A, CYCLED_B]
    if mixing == "mixcyclegan":  # D_A sees map and fake map, D_B photo and fake photo
        lambdas = torch.linspace(0.35, 0.65, 4)
        expected = [[*forth, mixed_grey(MAP, FAKE_B, lam)] for lam in lambdas]
        expected += [[*back, mixed_grey(PHOTO, FAKE_A, lam)] for lam in lambdas]
    else:
        expected = [forth] * 4 + [back] * 4
    assert np.abs(np.array(cells(sheet)) - np.array(expected)).max() <= 1  # halves may round either way


def mixed_grey(real: int, fake: int, lam: Tensor) -> int:
    return int(to_bytes(to_signed(grey(real, 1)) * lam + to_signed(grey(fake, 1)) * (1 - lam))[0, 0, 0, 0])
