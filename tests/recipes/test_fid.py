"""recipes/fid.py as a user starts it: several processes find what one finds."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

from classify.__main__ import main as classify
from classify.weights import checkpoint_features
from mixgan.data.tiles import make_tiles
from mixgan.evaluate.command import main


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
    main([*words, "--json", "one.json", "--no-use-cache", "--threads", "1"], read_checkpoint=checkpoint_features)
    three, one = (json.loads((launch.cwd / f"{name}.json").read_text()) for name in ("three", "one"))
    for figures in (one, three):
        del figures["seconds"]
    numbers = {key for key, value in one.items() if isinstance(value, float)}
    assert {"fd", "fd_high", "coverage", "rmse", "ssim"} <= numbers
    assert {key: three.pop(key) for key in numbers} == pytest.approx({key: one.pop(key) for key in numbers}, rel=1e-9)
    assert three == one
    assert one["distance"].startswith(
        "Frechet distance (bundled-imagefolder features), not comparable with published FID"
    )
    assert [one[key] for key in ("n_real", "n_fake", "kept_real", "n_pairs")] == [15, 2, 11, 2]
