"""The gallery of mixing methods: one row each, none blank, errors in one sentence."""

import numpy as np
import pytest
from PIL import Image

from mixgan.mixing import list_mixers
from mixgan.report.gallery import draw_gallery, main


def test_every_method_has_a_row_that_is_not_blank(tmp_path):
    file = tmp_path / "gallery.png"
    main(["--output", str(file)])
    with Image.open(file) as gallery:
        pixels = np.asarray(gallery.convert("RGB")).astype(int)
    one = np.asarray(draw_gallery(["erm"])).shape[0]
    two = np.asarray(draw_gallery(["erm", "erm"])).shape[0]
    assert pixels.shape[0] == one + (len(list_mixers()) - 1) * (two - one)
    for row in range(len(list_mixers())):
        band = (
            pixels[one - two + row * (two - one) :][: two - one]
            if row == 0
            else pixels[one + (row - 1) * (two - one) :]
        )
        assert len(np.unique(band[: two - one].reshape(-1, 3), axis=0)) > 500


def test_wrong_names_and_folders_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="unknown mixing method 'cutmx'"):
        main(["--methods", "cutmx", "--output", str(tmp_path / "x.png")])
    with pytest.raises(ValueError, match="does not exist"):
        main(["--methods", "erm", "--output", str(tmp_path / "missing" / "x.png")])
    for name in ("x", "x.xyz"):
        with pytest.raises(ValueError, match=f"--output must name a picture, such as .*{name}.png"):
            main(["--methods", "erm", "--output", str(tmp_path / name)])
