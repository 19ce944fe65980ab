"""Flags of recipes/dcgan.py: presets, --dataset auto, and what is refused."""

import pytest

from mixgan.gan.config import DCGAN_PAPER, DCGAN_QUICK, DcganSettings, dcgan_settings_from


def test_without_flags_it_is_the_quick_preset_on_tiles(tmp_path, capsys):
    settings = dcgan_settings_from(["--data-root", str(tmp_path)])
    assert (settings.dataset, settings.mixing) == ("tiles", "mixup")
    assert {name: getattr(settings, name) for name in DCGAN_QUICK} == DCGAN_QUICK
    assert capsys.readouterr().out.startswith(f"No CIFAR-10 under {tmp_path}: using the synthetic tiles")


def test_where_cifar10_lies_it_is_the_paper_preset_on_it(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / "cifar10" / split).mkdir(parents=True)
    settings = dcgan_settings_from(["--data-root", str(tmp_path)])
    assert settings.dataset == "cifar10"
    assert {name: getattr(settings, name) for name in DCGAN_PAPER} == DCGAN_PAPER
    assert capsys.readouterr().out == f"Using CIFAR-10 from {tmp_path}.\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "--alpha must be above 0, got 0.0"),
        ({"ema": 1.0}, "--ema must be at least 0 and below 1, got 1.0"),
        ({"image_size": 48}, "--image-size must be one of 32, 64, 128, 256, got 48"),
        ({"batch_size": 1}, "--batch-size must be at least 2, got 1"),
        ({"eval_count": 1}, "--eval-count must be at least 2, got 1"),
        ({"dataset": "tiles", "features": "inception"}, "--features inception is made for photographs"),
        ({"mixed_precision": "fp16", "accumulation_steps": 2}, "does not go with --accumulation-steps 2"),
    ],
)
def test_what_is_out_of_range_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        DcganSettings(**{"batch_size": 2, **changes}).check()


def test_an_unknown_preset_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown preset 'fast'; known: quick, paper"):
        dcgan_settings_from(["--data-root", str(tmp_path), "--preset", "fast"])


def test_workers_have_no_use_where_all_images_are_in_memory(tmp_path):
    with pytest.raises(ValueError, match="--num-workers has no use for dcgan"):
        dcgan_settings_from(["--data-root", str(tmp_path), "--num-workers", "2"])
