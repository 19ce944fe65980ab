"""The card beside the weights: it says what is known, leaves out what is not, and its example runs."""

import math
import re
from pathlib import Path

import pytest
from PIL import Image

from mixgan.engine.config import to_json
from mixgan.engine.run_folder import save_weights
from mixgan.gan.card import model_card
from mixgan.gan.config import GanSettings
from mixgan.gan.networks import ResnetGenerator

SETTINGS = to_json(GanSettings(dataset="tiles", image_size=64, seed=7, epochs=3, width=4, blocks=1))
SUMMARY = {
    "steps": 400, "epochs": 2.0, "features": "bundled", "n_real": 31, "n_fake": 29, "fd_AtoB": 12.3456, "fd_BtoA": 7.0,
    "kid_AtoB": math.nan, "kid_BtoA": None, "rmse_AtoB": 54.321,
}  # fmt: skip
FILES = ["G_A.safetensors", "G_B.safetensors"]


def test_tells_how_the_weights_came_about():
    card = model_card(SETTINGS, SUMMARY, files=[*FILES, "G_A_ema.safetensors"])
    for line in (
        "| `G_B.safetensors` | generator, map (B) to aerial photo (A) |",
        "| `G_A_ema.safetensors` | generator, aerial photo (A) to map (B), moving average of its weights over the training |",
        "| data | synthetic tiles, drawn by a program |",
        "| mixing | mixcyclegan |",
        "| image size | 64 px |",
        "| length | 400 steps, 2.0 of 3 epochs |",
        "| seed | 7 |",
    ):
        assert line in card.splitlines()
    assert re.search(r"trained with \| mixgan [\d.]+, torch \d", card)
    assert "never saw a real photo" in card


def test_gives_only_figures_that_were_measured_and_what_they_were_measured_with():
    card = model_card(SETTINGS, SUMMARY, files=FILES)
    rows = [
        line for line in card.partition("## Metrics")[2].partition("## Use")[0].splitlines() if line.startswith("|")
    ]
    assert rows[2:] == ["| Frechet distance | 12.35 | 7 |", "| RMSE (0..255) | 54.32 | not measured |"]
    assert "Of 29 generated against 31 real test images at this step" in card
    assert "of the bundled features, which are not comparable with published FID" in card
    unmeasured = {key: SUMMARY[key] for key in ("steps", "epochs")}
    assert "## Metrics" not in model_card(SETTINGS, unmeasured, files=FILES)


def test_published_settings_are_named_as_such():
    card = model_card(
        {**SETTINGS, "mixing": "none", "dataset": "maps"}, {**SUMMARY, "features": "inception"}, files=FILES
    )
    assert "\n# Aerial photo to map and back: CycleGAN\n" in card
    assert "Inception features" in card
    assert "not comparable" not in card
    assert "never saw" not in card


def test_its_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("G_A", "G_A_ema", "G_B"):
        save_weights(tmp_path / f"{name}.safetensors", ResnetGenerator(width=4, blocks=1), {"role": "generator"})
    card = model_card(SETTINGS, SUMMARY, files=sorted(path.name for path in tmp_path.glob("*.safetensors")))
    assert re.findall(r"^\| `(\S+)` \|", card, re.MULTILINE) == [
        "G_A.safetensors", "G_A_ema.safetensors", "G_B.safetensors",
    ]  # fmt: skip
    assert "mixgan translate G_A_ema.safetensors INPUT_DIR" in card
    assert "mixgan translate G_B.safetensors INPUT_DIR" in card
    Image.new("RGB", (21, 13), "green").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.+?)```", card, re.DOTALL)
    exec(example, {})
    assert Image.open("map.png").size == (21, 13)
