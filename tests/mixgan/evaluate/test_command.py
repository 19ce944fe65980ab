"""The command as it is typed: flags, what it prints and writes, exit codes, and Inception's distance against pytorch-fid's."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid.inception import InceptionV3
from torch import Tensor

from mixgan.engine.command import run_command
from mixgan.engine.config import read_options
from mixgan.evaluate.command import FidOptions, main

pytestmark = pytest.mark.usefixtures("fresh_process")

KEYS = {
    "fd", "fd_low", "fd_high", "kid", "kid_std", "kid_subset_size", "precision", "recall", "density", "coverage",
    "clipped_density", "clipped_coverage", "inception_score", "n_real", "n_fake", "features", "resize", "weights_sha256",
    "warnings",
}  # fmt: skip
MORE_KEYS = {
    "inception_score_std",
    "kept_real",
    "kept_fake",
    "distance",
    "preprocessing",
    "note",
    "real",
    "fake",
    "seconds",
    "real_from",
    "fake_from",
}
PAIRED_KEYS = {"rmse", "rmse_gcgan", "acc5", "acc10", "psnr", "ssim", "n_pairs"}
BUNDLED = ("--features", "bundled", "--bootstrap", "2", "--threads", "1")


@pytest.fixture
def folders(save, tiles):
    return str(save("real", tiles.maps)), str(save("fake", tiles.maps // 2 + 30, suffix=".jpg"))


def test_json_page_and_terminal(folders, tmp_path, capsys):
    json_file, page, statistics = (tmp_path / name for name in ("out.json", "out.html", "real.npz"))
    files = ("--json", str(json_file), "--html", str(page), "--save-statistics", str(statistics))
    main(
        [
            *folders,
            *BUNDLED,
            *files,
            "--resize",
            "30",
            "--sample",
            "20",
            "--seed",
            "1",
            "--batch-size",
            "7",
            "--pairs",
            "yes",
        ]
    )
    figures = json.loads(json_file.read_text())
    assert figures.keys() == KEYS | MORE_KEYS | PAIRED_KEYS
    assert not any(isinstance(value, dict) for value in figures.values())
    assert (figures["features"], figures["resize"], figures["n_real"], figures["kept_fake"]) == ("bundled", 30, 24, 20)
    printed = capsys.readouterr().out
    assert "features: bundled, as asked for\n" in printed
    assert f"page: {page}\n" in printed
    assert "FD (bundled)" in printed
    assert "24 images for 64 features" in printed
    assert page.stat().st_size > 10_000
    assert statistics.is_file()


def test_infinities_become_null(folders, tmp_path):
    main([folders[0], folders[0], *BUNDLED, "--pairs", "yes", "--json", str(tmp_path / "out.json")])
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["fd"], figures["psnr"]) == (0, None)


def test_the_cache_flag_as_documented(folders, tmp_path, capsys):
    cache = tmp_path / "xdg" / "mixgan" / "statistics"  # of the test's own XDG_CACHE_HOME
    main([*folders, *BUNDLED, "--no-use-cache"])
    assert not cache.exists()
    main([*folders, *BUNDLED])
    assert len(list(cache.iterdir())) == 1
    main([*folders, *BUNDLED, "--no-use-cache"])
    assert "features from" not in capsys.readouterr().out
    main([*folders, *BUNDLED])
    assert f"{folders[0]}: features from {cache}" in capsys.readouterr().out


def test_names_with_brackets_are_printed_as_they_are(save, tiles, capsys):
    real = str(save("real", tiles.maps))
    fake = save("[/bold]", tiles.maps[:12])
    (fake / "3.png").write_bytes(b"")
    main([real, str(fake), *BUNDLED, "--on-bad-image", "skip"])
    assert f"warning: {fake}: 1 of 12 files skipped as unreadable: {fake / '3.png'}\n" in capsys.readouterr().out


def test_mistakes_are_one_sentence_and_exit_code_2(folders, save, tiles, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    broken = save("broken", tiles.maps)
    (broken / "20.png").write_bytes((broken / "20.png").read_bytes()[:200])
    one = str(save("one", tiles.maps[:1]))
    cases = {
        (str(tmp_path / "nowhere"), folders[1]): "does not exist",
        (folders[0], str(tmp_path / "empty")): "contains no image",
        (one, folders[1]): f"at least 2 images of each set, {one} contains 1",
        (folders[0], str(broken)): "20.png' is truncated",
        (folders[0], str(tmp_path / "other.npz")): "of 2048 dimensions, but the features to compare with have 64",
        (*folders, "--batch-size", "0"): "--batch-size must be at least 1",
    }
    for words, message in cases.items():
        with pytest.raises(SystemExit) as stopped:
            run_command(main, [*words, *BUNDLED, "--json", str(tmp_path / "out.json")])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (tmp_path / "out.json").exists()


def test_pillows_pixel_limit_has_a_flag(folders, monkeypatch, tmp_path, capsys):
    """The images have 32 x 32 pixels, and the limit is set to 2 x 500."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    words = [*folders, *BUNDLED, "--no-use-cache", "--json", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit) as stopped:
        run_command(main, words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "png' has more than 1,000 pixels, " in line
    assert line.endswith("or raise --max-image-pixels if you trust the file")
    with warnings.catch_warnings():
        run_command(main, [*words, "--max-image-pixels", "1024"])
    assert (tmp_path / "out.json").is_file()


@pytest.mark.parametrize("place", [".", "samples", ".."])
@pytest.mark.parametrize("side", ["real", "fake"])
def test_a_run_folder_is_refused_with_the_command_that_translates(place, side, folders, save, tiles, tmp_path, capsys):
    run = save("runs/one/samples", tiles.maps[:3]).parent
    (run / "config.json").write_text("{}")
    (run / "metrics.jsonl").write_text("")
    words = [str(run / place), folders[1]] if side == "real" else [folders[0], str(run / place)]
    with pytest.raises(SystemExit) as stopped:
        run_command(main, [*words, *BUNDLED])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "is a run folder" in message
    assert re.search(r"mixgan translate \S*one\S* INPUT OUTPUT_DIR", message)


def pytorch_fids_features(images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return InceptionV3([0]).eval()(images / 255)[0].mean(dim=(2, 3)).double().numpy()


def frechet(x1: np.ndarray, x2: np.ndarray) -> float:
    """pytorch-fid's formula; the trace of the root by eigenvalues, as its call of scipy's sqrtm fails from scipy 1.18 on."""
    covariance1, covariance2 = np.cov(x1, rowvar=False), np.cov(x2, rowvar=False)
    values, vectors = np.linalg.eigh(covariance1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariance2 @ root).clip(0)).sum()
    return float(((x1.mean(0) - x2.mean(0)) ** 2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2 * cross)


def test_inceptions_distance_is_pytorch_fids(inception_weights, save, tiles, tmp_path, monkeypatch):
    photos, maps = tiles.photos[:6], tiles.maps[:7]
    words = [str(save("real", photos)), str(save("fake", maps)), "--features", "inception", "--dims", "64"]
    json_file, page = tmp_path / "out.json", tmp_path / "out.html"
    files = ["--inception-weights", str(inception_weights), "--json", str(json_file), "--html", str(page)]
    main([*words, *files, "--threads", "1", "--bootstrap", "0"])
    figures = json.loads(json_file.read_text())
    monkeypatch.setenv("TORCH_HOME", str(inception_weights.parents[2]))
    expected = frechet(pytorch_fids_features(photos), pytorch_fids_features(maps))
    assert figures["fd"] == pytest.approx(expected, rel=1e-6)
    assert figures["features"] == "inception-64"
    assert "fid" not in figures
    (warning,) = [text for text in figures["warnings"] if "not the published ones" in text]
    assert f"sha256 {figures['weights_sha256'][:8]}..., not 6726825d..." in warning
    assert warning in page.read_text()


def test_flags_for_inception_alone(folders, tmp_path, capsys):
    main([*folders, *BUNDLED, "--fast", "--json", str(tmp_path / "out.json")])
    warning = "--fast, --dims and --protocol are for Inception, they change nothing about bundled features"
    assert warning in json.loads((tmp_path / "out.json").read_text())["warnings"]


def test_the_old_name_of_bundled_features_is_an_alias_with_a_notice(folders, capsys):
    main([*folders, "--features", "embedded", "--bootstrap", "0", "--threads", "1"])
    printed = capsys.readouterr().out
    assert "--features embedded is now called --features bundled" in printed
    assert "features: bundled, as asked for" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"resize": "-3"}, "--resize must be auto, none or a number of pixels up to 16384, got -3"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"sample": 0}, "--sample must be at least 1, got 0"),
        ({"bootstrap": 1}, "--bootstrap must be 0 or at least 2, got 1"),
        ({"seed": -1}, "--seed must be at least 0 and below 4294967296, got -1"),
        ({"json": "nowhere/out.json"}, "the folder of --json .*nowhere/out.json does not exist"),
        ({"html": "made"}, "--html must name a file, but .*made is a folder"),
        ({"real": "known.npz", "save_statistics": "out.npz"}, "--save-statistics needs the images of REAL"),
        ({"save_statistics": "out.json"}, "--save-statistics must end in .npz, got .*out.json"),
    ],
)
def test_flags_out_of_range_are_refused_at_once(flags, message, tmp_path):
    (tmp_path / "made").mkdir()
    options = FidOptions(real=tmp_path, fake=tmp_path)
    flags = {
        key: tmp_path / value if key in ("real", "json", "html", "save_statistics") else value
        for key, value in flags.items()
    }
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(options, **flags)


def test_several_fakes_and_flags_come_in_any_order():
    words = ["real", "--features", "bundled", "a", "b", "--seed", "3", "c"]
    options, _ = read_options(FidOptions, words, prog="fid")
    assert ([path.name for path in options.fake], options.features, options.seed) == (["a", "b", "c"], "bundled", 3)
    with pytest.raises(ValueError, match="the following arguments are required: FAKE"):
        read_options(FidOptions, ["real"], prog="fid")
