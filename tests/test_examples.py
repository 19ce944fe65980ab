"""The examples run, shortened, and do what they say."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.engine.run_folder import save_weights
from mixgan.gan.networks import ResnetGenerator

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, function: str = "main", **values: object) -> object:
    return runpy.run_path(str(EXAMPLES / name))[function](**values)


def test_own_loop_learns(capsys):
    assert run("own_loop.py", epochs=2, train_count=1000) > 0.2  # of ten classes
    assert "epoch 2: loss" in capsys.readouterr().out


def test_own_networks_of_unequal_channels_train():
    losses = run("own_networks.py", steps=2)
    assert {"G_A", "G_B", "cycle_A", "cycle_B", "D_A", "D_B"} <= losses.keys()
    assert not any(name.startswith("idt") for name in losses)
    assert all(loss.isfinite() for loss in losses.values())


def test_fid_in_training_is_of_the_images_of_its_step():
    found = run("fid_in_training.py", steps=4, eval_every=2, count=64)
    assert len(found) == 2
    assert all(value > 0 for value in found)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent), prepend=":")  # of the kernel, in a checkout not installed
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a kernel draws into the notebook
    notebook = nbformat.read(EXAMPLES / "mixing.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    printed = "".join(output.get("text", "") for output in outputs)
    assert float(printed.rpartition("after 60 steps: ")[2]) > 0.2  # of ten classes


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_translates_a_picture(channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Oracle: the generator itself, on the picture in [-1, 1]; gradio is a stand-in that keeps what it is given."""
    torch.manual_seed(0)
    generator = ResnetGenerator(channels, 3, width=4, blocks=1).eval()
    save_weights(tmp_path / "G_A.safetensors", generator, {"direction": "AtoB", "names": ["horse", "zebra"]})
    stand_in = SimpleNamespace(Interface=lambda *parts, **texts: (parts, texts), Image=lambda **facts: facts)
    monkeypatch.setitem(sys.modules, "gradio", stand_in)
    (translate, *ends), texts = run("translate_app.py", "page", source=str(tmp_path / "G_A.safetensors"))
    assert [end["label"] for end in ends] == ["horse", "zebra"]
    assert texts["title"] == "horse to zebra"
    pixels = np.random.default_rng(0).integers(256, size=(32, 48, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    picture = Image.fromarray(pixels)
    pixels = np.array(picture.convert("L" if channels == 1 else "RGB")).reshape(32, 48, channels)
    with torch.no_grad():
        expected = (generator(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0] + 1) * 127.5
    found = torch.from_numpy(np.array(translate(picture))).permute(2, 0, 1).float()
    assert (found - expected).abs().max() <= 0.51


@pytest.mark.parametrize(
    "path", sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]), ids=lambda path: path.name
)
def test_every_example_is_tested(path: Path):
    assert path.name in Path(__file__).read_text()
