"""The report of a run, written from a log and a summary made up here."""

import base64
import html as html_lib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mixgan.engine.run_folder import RunFolder
from mixgan.gan.config import GanSettings, directions
from mixgan.gan.report import ROWS, result_rows, write_report

FIGURES = {f"{name}_{way}": 100.0 + k for k, name in enumerate(ROWS) for way in ("AtoB", "BtoA")}
SUMMARY = {
    "features": "bundled", "n_real": 31, "n_fake": 29, "steps": 400, "epochs": 2.0, "images_per_second": 3.5,
    "seconds": 180.0, **FIGURES, "rmse_AtoB": 54.321, "kid_BtoA": None,
}  # fmt: skip
WAYS = directions(("photo", "map"))
LOSSES = ("G_A", "G_B", "D_A", "D_B", "cycle_A", "cycle_B", "idt_A", "idt_B")


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    """What the report reads of a run: settings, step, folder with log and samples."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    records = [{"step": 0, "epoch": 0, **{name: 200.0 + name.endswith("BtoA") for name in FIGURES}}]
    records += [
        {"step": step, "epoch": 0, **dict.fromkeys((*LOSSES, "grad_G", "grad_D"), 1 / step)}
        for step in range(10, 401, 10)
    ]
    records += [{"step": 400, "epoch": 2, **FIGURES}]
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    run = SimpleNamespace(
        folder=folder, step=0, best=None, settings=GanSettings(dataset="tiles", image_size=64, seed=7)
    )
    for run.step, colour in ((0, "red"), (400, "blue")):
        Image.new("RGB", (20, 10), colour).save(folder.samples / f"step-{run.step:08d}.png")
    return run


def written(run: SimpleNamespace, summary: dict = SUMMARY) -> str:
    write_report(run, run.settings, summary)
    return run.folder.report.read_text(encoding="utf-8")


def pictures(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_says_what_the_distance_is_and_of_how_many_images(run: SimpleNamespace):
    html = written(run)
    assert "FD (bundled)" in html
    assert "29 generated against 31 real images" in html


def test_each_direction_is_said_to_generate_its_own_domain(run: SimpleNamespace):
    """Also where a name has several words."""
    run.settings = GanSettings(dataset="folders", names="summer photo,old map", image_size=64)
    html = written(run)
    assert "summer photo to old map: quality of the generated old map images (AtoB)." in html
    assert "old map to summer photo: quality of the generated summer photo images (BtoA)." in html


def test_holds_results_curves_samples_and_settings(run: SimpleNamespace):
    html = written(run)
    text = " ".join(re.sub(r"<[^>]+>", " ", html).split())
    assert "RMSE (0..255) 54.32 102.0 200.0 201.0" in text  # both ways, then those of the untrained networks
    assert "kernel distance 101.0 – 200.0 201.0" in text
    for words in (
        "mixcyclegan on tiles",
        "64 px, seed 7",
        "Adversarial losses",
        "identity losses",
        "idt_B",
        "--identity-weight 0.5",
    ):
        assert words in text
    # adversarial losses, cycle losses, gradient norms; distances and diversity over training
    assert html.count("<svg") == 5
    assert "Gradient norms" in text
    assert "Discriminators' answers" not in text  # nothing of them is in the log
    assert "moving average" not in text
    assert [picture.getpixel((0, 0)) for picture in pictures(html)] == [(0, 0, 255)]  # the latest samples


def test_shows_the_training_inputs_where_they_were_drawn(run: SimpleNamespace):
    Image.new("RGB", (20, 10)).save(run.folder.samples / "training.png")
    assert [picture.getpixel((0, 0)) for picture in pictures(written(run))] == [(0, 0, 255), (0, 0, 0)]


def test_the_best_samples_are_beside_the_last(run: SimpleNamespace):
    run.best = {"step": 400}
    assert len(pictures(written(run))) == 1  # they are the last
    run.best = {"step": 0}
    html = written(run)
    assert [picture.getpixel((0, 0)) for picture in pictures(html)] == [(0, 0, 255), (255, 0, 0)]
    assert "The last weights." in html
    assert "The best weights, of step 0." in html


def test_says_that_the_figures_are_of_averaged_weights(run: SimpleNamespace):
    run.settings.ema = 0.99
    assert "of a moving average of the generators' weights (decay 0.99)" in html_lib.unescape(written(run))


def test_further_features_have_their_own_table_and_caveat(run: SimpleNamespace):
    other = {"features": "timm:x", "distance": "FD (timm:x)", "fd_AtoB": 0.1234, "fd_BtoA": 5.0}
    html = written(run, SUMMARY | {"others": {"timm:x": other}})
    assert "Result, FD (bundled)" in html
    assert html.count("not comparable with published FID.") == 2
    assert "Result, FD (timm:x)" in html
    assert "0.1234" in html
    published = written(run, SUMMARY | {"others": {"dinov2": other | {"distance": "FD-DINOv2"}}})
    assert "FD-DINOv2: 29 generated" in published
    assert published.count("not comparable with published FID.") == 1


def test_needs_nothing_from_outside(run: SimpleNamespace):
    html = written(run)
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)|url\(["']?([^"')]+)|@import\s+(\S+)""", html)
    assert addresses
    card = "weights/last/README.md"  # beside the page
    assert all(address.startswith(("data:", "#", card)) for found in addresses for address in found if address)


def test_rows_leave_out_what_was_not_measured():
    unpaired = {name: value for name, value in SUMMARY.items() if name.startswith(("fd", "kid"))}
    rows = result_rows(unpaired, records=[{"step": 10, "fd_AtoB": 1.0}], ways=WAYS)
    assert rows == [
        {"": "Frechet distance", "photo to map": 100.0, "map to photo": 100.0},
        {"": "kernel distance", "photo to map": 101.0, "map to photo": None},
    ]


def test_untrained_networks_of_older_runs_have_fewer_metrics():
    summary = {f"{key}_{way}": 1.0 for key in ("fd", "kid") for way in ("AtoB", "BtoA")}
    rows = result_rows(summary, records=[{"step": 0, "fd_AtoB": 9.0, "fd_BtoA": 8.0}], ways=WAYS)
    assert [row["untrained photo to map"] for row in rows] == [9.0, None]
    row = result_rows({"fd": 1.0, "kid": 2.0}, [{"step": 0, "fd": 9.0}], ways={})[1]
    assert (row["trained"], row["untrained"]) == (2.0, None)
