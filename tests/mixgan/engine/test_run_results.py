"""What a run keeps and reports: the best, divergence, speed, its folder, trackers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import pytest
import torch
from accelerate.tracking import GeneralTracker, on_main_process
from PIL import Image
from tiny_run import Training, checkpoint_names, die, logged, settings

from mixgan.engine import accelerator as accelerator_room
from mixgan.engine.checkpoint import pointed
from mixgan.engine.run import Run

# What is watched at steps 2, 4, 6, 8 of nine: accuracies of which the first, the third and none of the others are new bests.
WATCHED = {2: 0.5, 4: 0.4, 6: 0.6, 8: 0.6}


@pytest.mark.parametrize(("every", "saved"), [(None, [2, 4, 6, 8, 9]), (7, [2, 4, 6, 7, 8, 9])])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_is_kept_and_every_evaluation_saved(
    tmp_path: Path, every: int | None, saved: list[int], higher_is_better: bool
):
    folder = tmp_path / "run"
    training = Training(settings(folder, checkpoint_every=every, max_steps=9, keep_checkpoints=9))
    sign = 1 if higher_is_better else -1
    better = [
        training.run.track_best("figure", sign * WATCHED[step], higher_is_better=higher_is_better)
        for step in training.steps()
        if step in WATCHED
    ]
    assert better == [True, False, True, False]
    assert checkpoint_names(folder) == [f"step-{step:08d}" for step in saved]
    best = json.loads((folder / "checkpoints" / "best.json").read_text())
    assert best == {"checkpoint": "step-00000006", "step": 6, "metric": "figure", "value": sign * 0.6}
    resumed = Training(settings(folder, checkpoint_every=every, resume=True))
    assert resumed.run.best == {"metric": "figure", "value": sign * 0.6, "step": 6}


def test_a_diverged_run_ends_with_the_step_and_what_to_try(tmp_path: Path):
    training = Training(settings(tmp_path / "run", log_every=2))

    def diverge() -> None:
        torch.nn.init.constant_(training.network[0].weight, float("nan"))

    with pytest.raises(ValueError, match=r"loss is nan at step 4 \(first at step 3\): training diverged; lower --lr"):
        training.all(at=2, then=diverge)


def test_the_speed_counts_training_alone(tmp_path: Path, monkeypatch):
    # By hand, on a clock that is moved: 10 steps of 2 s with 4 images each; evaluations of 50 s do not count.
    clock = [0.0]
    monkeypatch.setattr("mixgan.engine.run.time", SimpleNamespace(monotonic=lambda: clock[0]))
    training = Training(settings(tmp_path / "run", epochs=2))
    for step in training.steps():
        clock[0] += 2.0
        if step % 5 == 0:
            with training.run.pause():
                clock[0] += 30.0
                with training.run.pause():
                    clock[0] += 20.0
    assert training.run.speed() == {"steps": 10, "epochs": 2.0, "images_per_second": 2.0, "seconds": 20.0}
    resumed = Training(settings(tmp_path / "run", epochs=2, resume=True))
    assert resumed.run.speed() == training.run.speed()


def test_a_dry_run_makes_one_step_and_leaves_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    training = Training(settings(tmp_path / "run", dry_run=True, checkpoint_every=1))
    for _ in training.steps():
        assert training.run.track_best("figure", 1.0, higher_is_better=True)
    assert training.run.step == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]


def test_a_used_folder_and_a_folder_without_a_run(tmp_path: Path):
    Training(settings(tmp_path / "run", max_steps=1)).all()
    with pytest.raises(ValueError, match="is in use; add --resume"):
        Training(settings(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"nothing to resume: .*config\.json does not exist"):
        Training(settings(tmp_path / "other", resume=True))
    with pytest.raises(ValueError, match=r"other settings: --seed is 1, was 0$"):
        Training(settings(tmp_path / "run", resume=True, seed=1))


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_ended_before_its_first_checkpoint_starts_again_either_way(tmp_path: Path, capsys, resume: bool):
    whole = Training(settings(tmp_path / "whole")).all()
    folder = tmp_path / "killed"
    with pytest.raises(MemoryError):
        Training(settings(folder)).all(at=2, then=die)
    assert [record["step"] for record in logged(folder)] == [1, 2]
    (folder / "samples" / "step-00000000.png").touch()
    (folder / "checkpoints" / ".step-00000003.partial").mkdir()  # a kill while it saved
    again = Training(settings(folder, resume=resume)).all()
    assert ("ended before its first checkpoint" in capsys.readouterr().out) == resume
    assert torch.equal(again.weights(), whole.weights())
    assert logged(folder) == logged(tmp_path / "whole")
    assert list((folder / "samples").iterdir()) == []


@pytest.mark.parametrize("steps", [1, 5])  # before and after the first checkpoint
def test_a_second_writer_is_refused_and_disturbs_nothing(tmp_path: Path, monkeypatch, steps: int):
    # The lock of another process, played: within one process a POSIX lock is shared.
    folder = tmp_path / "run"
    with pytest.raises(MemoryError):
        Training(settings(folder, checkpoint_every=3)).all(at=steps, then=die)

    def locked(*arguments: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr("mixgan.engine.run_folder.fcntl.lockf", locked)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for resume in (True, False) if steps == 1 else (True,):
        with pytest.raises(ValueError, match=f"{folder} is in use by process .* on .*: wait"):
            Training(settings(folder, resume=resume))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_networks_begin_equal_and_draws_follow_the_seed(tmp_path: Path):
    first, same, other = (
        Training(settings(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert torch.equal(first.network[0].weight, same.network[0].weight)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_summary_is_json_with_null_for_what_is_not_a_number(tmp_path: Path):
    run = Training(settings(tmp_path / "run")).run
    run.write_summary({"accuracy": 0.5, "ece": float("nan")})
    assert json.loads(run.folder.summary.read_text()) == {"accuracy": 0.5, "ece": None}


class NotingTracker(GeneralTracker):
    """A user's own tracker for accelerate: it writes every call to a file in its folder."""

    name = "noting"
    requires_logging_directory = True

    @on_main_process
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "noted.jsonl"

    @property
    def tracker(self) -> Path:
        return self.path

    @on_main_process
    def store_init_configuration(self, values: dict) -> None:
        assert values["max-steps"] == 2
        assert all(isinstance(value, int | float | str) for value in values.values())

    def log_images(self, values: dict, step: int | None, **kwargs: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([step, {name: images.shape for name, images in values.items()}]) + "\n")

    @on_main_process
    def log(self, values: dict, step: int | None, **kwargs: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([step, sorted(values)]) + "\n")


