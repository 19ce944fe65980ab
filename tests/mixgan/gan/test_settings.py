"""Settings from command-line words, and the learning-rate schedule that --epochs and --constant-share stand for."""

import itertools
import json
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mixgan.engine.config import to_json
from mixgan.gan.config import PAPER, QUICK, DcganSettings, GanSettings, settings_from
from mixgan.gan.dcgan import DCGAN
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.train import decay


@pytest.fixture
def with_maps(tmp_path: Path) -> Path:
    """A data root where Google Maps lies."""
    (tmp_path / "maps" / "train").mkdir(parents=True)
    Image.new("RGB", (16, 8)).save(tmp_path / "maps" / "train" / "1.png")
    return tmp_path


def parsed(data_root: Path, *words: str) -> GanSettings:
    return settings_from(["--data-root", str(data_root), *words])


def values(settings: GanSettings, names: object) -> dict[str, object]:
    return {name: getattr(settings, name) for name in names}


def test_without_flags_it_is_the_quick_preset_on_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = parsed(tmp_path)
    assert (settings.dataset, settings.mixing) == ("tiles", "mixcyclegan-plus")
    assert values(settings, QUICK) == QUICK
    said = capsys.readouterr().out.strip()
    assert said.splitlines() == [said]
    assert f"No Google Maps under {tmp_path}: using the synthetic tiles" in said


def test_where_google_maps_lies_it_is_the_paper_preset_on_them(with_maps: Path, capsys: pytest.CaptureFixture[str]):
    settings = parsed(with_maps)
    assert settings.dataset == "maps"
    assert values(settings, PAPER) == PAPER
    assert capsys.readouterr().out == f"Using Google Maps from {with_maps}.\n"


def test_a_named_data_set_needs_no_words(with_maps: Path, capsys: pytest.CaptureFixture[str]):
    assert values(parsed(with_maps, "--dataset", "tiles"), QUICK) == QUICK
    assert values(parsed(with_maps / "elsewhere", "--dataset", "maps"), PAPER) == PAPER
    assert capsys.readouterr().out == ""


def test_the_defaults_are_the_published_settings(with_maps: Path):
    published = {
        "image_size": 256, "width": 64, "blocks": 9, "batch_size": 1, "lr": 2e-4, "pool_size": 50, "gan_loss": "lsgan",
        "cycle_weight": 10.0, "identity_weight": 0.5, "alpha": 1.0, "shared_lambda": True, "h_prob": 0.5,
        "unstitched": 0.0, "d_term": "replace", "d_real": "target", "constant_share": 0.5, "ema": 0.0, "d_alpha": None,
    }  # fmt: skip
    assert values(parsed(with_maps), published) == published
    assert {mixing: parsed(with_maps, "--mixing", mixing).epochs for mixing in ("mixcyclegan", "none")} == {
        "mixcyclegan": 150,
        "none": 200,
    }


def test_flags_win_over_the_preset(tmp_path: Path):
    settings = parsed(tmp_path, "--preset", "paper", "--mixing", "none", "--epochs", "3", "--no-shared-lambda")
    assert (settings.dataset, settings.width, settings.epochs, settings.shared_lambda) == ("tiles", 64, 3, False)


def test_flags_are_spelled_as_documented(tmp_path: Path):
    words = (
        "--dataset tiles --mixing dmix-only --image-size 64 --eval-every 5 --download --preset quick --epochs 7 --max-steps 9 "
        "--batch-size 3 --seed 11 --output-dir there --checkpoint-every 4 --dry-run"
    )
    expected = {
        "data_root": tmp_path, "dataset": "tiles", "mixing": "dmix-only", "image_size": 64, "eval_every": 5,
        "download": True, "preset": "quick", "epochs": 7, "max_steps": 9, "batch_size": 3, "seed": 11,
        "output_dir": Path("there"), "checkpoint_every": 4, "dry_run": True, "resume": False,
    }  # fmt: skip
    assert values(parsed(tmp_path, *words.split()), expected) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image-size 66", "--image-size must be a multiple of 4, at least 32, got 66"),
        ("--image-size 28", "--image-size must be at least 32, got 28"),
        (
            "--gan-loss hinge --mixing consistency",
            "--gan-loss hinge does not go with --mixing consistency: the hinge loss",
        ),
        ("--d-alpha 0.5", "--d-alpha 0.5 is for the discriminators' own lambdas, which need --no-shared-lambda"),
        ("--d-alpha 0 --no-shared-lambda", "--d-alpha must be above 0, got 0.0"),
        ("--d-real input --mixing consistency", "--mixing mixcyclegan or dmix-only, got --mixing consistency"),
        ("--d-weight 0", "--d-weight must be above 0, got 0.0"),
        ("--ema 1", "--ema must be at least 0 and below 1, got 1.0"),
        (
            "--mixed-precision fp16 --accumulation-steps 2",
            "--mixed-precision fp16 does not go with --accumulation-steps 2: .* use bf16",
        ),
        ("--preset slow", "unknown preset 'slow'; known: quick, paper"),
        ("--unstitched 1.5", "--unstitched must be at least 0 and at most 1, got 1.5"),
        ("--alpha 0", "--alpha must be above 0, got 0.0"),
        ("--eval-every 0", "--eval-every must be at least 1, got 0"),
        ("--eval-count 1", "--eval-count must be at least 2, got 1"),
        ("--train-count 0", "--train-count must be at least 1, got 0"),
        ("--pool-size -1", "--pool-size must be at least 0, got -1"),
        ("--cycle-weight -0.5", "--cycle-weight must be at least 0, got -0.5"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--resume", "--resume needs --output-dir"),
    ],
)
def test_values_that_cannot_work_are_quoted(tmp_path: Path, words: str, message: str):
    with pytest.raises(ValueError, match=message):
        parsed(tmp_path, *words.split())


