"""What is written of a figure."""

import csv
import json

from PIL import Image

from classify.analysis.result import Result
from mixgan.report.page import Page
from mixgan.report.plots import line_plot


def some_result() -> Result:
    plot = line_plot({"run": ([0, 1], [0.5, 1.0])}, title="", x_label="x", y_label="y")
    return Result(
        text="How to\nread it.",
        pictures={"Loss at L = 5": (plot, "of one run"), "A sheet": (Image.new("RGB", (4, 4), "red"), "")},
        tables={"Errors": [{"run": "a", "ece": 0.25}]},
        metrics={"a": [1.0, float("nan")]},
        warnings=["b has no record"],
    )


def test_files(tmp_path):
    some_result().write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "loss-at-l-5.png", "loss-at-l-5.svg", "a-sheet.png", "errors.csv", "numbers.json",
    }  # fmt: skip
    with Image.open(tmp_path / "loss-at-l-5.png") as picture:
        assert picture.mode == "RGB"  # nothing shines through
        assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert len(picture.getcolors(1 << 20)) > 5
    assert list(csv.DictReader((tmp_path / "errors.csv").open())) == [{"run": "a", "ece": "0.25"}]
    assert json.loads((tmp_path / "numbers.json").read_text()) == {"a": [1.0, None]}


def test_a_section_of_a_page():
    page = Page("title")
    some_result().add_to(page, "figure-name")
    html = page.html()
    for part in (
        "figure-name",
        "How to read it.",
        "Left out: b has no record.",
        "of one run",
        "Errors",
        "<svg",
        "<img",
    ):
        assert part in html


def test_long_titles_make_names_that_a_file_can_have(tmp_path):
    titles = ["a" * 300 + end for end in ("1", "2")]
    Result(text="", tables={title: [{"x": 1}] for title in titles}).write(tmp_path)
    names = {path.name for path in tmp_path.glob("*.csv")}
    assert len(names) == 2
    assert all(len(name) < 120 for name in names)
