"""A generator as ONNX: what onnxruntime makes of it against torch, and what is said where something is missing or wrong."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgan.engine.run_folder import save_weights
from mixgan.gan import export as command
from mixgan.gan.export import export_onnx, measured_on
from mixgan.gan.networks import ResnetGenerator
from mixgan.gan.translate import main
from mixgan.gan.weights import find_generator


@pytest.fixture
def generator() -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=4, blocks=1).eval()


def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (45, 38, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "2.png")
    (tmp_path / "photos" / "1.png").write_bytes(b"no image")
    return tmp_path / "photos"


@pytest.mark.parametrize("missing", [["onnxruntime"], ["onnx", "onnxscript", "onnxruntime"]])
def test_missing_packages_are_named_before_any_work(missing, generator, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in missing else sys.__spec__)
    with pytest.raises(
        ValueError, match=rf"^--export onnx needs {', '.join(missing)}: pip install 'mixgan\[export\]'$"
    ):
        main([str(tmp_path / "nowhere"), "photos", "maps", "--export", "onnx"])


def test_the_export_agrees_with_torch_at_every_size(generator, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "new" / "G_A.onnx"
    save_weights(tmp_path / "G_A.safetensors", generator, {})
    assert 0 < export_onnx(find_generator(tmp_path / "G_A.safetensors"), path) < 1e-5
    assert [file.name for file in path.parent.iterdir()] == ["G_A.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 8, 8), (3, 3, 40, 32), (2, 3, 16, 100)):
        images = torch.rand(shape) * 2 - 1
        (found,) = session.run(["translated"], {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), generator(images), rtol=0, atol=1e-5)


def test_a_file_that_differs_from_torch_does_not_appear(generator, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(command, "difference_from_torch", lambda *arguments: 0.02)
    save_weights(tmp_path / "G_A.safetensors", generator, {})
    with pytest.raises(
        ValueError, match=r"G_A.onnx was not written: onnxruntime's output differs from torch's by 0.02"
    ):
        export_onnx(find_generator(tmp_path / "G_A.safetensors"), tmp_path / "new" / "G_A.onnx")
    assert list((tmp_path / "new").iterdir()) == []


def test_translate_writes_the_generator_of_the_direction(generator, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    weights, out = tmp_path / "mine.safetensors", tmp_path / "out"
    save_weights(weights, generator, {"role": "generator", "direction": "BtoA"})
    words = [
        str(weights),
        str(photos(tmp_path)),
        str(out),
        "--export",
        "onnx",
        "--on-bad-image",
        "skip",
        "--threads",
        "1",
    ]
    main(words)
    assert {path.name for path in out.iterdir()} == {"2.png", "G_B.onnx"}
    assert f"{out / 'G_B.onnx'}: differs from torch by at most " in capsys.readouterr().out
    (out / "2.png").unlink()
    with pytest.raises(ValueError, match=r"G_B.onnx exists already; add --overwrite"):
        main(words)


@pytest.mark.parametrize(
    ("place", "ema", "distance"),
    [
        ("weights/last/G_A_ema.safetensors", True, 5.0),
        ("weights/best/G_A_ema.safetensors", True, 3.0),
        ("checkpoints/step-00000001", True, 3.0),
        ("checkpoints/step-00000003", True, None),  # not evaluated
        ("weights/last/G_A.safetensors", False, None),  # the moving average was
    ],
)
def test_metrics_on_a_card_are_those_of_just_these_weights(tmp_path, place, ema, distance):
    """The log is written by hand; step 0, untrained, has the least distance, but is not among the best."""
    for folder in ("weights/last", "weights/best", "checkpoints/step-00000001", "checkpoints/step-00000003"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "mixcyclegan_maps", "settings": {"seed": 0}}))
    (tmp_path / "checkpoints" / "best.json").write_text(json.dumps({"checkpoint": "step-00000001", "step": 1}))
    log = [{"step": step, "epoch": 0, "fd_AtoB": fd, "weights": "ema"} for step, fd in ((0, 1.0), (1, 3.0), (2, 5.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in log))
    settings, metrics = measured_on(tmp_path / place, "fd_AtoB", ema=ema)
    assert (settings, metrics.get("fd_AtoB")) == (({}, None) if distance is None else ({"seed": 0}, distance))


def test_a_card_has_no_metrics_where_the_step_of_the_weights_was_not_measured_or_is_unknown(tmp_path):
    """A signal stopped the run between two evaluations, as the card beside its weights says; its checkpoints are deleted."""
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "mixcyclegan_maps", "settings": {"seed": 0}}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0, "fd_AtoB": 3.0, "weights": "plain"}\n')
    places = [tmp_path / "weights" / name for name in ("last", "best")]
    for place, text in zip(places, ("", "\n## Metrics\n\n| fd | 3 |\n"), strict=True):
        place.mkdir(parents=True)
        (place / "README.md").write_text(f"# Weights\n{text}")
    last, best = (measured_on(place / "G_A.safetensors", "fd_AtoB", ema=False) for place in places)
    assert last == best == ({}, {})
    (places[0] / "README.md").write_text("# Weights\n\n## Metrics\n")
    assert measured_on(places[0] / "G_A.safetensors", "fd_AtoB", ema=False)[1]["fd_AtoB"] == 3.0
