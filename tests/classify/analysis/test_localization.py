"""Localization of a run on the tiles' landmarks, and of a map that is known."""

from dataclasses import replace

import pytest
import torch

from classify.analysis.localization import centre_boxes, figures, framed, localization, true_boxes
from classify.analysis.result import Study
from mixgan.data.tiles import make_tiles

STUDY = Study(count=12, batch_size=8)


def test_true_boxes_are_the_landmarks_at_224_px(cutmix_run):
    sample = torch.linspace(0, len(cutmix_run.data("test")) - 1, 12).round().long()
    number = 1_000_000 + int(sample[3])
    x0, y0, x1, y1 = make_tiles(1, size=32, start=number).boxes[0].tolist()
    assert true_boxes(cutmix_run, STUDY)[3].tolist() == [7 * x0, 7 * y0, 7 * x1 + 6, 7 * y1 + 6]


def test_the_figure_of_a_run(cutmix_run, tmp_path):
    result = localization([cutmix_run], STUDY)
    result.write(tmp_path)
    assert [row["run"] for row in result.tables["Localization"]] == ["cutmix", "centre"]
    row = result.tables["Localization"][0]
    assert row["MaxBoxAccV2"] == pytest.approx((row["overlap 0.3"] + row["overlap 0.5"] + row["overlap 0.7"]) / 3)
    assert 1 >= row["overlap 0.3"] >= row["overlap 0.5"] >= row["overlap 0.7"]
    assert row["overlap 0.5"] >= row["MaxBoxAcc"]
    assert row["overlap 0.5"] == pytest.approx(max(result.numbers["found"]["cutmix"]))
    assert len(result.pictures["cutmix: boxes"][0].getcolors(1 << 24)) > 1000


def test_the_centre_map_finds_the_boxes_around_the_middle():
    row = figures(centre_boxes(torch.tensor([[92.0, 92, 131, 131], [0, 0, 20, 20]]), STUDY))
    names = ("MaxBoxAccV2", "overlap 0.3", "overlap 0.5", "overlap 0.7", "MaxBoxAcc")
    assert row == pytest.approx(dict.fromkeys(names, 0.5))


def test_boxes_are_drawn_as_frames():
    picture = framed(torch.zeros(1, 3, 8, 8), torch.tensor([[1.0, 2, 5, 6]]), (1.0, 1.0, 1.0), line=1)
    assert picture[0, 0].sum() == 16  # around 5 x 5 pixels
    assert picture[0, 0, 2, 1] == 1
    assert picture[0, 0, 6, 5] == 1
    assert picture[0, 0, 4, 3] == 0


def test_sets_without_boxes_are_refused(cutmix_run, monkeypatch):
    bare = replace(cutmix_run.data("test"), boxes=None)
    monkeypatch.setattr(type(cutmix_run), "data", lambda self, split: bare)
    with pytest.raises(ValueError, match="the data set 'tiles' has no boxes"):
        localization([cutmix_run], STUDY)
