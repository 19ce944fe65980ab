"""The page of an evaluation: everything that was found is on it, and nothing on it points outside."""

import html
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from mixgan.evaluate.command import FidOptions, metric_rows, run
from mixgan.evaluate.comparison import Comparison
from mixgan.evaluate.page import write_page
from mixgan.report.page import tidy

pytestmark = pytest.mark.usefixtures("fresh_process")


def evaluation_of(real: Path, fake: Path, **flags) -> Comparison:
    flags = {"features": "bundled", "threads": 1, **flags}
    return run(FidOptions(real=real, fake=fake, **flags), Accelerator(cpu=True))


def texts(evaluation: Comparison, path: Path) -> str:
    """The page as text, spaces as one; fails if it refers to anything outside."""
    write_page(path, evaluation)
    page = path.read_text()
    assert not re.search(r"https?:|<script|<link|@import", page)
    references = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(reference.startswith(("data:image/", "#")) for reference in references)
    text = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def headings(path: Path) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", path.read_text())


def test_a_full_page(save, tiles, tmp_path):
    darker = tiles.maps.float().mul(0.7).to(torch.uint8)
    darker[5] = 0  # the worst pair
    found = evaluation_of(save("real", tiles.maps), save("fake", darker), resize="40", sample=15, pairs="yes")
    figures = found.to_dict()
    text = texts(found, tmp_path / "out.html")
    assert headings(tmp_path / "out.html") == [
        "Metrics", "Protocol", "Samples", "Worst pairs", "Nearest real images", "Both sets in feature space", "Run",
    ]  # fmt: skip
    for key in ("fd", "kid", "precision", "recall", "density", "coverage", "inception_score"):
        assert f" {tidy(figures[key], padded=True)} " in text, key
    for key in ("rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim"):
        assert f" {tidy(figures[key], padded=True)} " in text, key
    assert "FD (bundled)" in text
    interval = f"95 % interval {figures['fd_low']:.4g} to {figures['fd_high']:.4g}"
    assert f"24 real, 24 generated images, {interval}" in text
    assert "Features: bundled, as asked for. Weights sha256 " + figures["weights_sha256"][:16] in text
    assert (
        "Images resized to 40 x 40 px (bicubic, antialiased) and rounded to 8 bit before the feature network." in text
    )
    assert "random sample: 15 of 24 real images and 15 of 24 generated images" in text
    assert (
        f"real generated RMSE 5.png 5.png {tidy(float(found.evidence.pairs.rmse[5]), padded=True)} " in text
    )  # the worst first
    assert f"torch {version('torch')} " in text
    assert all(warning in text for warning in figures["warnings"])
    assert figures["warnings"]
    assert (tmp_path / "out.html").read_text().count("<img") == 3


def test_a_page_of_sets_without_pairs(save, tiles, tmp_path):
    found = evaluation_of(save("real", tiles.maps), save("fake", tiles.maps[:7], first=100))
    text = texts(found, tmp_path / "out.html")
    assert "Worst pairs" not in headings(tmp_path / "out.html")
    assert "RMSE" not in text
    assert "too few images for the Inception Score: 7, at least 10 are needed" in text
    assert "random sample" not in text


@pytest.mark.parametrize("known", ["real", "fake", "both"])
def test_a_page_of_statistics_files(known, save, tiles, tmp_path):
    folders = {"real": save("real", tiles.maps), "fake": save("fake", tiles.photos)}
    files = {side: tmp_path / f"{side}.npz" for side in folders}
    for side, folder in folders.items():
        evaluation_of(folder, folder, save_statistics=files[side], bootstrap=0)
    sides = folders | {side: files[side] for side in folders if known in (side, "both")}
    found = evaluation_of(sides["real"], sides["fake"])
    text = texts(found, tmp_path / "out.html")
    samples = [] if known == "both" else ["Samples"]
    assert headings(tmp_path / "out.html") == ["Metrics", "Protocol", *samples, "Run"]
    assert tidy(found.fd, padded=True) in text
    assert "24 real, 24 generated images; not comparable with published distances; lower is better" in text
    assert ("Inception Score" in text) == (known == "real")
    assert "only the Frechet distance can be compared" in text


def test_names_of_files_and_folders_are_escaped(save, tiles, tmp_path):
    real, fake = save("<b>real&", tiles.maps[:8]), save("<i>fake", tiles.maps[:8])
    for folder in (real, fake):
        (folder / "3.png").rename(folder / "<img src=x>.png")
    found = evaluation_of(real, fake, pairs="yes")
    text = texts(found, tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert f"{fake} against {real}" in text
    assert "<img src=x>.png" in text
    assert not any(raw in page for raw in ("<b>", "<i>", "<img src=x>"))


def test_the_closest_pairs_of_training_and_generated_images_are_shown(save, tiles, tmp_path):
    """Every generated image is a copy of a training image: the least authentic set there is."""
    real, fake, train = save("real", tiles.maps[12:]), save("fake", tiles.maps[:8]), save("train", tiles.maps[:12])
    text = texts(evaluation_of(real, fake, train=train), tmp_path / "out.html")
    assert "Closest to training images" in headings(tmp_path / "out.html")
    assert "AuthPct" in text
    assert "no near copies of one of 12 training images" in text
    assert f"Training images: the folder {train}." in text


def test_an_unknown_number_of_images_is_reported():
    result = Comparison(fd=1.0, n_fake=7, distance="FID")
    assert metric_rows(result) == [("FID", 1.0, "an unknown number of real, 7 generated images; lower is better")]
