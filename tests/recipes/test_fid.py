"""recipes/fid.py as a user starts it: several processes find what one finds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

import mixgan
from classify.__main__ import main as classify
from classify.weights import checkpoint_features
from mixgan.cli import dispatch
from mixgan.data.tiles import make_tiles
from mixgan.engine.config import run_settings
from mixgan.engine.run_folder import read_metrics
from mixgan.evaluate.command import Readers, main
from mixgan.gan import data as gan_data
from mixgan.gan.__main__ import main as mixcyclegan
from mixgan.gan.config import GanSettings

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = {"--json": ".json", "--html": ".html", "--save-statistics": ".npz"}


@pytest.fixture
def fresh_process():
    """A function that makes this process as good as new; accelerate keeps its state in singletons."""
    threads = torch.get_num_threads()

    def reset():
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        torch.set_num_threads(threads)

    reset()
    yield reset
    reset()


@pytest.fixture
def save(launch):
    """Write images into a folder of the directory that recipes start in; returns its name there."""

    def write(name, images):
        (launch.cwd / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(launch.cwd / name / f"{number}.png")
        return name

    return write


def test_three_processes_find_what_one_finds(launch, save, fresh_process, monkeypatch):
    """An odd number of images on one side, on the other fewer than processes; the features of a run of classify."""
    tiles = make_tiles(15, size=32)
    for split, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        save(f"data/{split}/{name}", tiles.photos[:4])
    monkeypatch.chdir(launch.cwd)
    data = ("--dataset", "imagefolder", "--data-root", "data", "--image-size", "32", "--network", "bundled")
    classify(
        [*data, "--method", "erm", "--batch-size", "4", "--max-steps", "1", "--output-dir", "run", "--threads", "1"]
    )
    words = [save("real", tiles.maps), save("fake", tiles.maps[:2] // 2), "--features", "run", "--cache", "kept"]
    words += ["--pairs", "yes", "--bootstrap", "4", "--sample", "11", "--batch-size", "3"]

    printed = launch("fid.py", *words, "--json", "three.json", "--html", "three.html", processes=3)
    assert "features: bundled-imagefolder, from run/weights/last/network.safetensors, trained with erm" in printed
    assert printed.count("page: three.html") == 1
    fresh_process()
    main(
        [*words, "--json", "one.json", "--no-use-cache", "--threads", "1"],
        readers=Readers(checkpoint=checkpoint_features),
    )
    three, one = (json.loads((launch.cwd / f"{name}.json").read_text()) for name in ("three", "one"))
    for figures in (one, three):
        del figures["seconds"]
    numbers = {key for key, value in one.items() if isinstance(value, float)}
    assert {"fd", "fd_high", "coverage", "rmse", "ssim"} <= numbers
    # Features are float32 and batches differ.
    assert {key: three.pop(key) for key in numbers} == pytest.approx({key: one.pop(key) for key in numbers}, rel=1e-7)
    assert three == one
    assert one["distance"].startswith("FD (bundled-imagefolder)")
    assert [one[key] for key in ("n_real", "n_fake", "kept_real", "n_pairs")] == [15, 2, 11, 2]


def test_a_run_is_translated_on_its_own_test_set(save, launch, fresh_process, monkeypatch):
    """Each checkpoint's numbers are those of a folder of its translations, made here with the loaded generator."""
    monkeypatch.chdir(launch.cwd)
    words = [
        "--dataset",
        "tiles",
        "--image-size",
        "32",
        "--width",
        "4",
        "--blocks",
        "1",
        "--eval-count",
        "6",
        "--train-count",
        "8",
    ]
    mixcyclegan(
        [*words, "--max-steps", "2", "--eval-every", "1", "--output-dir", "run", "--threads", "1", "--lr", "0.01"]
    )
    fresh_process()
    test = gan_data.test_domains(GanSettings(**run_settings(Path("run"), GanSettings)))
    real, flags = save("real", test.a), ["--features", "bundled", "--threads", "1", "--no-use-cache"]
    dispatch(
        [
            "fid",
            real,
            "run",
            *flags,
            "--weights",
            "all,last",
            "--direction",
            "BtoA",
            "--train",
            "run",
            "--json",
            "out.json",
        ]
    )
    found = json.loads(Path("out.json").read_text())
    assert {name: one["step"] for name, one in found["fakes"].items()} == {
        "run step-1": 1,
        "run step-2": 2,
        "run last": 2,
    }
    assert found["n_train"] == 8
    for name, one in found["fakes"].items():
        generator = mixgan.load("run", direction="BtoA", weights=name.removeprefix("run "))
        with torch.no_grad():
            translated = ((generator(test.b / 127.5 - 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        fresh_process()
        dispatch(["fid", real, save(name, translated), *flags, "--json", "alone.json"])
        alone = json.loads(Path("alone.json").read_text())
        assert [one[key] for key in ("fd", "kid", "recall")] == pytest.approx(
            [alone[key] for key in ("fd", "kid", "recall")]
        )
    with pytest.raises(ValueError, match="--weights best is for runs, but no FAKE is a run folder"):
        dispatch(["fid", real, real, *flags, "--weights", "best"])


@pytest.mark.parametrize("average", ["0", "0.9"])
def test_a_run_of_dcgan_generates_by_its_seed(save, launch, fresh_process, monkeypatch, average):
    """Oracle: the distances that the run itself found at its evaluations, from the same noise."""
    monkeypatch.chdir(launch.cwd)
    words = ["--dataset", "tiles", "--width", "4", "--latent", "5", "--train-count", "16", "--eval-count", "7"]
    words += ["--batch-size", "8", "--max-steps", "2", "--eval-every", "1", "--checkpoint-every", "1", "--ema", average]
    dispatch(["dcgan", *words, "--output-dir", "run", "--threads", "1", "--features", "bundled"])
    own = [record for record in read_metrics(Path("run/metrics.jsonl")) if "fd" in record]
    real = save("real", gan_data.load_images("tiles", Path("data"), split="test", size=32, count=7))
    flags = ["--features", "bundled", "--threads", "1", "--no-use-cache"]
    fresh_process()
    dispatch(["fid", real, "run", *flags, "--weights", "step-1,last", "--train", "run", "--json", "out.json"])
    found = json.loads(Path("out.json").read_text())
    assert found["n_train"] == 16
    assert [one["fd"] for one in found["fakes"].values()] == pytest.approx([r["fd"] for r in own[-2:]], rel=1e-4)
    fresh_process()
    dispatch(["fid", real, "run", *flags, "--count", "9", "--json", "out.json"])
    assert json.loads(Path("out.json").read_text())["n_fake"] == 9
    with pytest.raises(ValueError, match="--count 9 is for runs, but no FAKE is a run folder"):
        dispatch(["fid", real, real, *flags, "--count", "9"])
    Path("run/weights/last").rename("elsewhere")
    shutil.rmtree("run/checkpoints")
    Path("run/checkpoints").mkdir()
    with pytest.raises(
        ValueError, match="run has no weights yet: they are written at evaluations and when the run stops"
    ):
        dispatch(["fid", real, "run", *flags])


def test_unusual_names_and_an_ascii_terminal_lose_no_work(tmp_path):
    """Folders and files that are not UTF-8, markup, names of 255 bytes: files are written, names printed as they are."""
    real, fake = tmp_path / os.fsdecode(b"r\xe9al"), tmp_path / "exp[bold]v2"
    for folder, images in ((real, make_tiles(8, size=32).maps), (fake, make_tiles(8, size=32).photos)):
        folder.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
        (folder / "1.png").rename(folder / ("x" * 251 + ".png"))
    (fake / "[bold]broken.png").write_bytes(b"")
    (fake / os.fsdecode(b"broken\xe9.png")).write_bytes(b"")
    written = {flag: tmp_path / ("n" * (255 - len(end)) + end) for flag, end in FILES.items()}
    files = [word for flag, path in written.items() for word in (flag, path)]
    words = [
        real,
        fake,
        "--features",
        "bundled",
        "--bootstrap",
        "2",
        "--threads",
        "1",
        "--on-bad-image",
        "skip",
        *files,
    ]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    environment = {**os.environ, **plain, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, RECIPES / "fid.py", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.decode("ascii")
    assert (
        f"{fake}: 2 of 10 files skipped as unreadable: {fake / '[bold]broken.png'}, {fake}/broken\\udce9.png" in printed
    )
    assert f"page: {written['--html']}" in printed
    metrics = json.loads(written["--json"].read_text())
    assert (metrics["real"], metrics["fake"], metrics["n_real"], metrics["n_fake"]) == (str(real), str(fake), 8, 8)
    assert "exp[bold]v2 against " in written["--html"].read_text()
    assert written["--save-statistics"].is_file()
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in written.values()}
    assert left == {real.name, fake.name, "cache"}
