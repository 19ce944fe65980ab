"""Line and scatter plots: what is drawn is what was given."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from mixgan.report.plots import MAX_POINTS, PALETTE, line_plot, scatter_plot, series_from_records


def draw(series, **settings):
    figure = line_plot(series, title="title", x_label="step", y_label="loss", **settings)
    figure.draw_without_rendering()
    return figure, figure.axes[0]


def test_lines_carry_data_names_and_palette():
    before = dict(mpl.rcParams)
    figure, axes = draw({"a": ([1, 2, 3], [4.0, 5.0, 6.0]), "b": ([1, 2], [1.0, 0.5])})
    assert dict(mpl.rcParams) == before
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("title", "step", "loss")
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 4], [2, 5], [3, 6]], [[1, 1], [2, 0.5]]]
    assert [to_hex(line.get_color()).upper() for line in axes.lines] == list(PALETTE[:2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_many_series_stay_distinct():
    _, axes = draw({str(i): ([0, 1], [i, i]) for i in range(4 * len(PALETTE))})
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == len(axes.lines)


def test_values_that_cannot_be_drawn_are_left_out():
    x, y = [0, 1, 2, 3], [1.0, float("nan"), -1.0, 10.0]
    assert draw({"a": (x, y)})[1].lines[0].get_xdata().tolist() == [0, 2, 3]
    _, logarithmic = draw({"a": (x, y)}, log_y=True)
    assert logarithmic.lines[0].get_xdata().tolist() == [0, 3]
    assert logarithmic.get_yscale() == "log"
    assert "1" in [label.get_text() for label in logarithmic.get_yticklabels()]


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([1], [float("nan")])}])
def test_nothing_to_draw_says_so(series):
    figure, axes = draw(series)
    assert [text.get_text() for text in axes.texts] == ["no values"]
    assert not figure.legends


def test_one_point_is_visible():
    assert draw({"a": ([3], [0.5])})[1].lines[0].get_marker() == "o"


def test_smoothing_is_a_centred_mean_over_a_band_of_the_raw_range():
    y = np.random.default_rng(0).normal(size=50)
    _, axes = draw({"a": (range(50), y)}, smooth=5)
    smoothed = axes.lines[0].get_ydata()
    expected = [y[max(0, i - 2) : i + 3].mean() for i in range(50)]
    np.testing.assert_allclose(smoothed, expected, atol=1e-12)
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (y.min(), y.max())


@pytest.mark.parametrize("smooth", [1, 100])
def test_long_series_are_thinned_by_means(smooth):
    n = 12_345
    _, axes = draw({"a": (range(n), [2.0 * i for i in range(n)])}, smooth=smooth)
    x, y = axes.lines[0].get_data()
    assert len(x) <= MAX_POINTS
    inner = slice(60, -60)  # the running mean is one-sided at the ends
    # An even width has its centre half a point late: y is 2 * (x + 1/2).
    np.testing.assert_allclose(y[inner], 2 * x[inner] + (smooth % 2 == 0))


def test_records_become_series():
    records = [
        {"step": 1, "loss": 2.0, "note": "x"},
        {"step": 2, "accuracy": 0.5, "loss": None},
        {"epoch": 1, "loss": 9.0},
        {"step": 3, "loss": 1},
    ]
    series = series_from_records(records, ["loss", "accuracy", "note", "missing"])
    assert series == {"loss": ([1.0, 3.0], [2.0, 1.0]), "accuracy": ([2.0], [0.5])}
    assert series_from_records(records, ["loss"], x="epoch") == {"loss": ([1.0], [9.0])}


def test_scattered_points_carry_data_names_and_differ_in_colour_and_shape():
    before = dict(mpl.rcParams)
    sets = {"real": ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), "generated": ([0.5], [-1.0])}
    figure = scatter_plot(sets, title="title", x_label="first", y_label="second")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert dict(mpl.rcParams) == before
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("title", "first", "second")
    points = [np.asarray(c.get_offsets()).tolist() for c in axes.collections]
    assert points == [[[1, 4], [2, 5], [3, 6]], [[0.5, -1]]]
    assert [to_hex(c.get_facecolor()[0]).upper() for c in axes.collections] == list(PALETTE[:2])
    first, second = (c.get_paths()[0].vertices for c in axes.collections)
    assert first.shape != second.shape or not np.allclose(first, second)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["real", "generated"]


def test_points_of_large_sets_are_small():
    def size(count: int) -> float:
        points = [0.0] * count
        figure = scatter_plot({"a": (points, points), "b": ([0.0], [0.0])}, title="", x_label="", y_label="")
        (found,) = {float(c.get_sizes()[0]) for c in figure.axes[0].collections}
        return found

    assert size(1000) < size(40)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'a' must be lists of one length, got \(2,\) and \(1,\)"):
        draw({"a": ([1, 2], [1.0])})
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw({}, smooth=0)
