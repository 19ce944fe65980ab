import json
import math

import pytest

from mixgan.engine.run_folder import write_json, write_text


def test_what_json_cannot_say_becomes_null(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, 2)}], "d": tmp_path, "e": True})
    text = path.read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": str(tmp_path), "e": True}


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")  # a lone surrogate has no UTF-8
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]  # the partial file of the failure is gone too
