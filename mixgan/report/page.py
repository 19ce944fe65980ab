"""A self-contained HTML page: texts, tables, figures and warnings, without any external reference."""

import base64
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup
from PIL import Image

from mixgan.engine.run_folder import write_text

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

INK = "#3b4148"  # of texts and axes in figures, readable on white; the page replaces it by the colour of its own text


class _Cell(NamedTuple):
    text: str
    is_number: bool


@dataclass(frozen=True)
class _Section:
    heading: str
    paragraphs: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[_Cell]] = ()
    pairs: Sequence[tuple[str, _Cell]] = ()
    pictures: list[tuple[Markup, str]] = field(default_factory=list)


@dataclass
class Page:
    """Collects sections in the order of the calls; ``write`` makes the file.

    Every text is escaped. A heading may be empty: the section then continues the one before.
    """

    title: str
    subtitle: str = ""
    _sections: list[_Section] = field(default_factory=list, init=False, repr=False)
    _warnings: list[str] = field(default_factory=list, init=False, repr=False)

    def text(self, heading: str, body: str) -> None:
        """Paragraphs, separated by empty lines."""
        self._sections.append(_Section(heading, paragraphs=re.split(r"\n\s*\n", body.strip())))

    def markup(self, heading: str, *paragraphs: Markup) -> None:
        """Paragraphs with links or code, made by ``Markup.format``, which escapes what is put in."""
        self._sections.append(_Section(heading, paragraphs=paragraphs))

    def table(self, heading: str, rows: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
        """One mapping becomes a list of names and values; a sequence becomes a table with one row per mapping.

        The columns are the keys in order of their first appearance; what a row lacks is left empty. Values are printed by
        ``tidy``, so an integer that is not a count, such as a seed, is better given as a string.
        """
        if isinstance(rows, Mapping):
            self._sections.append(_Section(heading, pairs=[(str(k), _cell(v)) for k, v in rows.items()]))
            return
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_cell(row[key], padded=True) if key in row else _Cell("", False) for key in columns] for row in rows]
        self._sections.append(_Section(heading, columns=[str(key) for key in columns], rows=cells))

    def settings(self, values: Mapping[str, object]) -> None:
        """Settings by flag, without those that are not set; whole numbers, such as a seed, keep their digits as they are."""
        given = {
            flag: str(value) if type(value) is int else value for flag, value in values.items() if value is not None
        }
        self.table("Settings", given)

    def figure(self, heading: str, figure: "Figure | Image.Image | Path | str", caption: str = "") -> None:
        """A matplotlib figure (kept as vectors), a PIL image, or the path of a PNG or JPEG file.

        Without a heading, a figure after a figure is placed beside it where the window is wide enough.
        """
        description = caption or heading or self.title
        count = sum(len(section.pictures) for section in self._sections)
        if isinstance(figure, Image.Image | Path | str):
            markup = _inline_image(figure, description=description)
        else:
            markup = _inline_svg(figure, prefix=f"f{count}-", description=description)
        if heading or not (self._sections and self._sections[-1].pictures):
            self._sections.append(_Section(heading))
        self._sections[-1].pictures.append((markup, caption))

    def warning(self, text: str) -> None:
        """Something the reader must know before trusting the results; shown under the title, each text once."""
        if text not in self._warnings:
            self._warnings.append(text)

    def html(self) -> str:
        """The page as one string."""
        return _template().render(page=self, sections=self._sections, warnings=self._warnings)

    def write(self, path: Path | str) -> Path:
        """Write the page; an existing file is replaced atomically."""
        path = Path(path)
        write_text(path, self.html())
        return path


@cache  # compiling it takes as long as drawing a plot
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader

    return Environment(loader=PackageLoader("mixgan.report", "."), autoescape=True).get_template("page.html")


def tidy(value: object, *, padded: bool = False) -> str:
    """A value for readers: four significant digits, thousands apart, yes and no, a dash for None.

    ``padded`` keeps the zeros at the end of a fraction, so that the numbers of a column line up.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{value:,}" if abs(int(value)) >= 10_000 else f"{value}"
    if isinstance(value, Real):
        return _tidy_float(float(value), padded)
    if isinstance(value, (list, tuple)):
        return ", ".join(tidy(item) for item in value)
    return str(value)


def _tidy_float(value: float, padded: bool) -> str:
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    decimals = max(0, 3 - math.floor(math.log10(size))) if size else 4
    text = f"{value:,.{decimals}f}"
    if not padded:
        return text.rstrip("0").rstrip(".") if decimals else text
    # From 0.01 on four decimals, so that accuracies line up; below, as many as four digits need: 0.00025.
    kept = len(text) - max(0, decimals - 4)
    return f"{value:.4f}" if 0.01 <= size < 1 else text[:kept] + text[kept:].rstrip("0")


def _cell(value: object, *, padded: bool = False) -> _Cell:
    is_number = value is None or (isinstance(value, Real) and not isinstance(value, bool))  # a dash aligns with numbers
    return _Cell(tidy(value, padded=padded), is_number)


def _inline_image(source: Image.Image | Path | str, *, description: str) -> Markup:
    buffer = io.BytesIO()
    if isinstance(source, Image.Image):
        source.save(buffer, "PNG", optimize=True)
    else:
        buffer.write(Path(source).read_bytes())
    with Image.open(buffer) as image:
        kind, width = str(image.format).lower(), image.width
    if kind not in ("png", "jpeg"):
        raise ValueError(f"a page shows PNG and JPEG images, got {source} in the format {kind}")
    address = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Markup('<img class="{}" src="{}" width="{}" alt="{}">').format(
        "sheet" if width > 640 else "", address, width, description
    )


def _inline_svg(figure: "Figure", *, prefix: str, description: str) -> Markup:
    """SVG for the middle of a page: no XML head, no outside names, no ids shared with other figures, the page's ink.

    matplotlib escapes the texts it draws, so the result is markup as it is.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixgan"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # text stays text: the browser has other fonts than matplotlib
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(re.escape(INK), "currentColor", svg, flags=re.IGNORECASE)
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(svg.replace("<svg", label, 1))
