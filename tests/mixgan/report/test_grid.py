"""Image grids: every picture is found again, whole and at its place."""

import numpy as np
import pytest
import torch

from mixgan.report.plots import image_grid


def cells(sheet: np.ndarray, pictures: list[np.ndarray]) -> list[tuple[int, int]]:
    """Upper left corners at which the pictures lie in the sheet, by brute force over the sheet."""
    found = []
    for picture in pictures:
        height, width = picture.shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(sheet, (height, width, 3))[:, :, 0]
        corners = np.argwhere((windows == picture).all(axis=(2, 3, 4)))
        assert len(corners) == 1
        found.append((int(corners[0][0]), int(corners[0][1])))
    return found


def test_pictures_lie_in_rows_and_columns_enlarged_whole():
    columns = torch.randint(0, 256, (3, 2, 3, 8, 8), dtype=torch.uint8)  # 3 columns of 2 images
    sheet = image_grid(
        torch.stack(list(columns), dim=1),
        column_labels=["A", "fake B", "cycled A"],
        row_labels=["1", "2"],
        cell_size=20,
    )
    enlarged = columns.repeat_interleave(3, dim=-1).repeat_interleave(3, dim=-2)  # 8 -> 24 >= 20
    pictures = [enlarged[c, r].permute(1, 2, 0).numpy() for r in range(2) for c in range(3)]
    corners = cells(np.asarray(sheet), pictures)
    tops, lefts = sorted({top for top, _ in corners}), sorted({left for _, left in corners})
    assert corners == [(top, left) for top in tops for left in lefts]
    assert tops[1] - tops[0] > 24
    assert lefts[2] - lefts[1] == lefts[1] - lefts[0] > 24


def test_floats_are_rounded_and_clamped_and_gray_is_spread():
    images = torch.tensor([-1.0, 0.2, 0.5, 2.0]).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    sheet = np.asarray(image_grid([images], cell_size=16))
    colours = {tuple(map(int, pixel)) for pixel in sheet.reshape(-1, 3)}
    assert colours == {(255,) * 3, (0,) * 3, (51,) * 3, (128,) * 3}


def test_labels_take_room_and_leave_ink():
    images = torch.ones(2, 3, 32, 32)  # white on white: all that shows is labels

    def ink(**labels) -> np.ndarray:
        return np.argwhere((np.asarray(image_grid([images, images], cell_size=64, **labels)) < 128).all(axis=2))

    assert len(ink()) == 0
    plain = image_grid([images, images], cell_size=64)
    titled = image_grid([images, images], cell_size=64, title="λ → 1", row_labels=["own", "partner"])
    assert titled.width > plain.width
    assert titled.height > plain.height
    assert ink(column_labels=["A", "B"])[:, 0].max() < 40  # above the pictures only
    assert ink(row_labels=["own", "partner"])[:, 1].max() < titled.width - 128  # left of them only


def test_long_column_labels_break_between_words():
    images = torch.ones(2, 3, 64, 64)
    one = image_grid([images], column_labels=["a", "b"], cell_size=64)
    two = image_grid([images], column_labels=["identity mapped", "b"], cell_size=64)
    assert two.height > one.height
    assert two.width == one.width


def test_shorter_rows_end_in_empty_cells():
    sheet = np.asarray(image_grid([torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32)], cell_size=32))
    black = (sheet == 0).all(axis=2)
    assert black.sum() == 3 * 32 * 32
    gray = ((sheet > 200) & (sheet < 250)).all(axis=2)
    assert gray.sum() == 32 * 32


@pytest.mark.parametrize(
    ("shapes", "labels", "message"),
    [
        ([], {}, r"got the shapes \[\]"),
        ([(2, 4, 8, 8)], {}, r"\(2, 4, 8, 8\)"),
        ([(2, 3, 8, 8), (2, 3, 9, 9)], {}, "one size"),
        ([(2, 3, 8, 8)], {"column_labels": ["a"]}, r"2 columns needs 2 column labels, got \['a'\]"),
        ([(2, 3, 8, 8)], {"row_labels": ["a", "b"]}, "1 rows needs 1 row labels"),
    ],
)
def test_mistakes_are_named(shapes, labels, message):
    with pytest.raises(ValueError, match=message):
        image_grid([torch.zeros(shape) for shape in shapes], **labels)
