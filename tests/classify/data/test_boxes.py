"""Boxes in the evaluation square: where a rectangle drawn into a file is found after the feeds' own transform."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classify.data import FolderSet, ImageSet, boxes_in_crop, evaluation_boxes
from classify.loaders import eval_batches

SIZE = 56  # its square is cut from a picture whose shorter side has 64 px


def drawn_and_mapped(folder: Path, picture: tuple[int, int], boxes: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as seen after evaluation's transform (pixels of at least half brightness), and as mapped: (N,4) each."""
    width, height = picture
    paths = []
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y0:y1, x0:x1] = 255
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    labels, edges = torch.zeros(len(boxes), dtype=torch.int64), torch.tensor(boxes).float()
    dataset = FolderSet("drawn", tuple(paths), labels, ("a",), (0.0,) * 3, (1.0,) * 3, SIZE, boxes=edges)
    ((images, _),) = eval_batches(dataset, batch_size=len(boxes), device="cpu", workers=0)
    seen = []
    for image in images[:, 0].numpy() >= 0.5:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        seen.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return np.array(seen), evaluation_boxes(dataset).numpy()


@pytest.mark.parametrize("picture", [(64, 80), (101, 64), (128, 160), (400, 291), (33, 47)])
def test_a_drawn_box_is_found_where_it_is_mapped_to(picture: tuple[int, int], tmp_path: Path) -> None:
    width, height = picture
    shares = np.array([[0.3, 0.4, 0.6, 0.7], [0.0, 0.0, 0.5, 0.5], [0.45, 0.3, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    boxes = (shares * [width, height, width, height]).round().astype(int)
    seen, mapped = drawn_and_mapped(tmp_path, picture, boxes.tolist())
    # Half brightness lies on the edge itself, so that a found edge is the mapped one rounded (give or take the filter).
    assert np.abs(seen - mapped).max() < 0.75
    assert mapped.min() >= 0
    assert mapped.max() <= SIZE


def test_without_resizing_the_pixels_agree_exactly(tmp_path: Path) -> None:
    seen, mapped = drawn_and_mapped(tmp_path, (80, 64), [[20, 10, 50, 40], [0, 0, 80, 64], [13, 5, 14, 6]])
    np.testing.assert_array_equal(seen, mapped)


def test_a_box_outside_the_square_has_no_area() -> None:
    boxes, sizes = torch.tensor([[0.0, 0, 10, 64], [190, 0, 200, 64]]), torch.tensor([[200, 64], [200, 64]])
    x0, y0, x1, y1 = boxes_in_crop(boxes, sizes, SIZE).T
    assert ((x1 - x0) * (y1 - y0)).tolist() == [0, 0]


def test_wrong_shapes_and_missing_boxes_are_quoted() -> None:
    with pytest.raises(ValueError, match=r"boxes must be \(N,4\) and sizes \(N,2\), got \(2, 4\) and \(1, 2\)"):
        boxes_in_crop(torch.zeros(2, 4), torch.ones(1, 2), SIZE)
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    plain = ImageSet("digits", images, torch.zeros(1), ("a",), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="the data set 'digits' has no boxes; cub-200 and the tiles have"):
        evaluation_boxes(plain)
