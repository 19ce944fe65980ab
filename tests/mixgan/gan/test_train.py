"""The command in this process: a stopped and resumed run equals an uninterrupted one; best.json; compiled networks."""

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

import mixgan
from mixgan.data.domains import Domains
from mixgan.engine.run_folder import read_metadata, read_metrics
from mixgan.gan import train as train_module
from mixgan.gan.__main__ import main
from mixgan.gan.config import GanSettings
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.train import build_model
from mixgan.gan.weights import find_generator

TINY = (
    "--dataset tiles --image-size 32 --width 4 --blocks 1 --train-count 12 --eval-count 6 --pool-size 2 --log-every 1 "
    "--threads 1 --no-eval-at-start --mixing mixcyclegan --batch-size 2 --epochs 2 --lr 2e-4 --ema 0 --upsample transposed "
    "--no-skip"
)


pytestmark = pytest.mark.usefixtures("own_process_state")


@pytest.fixture(scope="module")
def train(run_command):
    """A function of a folder and words."""
    return partial(run_command, main, TINY)


@pytest.fixture(scope="module")
def results(results_of):
    """A function of a folder."""
    return partial(results_of, "G_A")


SWITCHES = "--mixing stitch-d --gan-loss hinge --unstitched 0.5 --gradient-checkpointing"


