"""Runs whose pages have no plots, which take most of a tiny run's time: for tests that do not look at the page.

Pages with plots: those of tests/recipes/test_recipes.py, tests/mixgan/gan/test_report.py and tests/classify/test_report.py.
"""

from collections.abc import Callable
from typing import Any

import classify.report
import mixgan.gan.report
from mixgan.report import page

PLOTS = ((mixgan.gan.report, "line_plot"), (classify.report, "_curve"), (classify.report, "confusion_plot"))


def leave_out_plots(set_attribute: Callable[[Any, str, Any], object] = setattr) -> None:
    """Draw nothing from here on; with a monkeypatch's ``setattr`` until its test ends."""
    for module, name in PLOTS:
        set_attribute(module, name, lambda *_, **__: None)
    set_attribute(page, "_inline_svg", lambda *_, **__: "")
