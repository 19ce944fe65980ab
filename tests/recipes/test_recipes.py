"""The two commands end to end with few steps, and what they leave behind.

Of classify through the real `accelerate launch`, which test_launcher.py has for mixcyclegan_maps.
"""

import json

import forked
from PIL import Image

from mixgan.engine.run_folder import load_weights, read_metadata
from mixgan.gan.networks import ResnetGenerator

TINY_GAN = ("--image-size", 32, "--width", 4, "--blocks", 1, "--train-count", 12, "--eval-count", 6)


def test_mixcyclegan_leaves_a_complete_run_folder(launch):
    printed = launch("mixcyclegan_maps.py", *TINY_GAN, "--batch-size", 2, "--epochs", 1, "--eval-every", 3)
    assert "No Google Maps under data: using the synthetic tiles" in printed
    (folder,) = (launch.cwd / "runs").glob("mixcyclegan_maps-*")
    assert str(folder.relative_to(launch.cwd) / "report.html") in printed
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["epochs"] == 1
    assert summary["n_real"] == summary["n_fake"] == 6
    assert summary["features"] == "bundled"
    for key in ("fd", "kid", "rmse", "rmse_gcgan", "acc5", "acc10", "ssim"):
        assert isinstance(summary[f"{key}_AtoB"], float)
        assert isinstance(summary[f"{key}_BtoA"], float)
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["dataset"] == "tiles"
    assert config["versions"]["torch"]
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        "step-00000000.png", "step-00000003.png", "step-00000006.png", "training.png",
    ]  # fmt: skip
    with Image.open(folder / "samples" / "step-00000006.png") as grid:
        assert len(grid.getcolors(maxcolors=10**6)) > 100
    assert "not comparable with published FID" in (folder / "report.html").read_text()
    for name in ("D_A", "D_B", "G_B", "G_A"):
        about = read_metadata(folder / "weights" / "last" / f"{name}.safetensors")
        assert about["width"] == 4
    generator = ResnetGenerator(width=about["width"], blocks=1, upsample=about["upsample"], skip=about["skip"])
    load_weights(folder / "weights" / "last" / "G_A.safetensors", generator)
    pointers = [json.loads((folder / "checkpoints" / name).read_text()) for name in ("last.json", "best.json")]
    for pointer in pointers:
        assert (folder / "checkpoints" / pointer["checkpoint"]).is_dir()


def test_classify_leaves_a_complete_run_folder(launch):
    printed = launch.really(
        "classify.py", "--method", "cutmix", "--mixer.alpha", 0.5, "--train-count", 200, "--epochs", 2
    )
    assert "No CIFAR-10 under data: using the synthetic tiles" in printed
    (folder,) = (launch.cwd / "runs").glob("classify-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == "cutmix"
    assert summary["steps"] == 2 * (200 // 64)
    assert summary["n_test"] == 1000
    assert 0 <= summary["test_accuracy_last10"] <= summary["test_accuracy_best"] <= 1
    assert 0 <= summary["ece"] <= 1
    assert json.loads((folder / "config.json").read_text())["settings"]["mixer"] == {"alpha": 0.5, "per_batch": False}
    assert read_metadata(folder / "weights" / "last" / "network.safetensors")["network"] == "bundled"
    assert (folder / "samples" / "mixed.png").is_file()
    assert (folder / "report.html").is_file()


def test_a_wrong_flag_value_is_one_sentence(launch):
    ended = forked.run([launch.recipes / "mixcyclegan_maps.py", "--preset", "fast"], cwd=launch.cwd)
    assert ended.returncode == 2
    assert "error: unknown preset 'fast'; known: quick, paper\n" in ended.stderr