@pytest.fixture(scope="module")
def averaged(train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run") / "averaged", f"{SWITCHES} --ema 0.9 --max-steps 3")


def test_stopped_and_resumed_equals_uninterrupted(train, results, averaged: Path, tmp_path: Path):
    broken = train(tmp_path / "broken", f"{SWITCHES} --ema 0.9 --max-steps 2")
    train(broken, f"{SWITCHES} --ema 0.9 --max-steps 3 --resume")
    for found, expected in zip(results(broken), results(averaged), strict=True):
        assert found == expected


def test_averaged_weights_are_evaluated_saved_and_preferred(
    train, results, averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = train(tmp_path / "plain", f"{SWITCHES} --max-steps 3")
    assert "moving average" not in capsys.readouterr().out
    (log, summary, weights), (plain_log, plain_summary, plain_weights) = results(averaged), results(plain)
    assert log == plain_log  # training does not know of the average
    assert (summary["weights"], plain_summary["weights"]) == ("ema", "plain")
    assert summary["fd_AtoB"] != plain_summary["fd_AtoB"]
    assert weights.keys() - plain_weights.keys() == {"G_A_ema.safetensors", "G_B_ema.safetensors"}
    assert weights["G_A.safetensors"] == plain_weights["G_A.safetensors"]
    for way, name in (("AtoB", "G_A_ema"), ("BtoA", "G_B_ema")):
        found = find_generator(averaged, direction=way)
        assert found.path.stem == name
        about = {"role": "generator", "name": name, "width": 4, "blocks": 1, "direction": way, "ema": 0.9}
        about |= {"upsample": "transposed", "skip": False, "generator": "resnet", "norm": "instance", "clip_grad": None}
        about |= {"names": ["photo", "map"], "bits_out": 8}
        assert read_metadata(found.path) == about
        first_weights = [
            find_generator(averaged, direction=way, ema=ema).build().layers[0].weight for ema in (True, False)
        ]
        assert not torch.equal(*first_weights)


def test_a_summary_holds_diversity_and_correlation(results, averaged: Path):
    _, summary, _ = results(averaged)
    for way in ("AtoB", "BtoA"):
        assert 0 < summary[f"diversity_{way}"] < 255
        assert 10 < summary[f"diversity_real_{way}"] < 128  # tiles differ
        assert -1 < summary[f"luminance_correlation_{way}"] < 1


def test_an_evaluation_is_recorded_when_its_picture_is_there(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A resumed run repeats an evaluation that has no record: a kill before the picture must leave none."""
    with monkeypatch.context() as broken:
        broken.setattr(train_module, "write_picture", lambda path, picture: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(ValueError, match="disk"):  # as on_main passes it on to all processes
            train(tmp_path / "run", "--max-steps 2")
    assert not any("fd_AtoB" in record for record in read_metrics(tmp_path / "run/metrics.jsonl"))
    train(tmp_path / "run", "--max-steps 2 --resume")
    assert (tmp_path / "run/samples/step-00000002.png").is_file()


def test_best_json_points_at_the_lowest_mean_distance(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    distances = iter([(9.0, 5.0), (2.0, 4.0), (1.0, 6.0), (8.0, 0.5)])
    measure = train_module.measure

    def scripted(*args: object) -> dict[str, object]:
        a_to_b, b_to_a = next(distances)
        return {**measure(*args), "fd_AtoB": a_to_b, "fd_BtoA": b_to_a}

    monkeypatch.setattr(train_module, "measure", scripted)
    folder = train(tmp_path / "run", "--max-steps 4 --eval-every 1 --keep-checkpoints 1")
    best = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert best == {
        "checkpoint": "step-00000002", "step": 2, "metric": "mean of fd_AtoB and fd_BtoA: FD (bundled)", "value": 3.0
    }  # fmt: skip
    assert (folder / "checkpoints" / "step-00000002").is_dir()


def test_a_loss_spike_keeps_the_checkpoint_before_it(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    step = MixCycleGAN.step

    def jumps(model: MixCycleGAN, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        logs = step(model, *batch)
        return logs | {"D_A": logs["D_A"] + 1e4 * (model.steps == 3)}

    monkeypatch.setattr(MixCycleGAN, "step", jumps)
    monkeypatch.setattr(train_module.Spikes, "WINDOW", 2)
    words = "--checkpoint-every 1 --keep-checkpoints 1 --log-every 4"
    folder = train(tmp_path / "run", f"--max-steps 5 {words}")
    pointer = json.loads((folder / "checkpoints" / "before-spike.json").read_text())
    assert pointer == {"checkpoint": "step-00000002", "step": 2, "spike": 3}
    find_generator(folder, weights="step-2").build()
    assert "the losses jumped to 1e+04 at step 3" in capsys.readouterr().out
    train(folder, f"--max-steps 6 --resume {words}")
    assert (folder / "checkpoints" / "step-00000002").is_dir()
    assert "jumped" not in capsys.readouterr().out


def test_compiled_networks_give_the_same_step(monkeypatch: pytest.MonkeyPatch):
    compiled, in_place = [], torch.nn.Module.compile

    def compile_eagerly(module: torch.nn.Module) -> None:
        compiled.append(module)
        in_place(module, backend="eager")  # traces only; the compiler proper takes minutes

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    images = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    models, logs = [], []
    for options in ({}, {"compile": True, "ema": 0.9}):
        torch.manual_seed(0)
        settings = GanSettings(mixing="none", image_size=32, width=3, blocks=1, **options)
        models.append(build_model(settings, Accelerator(cpu=True)))
        logs.append(models[-1].step(*images))
    plain, fast = models
    assert compiled == [*fast.generators.children(), *fast.discriminators.children()]
    torch.testing.assert_close(logs[1], logs[0], rtol=1e-5, atol=1e-6)
    assert list(fast.generators.state_dict()) == list(plain.generators.state_dict())


def test_a_model_has_the_settings_of_its_run():
    settings = GanSettings(
        mixing="consistency", image_size=32, width=2, blocks=1, alpha=0.7, d_alpha=0.4, shared_lambda=False, h_prob=0.3,
        unstitched=0.1, gan_loss="bce", cycle_weight=8.0, identity_weight=0.25, d_weight=2.0, pool_size=3,
        ema=0.9, lr=1e-3, d_term="add", gradient_checkpointing=True,
    )  # fmt: skip
    model = build_model(settings, Accelerator(cpu=True))
    same = (
        "mixing", "alpha", "d_alpha", "shared_lambda", "unstitched", "gan_loss", "cycle_weight", "identity_weight",
        "d_weight",
    )  # fmt: skip
    assert {name: getattr(model, name) for name in same} == {name: getattr(settings, name) for name in same}
    assert (model.stitcher.h_prob, model.stitcher.alpha) == (0.3, 0.7)
    assert model.pool_a.size == model.pool_b.size == 3
    assert not torch.equal(model.pool_a.generator.get_state(), model.pool_b.generator.get_state())
    assert model.average.decay == 0.9
    assert model.d_parts == ["mixed", "real", "fake"]
    for optimizer in (model.optimizer_g, model.optimizer_d):
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (1e-3, (0.5, 0.999))
    assert model.generators.G_A.layers[9].gradient_checkpointing


def test_a_run_is_not_resumed_on_other_pictures_unless_told_to(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = train(tmp_path / "run", "--max-steps 1")
    original = train_module.training_domains

    def mirrored(settings: GanSettings, *, cache_bytes: int | None) -> Domains:
        domains = original(settings, cache_bytes=cache_bytes)
        return replace(domains, b=domains.b.flip(3))

    monkeypatch.setattr(train_module, "training_domains", mirrored)
    with pytest.raises(ValueError, match=r"the train set has other pixels.*--allow-data-change"):
        train(folder, "--max-steps 2 --resume")
    train(folder, "--max-steps 2 --resume --allow-data-change")
    config = json.loads((folder / "config.json").read_text())
    assert config["data_changes"][0]["differences"] == ["the train set has other pixels or labels"]


def diverge_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make G_A's weights NaN after an update, unseen by the losses of that step."""
    original, steps = MixCycleGAN.step, iter(range(1, 100))

    def diverging(model: MixCycleGAN, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        logs = original(model, *images)
        if next(steps) == step:
            torch.nn.init.constant_(model.generators.G_A.layers[-2].bias, float("nan"))
        return logs

    monkeypatch.setattr(MixCycleGAN, "step", diverging)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--eval-every 2", r"weights are not finite at step 4: .*newest intact checkpoint is .*step-00000002$"),
        ("--checkpoint-every 3", r"G_A is nan at step 6 \(first at step 5\): .* is .*step-00000003$"),
        ("", r"G_A is nan at step 6 \(first at step 5\): .*; no checkpoint was saved before$"),
    ],
)
def test_a_diverged_run_is_neither_saved_nor_evaluated(train, tmp_path: Path, monkeypatch, words: str, sentence: str):
    diverge_at(monkeypatch, 4)
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=sentence):
        train(folder, f"{words} --max-steps 6 --log-every 50")
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    assert steps == ([2] if "eval" in words else [])
    assert not (folder / "summary.json").exists()
    for file in folder.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())
    assert max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")), default=0) < 4


def test_weights_are_exported_at_evaluations_and_when_a_signal_stops_the_run(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    distances, measure, step = iter([(9.0, 5.0), (2.0, 4.0), (8.0, 6.0)]), train_module.measure, MixCycleGAN.step
    steps = iter(range(1, 100))

    def scripted(*args: object) -> dict[str, object]:
        a_to_b, b_to_a = next(distances)
        return {**measure(*args), "fd_AtoB": a_to_b, "fd_BtoA": b_to_a}

    def interrupted(model: MixCycleGAN, *images: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(model, *images)

    monkeypatch.setattr(train_module, "measure", scripted)
    monkeypatch.setattr(MixCycleGAN, "step", interrupted)
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        train(folder, "--max-steps 9 --eval-every 2 --keep-checkpoints 9")
    for weights, at in (("last", 7), ("best", 4)):
        assert f"| length | {at} steps" in (folder / "weights" / weights / "README.md").read_text()
        exported, saved = (mixgan.load(folder, weights=name).state_dict() for name in (weights, f"step-{at}"))
        assert exported.keys() == saved.keys()
        assert all(torch.equal(exported[key], saved[key]) for key in saved)
