"""The page: self-contained, escaped, tidy. Read back with the standard library's HTML parser."""

import base64
import io
import re
import warnings
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mixgan.report.page import Page, tidy
from mixgan.report.plots import INK, line_plot


class Reader(HTMLParser):
    """Collects tags with attributes, and all texts outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if data.strip() and self.tags[-1][0] != "style":
            self.texts.append(data.strip())

    def named(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def plot() -> Figure:
    return line_plot({"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, title="T & T", x_label="step", y_label="y")


def full_page(tmp_path) -> Page:
    page = Page("A <title>", "sub & title")
    page.text("Text", "first <script>\n\nsecond")
    page.table("Pairs", {"<key>": 0.51234, "none": None})
    page.table("Rows", [{"method": "mixup", "accuracy": 0.5}, {"method": "<b>", "seconds": 12345}])
    page.figure("Plot", plot(), "a <caption>")
    page.figure("", plot())
    page.figure("Image", Image.new("RGB", (5, 4), (255, 0, 0)))
    Image.new("RGB", (7, 3), (0, 0, 255)).save(tmp_path / "saved.png")
    page.figure("", tmp_path / "saved.png")
    page.warning("careful <i>")
    page.warning("careful <i>")
    return page


def test_nothing_points_outside(tmp_path):
    html = full_page(tmp_path).write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    reader = Reader(html)
    assert not reader.named("script")
    assert not reader.named("link")
    references = [a[k] for _, a in reader.tags for k in ("src", "href", "xlink:href") if k in a]
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)


def test_texts_are_escaped_and_in_order(tmp_path):
    reader = Reader(full_page(tmp_path).html())
    expected = [
        "A <title>",
        "sub & title",
        "careful <i>",
        "Text",
        "first <script>",
        "second",
        "Pairs",
        "<key>",
        "0.5123",
    ]
    expected += [
        "none",
        "–",
        "Rows",
        "method",
        "accuracy",
        "seconds",
        "mixup",
        "0.5000",
        "<b>",
        "12,345",
        "Plot",
        "T & T",
    ]
    texts = iter(reader.texts[1:])  # after the tab's title
    assert all(text in texts for text in expected)  # `in` an iterator consumes it: order matters
    assert reader.texts.count("careful <i>") == 1


def test_images_come_back_as_they_were(tmp_path):
    images = Reader(full_page(tmp_path).html()).named("img")
    opened = [Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) for image in images]
    assert [(image.size, image.getpixel((0, 0))) for image in opened] == [((5, 4), (255, 0, 0)), ((7, 3), (0, 0, 255))]
    assert [image["alt"] for image in images] == ["Image", "A <title>"]


def test_plots_share_no_ids_and_take_the_pages_ink(tmp_path):
    html = full_page(tmp_path).html()
    reader = Reader(html)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(reader.named("svg")) == 2
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert targets
    assert targets <= set(ids)
    assert INK not in html
    assert "currentColor" in html


def test_letters_that_matplotlib_lacks_are_left_to_the_browser_without_a_warning(tmp_path):
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title("\ue000 of a private font")
    page = Page("title")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.figure("", figure)
        page.write(tmp_path / "page.html")
    assert "\ue000 of a private font" in (tmp_path / "page.html").read_text()


def test_figures_without_heading_stand_beside_the_figure_before(tmp_path):
    page = full_page(tmp_path)
    page.text("", "text between")
    page.figure("", plot())
    assert len([a for a in Reader(page.html()).named("div") if a.get("class") == "figures"]) == 3


def test_the_same_content_gives_the_same_file(tmp_path):
    assert full_page(tmp_path).html() == full_page(tmp_path).html()


def test_a_page_is_replaced_whole(tmp_path):
    path = tmp_path / "report.html"
    Page("old").write(path)
    Page("new").write(path)
    assert "new" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_other_image_formats_are_named(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "image.gif")
    with pytest.raises(ValueError, match=r"image\.gif in the format gif"):
        Page("page").figure("", tmp_path / "image.gif")


@pytest.mark.parametrize(
    ("value", "text", "padded"),
    [
        (0, "0", "0"),
        (0.0, "0", "0.0000"),
        (1.0, "1", "1.000"),
        (0.8, "0.8", "0.8000"),
        (0.00025, "0.00025", "0.00025"),
        (0.012345, "0.01235", "0.0123"),
        (41.23456, "41.23", "41.23"),
        (-1234.56, "-1,235", "-1,235"),
        (1.2e-5, "1.2e-5", "1.2e-5"),
        (3.5e12, "3.5e12", "3.5e12"),
        (9999, "9999", "9999"),
        (123456, "123,456", "123,456"),
        (float("nan"), "not a number", "not a number"),
        (float("-inf"), "-∞", "-∞"),
        (True, "yes", "yes"),
        (None, "–", "–"),
        ((0.5, 0.999), "0.5, 0.999", "0.5, 0.999"),
        ("a text", "a text", "a text"),
    ],
)
def test_tidy(value, text, padded):
    assert (tidy(value), tidy(value, padded=True)) == (text, padded)