def test_a_tracker_lives_in_the_run_folder_and_hears_all_numbers(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no --output-dir: the folder's name is made up
    monkeypatch.setattr(accelerator_room, "get_available_trackers", lambda: ["tensorboard"])
    monkeypatch.setattr(accelerator_room, "filter_trackers", lambda name, folder: [NotingTracker(folder)])
    training = Training(settings(None, tracker="tensorboard", max_steps=2))
    for step in training.steps():
        training.run.record({"fd": 3.0 * step, "features": "bundled"})
    accelerator_room.log_picture(training.run.accelerator, "samples", Image.new("L", (5, 4)), 2)
    [noted] = (tmp_path / "runs").glob("test-*/noted.jsonl")
    numbers = ["aim", "epoch", "loss"]
    assert [json.loads(line) for line in noted.read_text().splitlines()] == [
        [1, numbers], [1, ["fd"]], [2, numbers], [2, ["fd"]], [2, {"samples": [1, 4, 5, 3]}],
    ]  # fmt: skip


def test_a_tracker_that_is_not_installed_is_an_error(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(accelerator_room, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ValueError, match="--tracker wandb needs the package wandb: pip install wandb"):
        Run.start(settings(tmp_path / "run", tracker="tensorboard,wandb"), recipe="test")
    with pytest.raises(ValueError, match=r"--tracker takes none or names among .*tensorboard.*wandb.*; got 'paper'"):
        Run.start(settings(tmp_path / "run", tracker="paper"), recipe="test")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_that_fails_leaves_no_folder(tmp_path: Path):
    code = (
        "from mixgan.engine.config import CommonSettings; from mixgan.engine.run import Run;"
        "run = Run.start(CommonSettings(dry_run=True, accumulation_steps=3), recipe='test');"
        "print(run.folder.path, run.folder.path.is_dir()); run.begin(2)"
    )
    done = forked.run(["-c", code], cwd=tmp_path)
    assert "ValueError: --accumulation-steps 3 exceeds the 2 batches of an epoch" in done.stderr
    folder, was_there = done.stdout.split()[-2:]
    assert was_there == "True"
    assert not Path(folder).exists()


def test_weights_of_a_step_that_is_lost_are_not_the_best(tmp_path: Path):
    """The best evaluation was at step 4, whose checkpoint is damaged: step 2 is taken up, and weights/best is not step 4's."""
    folder = tmp_path / "run"
    training = Training(settings(folder, keep_checkpoints=3))
    for step in training.steps():
        if step in (2, 4):
            training.run.track_best("accuracy", step / 10, higher_is_better=True)
        if step == 4:
            (folder / "weights" / "best").mkdir()
            break
    (folder / "checkpoints" / "step-00000004" / "trainer.pt").write_bytes(b"damaged")
    resumed = Training(settings(folder, keep_checkpoints=3, resume=True))
    assert (resumed.run.step, resumed.run.best) == (2, {"metric": "accuracy", "value": 0.2, "step": 2})
    assert not (folder / "weights" / "best").exists()
    assert pointed(resumed.run.checkpoints.folder, "best.json").name == "step-00000002"
    resumed.run.finish()