@pytest.mark.parametrize("mixing", ["none", "mixcyclegan", "stitch-d"])
def test_hinge_goes_with_hard_labels_and_with_their_odds(tmp_path: Path, mixing: str):
    assert parsed(tmp_path, "--gan-loss", "hinge", "--mixing", mixing).gan_loss == "hinge"


class TestResume:
    """Going on takes the run's own settings instead of a preset's."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        """The folder of a run with settings unlike any preset's."""
        settings = GanSettings(dataset="tiles", width=8, epochs=5, mixing="none", max_steps=3)
        (tmp_path / "config.json").write_text(json.dumps({"recipe": "test", "settings": to_json(settings)}))
        return tmp_path

    def test_the_runs_settings_stand(self, run: Path):
        settings = settings_from(["--resume", "--output-dir", str(run), "--max-steps", "9"])
        kept = {"dataset": "tiles", "width": 8, "epochs": 5, "mixing": "none", "image_size": 256, "max_steps": 9}
        assert values(settings, kept) == kept

    def test_what_decides_the_result_may_not_change(self, run: Path):
        with pytest.raises(ValueError, match="--mixing is dmix-only, was none"):
            settings_from(["--resume", "--output-dir", str(run), "--mixing", "dmix-only"])

    def test_nothing_to_resume_is_said(self, tmp_path: Path):
        with pytest.raises(ValueError, match="nothing to resume"):
            settings_from(["--resume", "--output-dir", str(tmp_path / "none")])


class TestSchedule:
    """The learning rate against ``lambda_rule`` of CycleGAN's code, whose epochs count from 0 here."""

    @staticmethod
    def rates(batches_per_epoch: int, **changes: object) -> list[float]:
        """The rate of every optimizer step of a run whose base rate is 1."""
        settings = GanSettings(**changes)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = decay(optimizer, SimpleNamespace(steps_per_epoch=batches_per_epoch), settings)
        rates = []
        for _ in range(settings.epochs * (batches_per_epoch // settings.accumulation_steps)):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates

    @staticmethod
    def lambda_rule(n_epochs: int, n_epochs_decay: int) -> list[float]:
        return [1.0 - max(0, e + 1 - n_epochs) / (n_epochs_decay + 1) for e in range(n_epochs + n_epochs_decay)]

    @pytest.mark.parametrize(
        ("changes", "constant", "falling"),
        [({}, 75, 75), ({"epochs": 200}, 100, 100), ({"epochs": 4, "constant_share": 0.75}, 3, 1),
         ({"epochs": 3}, 2, 1), ({"epochs": 1}, 1, 0), ({"epochs": 5, "constant_share": 0.0}, 0, 5)],
    )  # fmt: skip
    def test_constant_then_linear_changed_at_epoch_ends(self, changes: dict, constant: int, falling: int):
        expected = itertools.chain.from_iterable([rate] * 3 for rate in self.lambda_rule(constant, falling))
        assert self.rates(3, **changes) == pytest.approx(list(expected), rel=1e-12)

    def test_accumulated_batches_make_an_epoch_shorter(self):
        assert self.rates(7, epochs=2, accumulation_steps=3) == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize(("method", "settings"), [(MixCycleGAN, GanSettings), (DCGAN, DcganSettings)])
def test_every_option_of_a_gan_is_a_flag_of_its_command(method: type, settings: type):
    own = {
        "self",
        "G_A",
        "G_B",
        "D_A",
        "D_B",
        "generator",
        "discriminator",
        "accelerator",
        "optimizer_g",
        "optimizer_d",
    }
    assert set(signature(method.__init__).parameters) - own <= settings.hints().keys()
