import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import pytest
import torch
from accelerate.tracking import GeneralTracker, on_main_process
from PIL import Image
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from mixgan.engine import accelerator as accelerator_room
from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.checkpoint import pointed
from mixgan.engine.config import CommonSettings
from mixgan.engine.interrupt import SIGNALS
from mixgan.engine.run import Run
from mixgan.engine.run_folder import RunFolder, read_metrics

BATCHES = 5


class TinyLoader:
    """Five batches of four samples an epoch, each a function of (epoch, position); notes which were asked for."""

    steps_per_epoch = BATCHES

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Tensor]:
        for position in range(first_step, BATCHES):
            self.asked.append((epoch, position))
            yield torch.randn(4, 3, generator=seeded_generator("tiny", epoch, position))


class Draws:
    """Something of this process alone that draws at every step, as image pools do."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Training:
    """A loop as both commands have it, around a network with dropout, momentum, a schedule and a source of draws."""

    def __init__(self, settings: CommonSettings, *, dropout: float = 0.3) -> None:
        self.run = run = Run.start(settings, recipe="test")
        network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 1))
        optimizer = SGD(network.parameters(), 0.1, momentum=0.9)
        self.schedule = LambdaLR(optimizer, lambda step: 1 - step / (settings.epochs * BATCHES))
        self.network, self.optimizer = run.accelerator.prepare(network, optimizer)
        self.draws, self.loader = Draws(), TinyLoader()
        run.register_for_checkpointing("schedule", self.schedule)
        run.register_for_checkpointing("draws", self.draws, own=True)
        run.begin(self.loader.steps_per_epoch)

    def steps(self) -> Iterator[int]:
        """Trains; yields after every optimizer step, inside the loop."""
        run, accelerator = self.run, self.run.accelerator
        for batch in run.batches(self.loader, description="test"):
            batch = batch.to(accelerator.device)
            with accelerator.accumulate(self.network):
                aim = torch.rand((), generator=self.draws.generator).item()
                loss = (self.network(batch) - aim).square().mean()
                accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
            if accelerator.sync_gradients:
                self.schedule.step()
                run.end_step({"loss": loss.detach(), "aim": aim}, images=len(batch))
                yield run.step
        run.finish()

    def all(self, *, at: int = 0, then: Callable[[], object] = lambda: None) -> "Training":
        """Trains to the end; after step ``at`` something happens."""
        for step in self.steps():
            if step == at:
                then()
        return self

    def weights(self) -> Tensor:
        """Parameters and momentum, one after the other."""
        moments = [state["momentum_buffer"] for state in self.optimizer.state_dict()["state"].values()]
        return torch.cat([tensor.detach().flatten().cpu() for tensor in (*self.network.parameters(), *moments)])


def die() -> None:
    raise MemoryError


def settings(folder: Path | None, **values: Any) -> CommonSettings:
    return CommonSettings(**{"output_dir": folder, "epochs": 3, "log_every": 1, "threads": 1, **values})


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def logged(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder / "metrics.jsonl")


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("stop", SIGNALS)
def test_a_run_stopped_by_a_signal_goes_on_bit_for_bit(
    tmp_path: Path, capsys, monkeypatch, accumulation: int, stop: int
):
    # The oracle is the same run without a stop: weights, momentum and every logged number.
    if signal.getsignal(stop) == signal.SIG_IGN:  # under nohup, where a run ignores SIGHUP too
        signal.signal(stop, signal.SIG_DFL)
    options = {"accumulation_steps": accumulation}
    whole = Training(settings(tmp_path / "whole", **options)).all()
    folder = tmp_path / "my run"
    monkeypatch.setattr("sys.argv", ["recipes/test.py", "--epochs", "3"])
    stopped = Training(settings(folder, **options))
    with pytest.raises(SystemExit) as ended:
        stopped.all(at=3, then=lambda: signal.raise_signal(stop))
    assert ended.value.code == 128 + stop
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0] == "Stopped at step 3, saved. Resume with:"
    command = ["accelerate", "launch", "recipes/test.py", "--epochs", "3", "--output-dir", str(folder), "--resume"]
    assert shlex.split(said[1]) == command
    resumed = Training(settings(folder, resume=True, **options))
    assert resumed.run.step == 3  # in the middle of an epoch, whether it has five steps or two
    resumed.all()
    assert torch.equal(resumed.weights(), whole.weights())
    assert logged(folder) == logged(tmp_path / "whole")
    assert resumed.run.images == whole.run.images == whole.run.step * 4


def test_a_run_killed_between_checkpoints_goes_on_from_the_last_bit_for_bit(tmp_path: Path):
    whole = Training(settings(tmp_path / "whole")).all()
    killed = Training(settings(tmp_path / "killed", checkpoint_every=3))
    with pytest.raises(MemoryError):
        killed.all(at=8, then=die)
    assert [record["step"] for record in logged(tmp_path / "killed")] == list(range(1, 9))
    resumed = Training(settings(tmp_path / "killed", resume=True))
    assert resumed.run.step == 6
    resumed.all()
    assert resumed.loader.asked[0] == (1, 1)  # nothing is computed for the batches before
    assert torch.equal(resumed.weights(), whole.weights())
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


def test_a_run_whose_last_checkpoint_is_damaged_resumes_from_the_one_before_bit_for_bit(tmp_path: Path, capsys):
    whole = Training(settings(tmp_path / "whole")).all()
    killed = Training(settings(tmp_path / "killed", checkpoint_every=3))
    with pytest.raises(MemoryError):
        killed.all(at=8, then=die)
    file = tmp_path / "killed" / "checkpoints" / "step-00000006" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    resumed = Training(settings(tmp_path / "killed", resume=True))
    printed = capsys.readouterr().out
    assert "step-00000006 is damaged or incomplete (model.safetensors does not match its checksum)" in printed
    assert "Resuming at step 3 of 15." in printed
    resumed.all()
    assert torch.equal(resumed.weights(), whole.weights())
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


def test_what_a_checkpoint_counts_as_logged_is_on_disk_before_it_is_pointed_to(tmp_path: Path, monkeypatch):
    """Oracle: the lines that a power failure at any moment would leave, which are those at the last fsync of the log."""
    synced, found, real_fsync, real_replace = {}, [], os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def replace(self: Path, target: Path) -> Path:
        log = target.parents[1] / "metrics.jsonl"
        if target.name == "last.json":
            found.append(
                (
                    log.read_bytes()[: synced.get(log.stat().st_ino, 0)].count(b"\n"),
                    json.loads(self.read_text())["step"],
                )
            )
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    Training(settings(tmp_path / "run", checkpoint_every=4)).all()
    assert found == [(4, 4), (8, 8), (12, 12), (15, 15)]  # a line a step


def test_a_log_that_lost_records_is_told_and_the_run_goes_on(tmp_path: Path, capsys):
    folder = tmp_path / "run"
    Training(settings(folder, max_steps=9)).all()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:4]))
    Training(settings(folder, resume=True, max_steps=12)).all()
    assert "has fewer records than the run wrote, 4 of 9" in capsys.readouterr().out
    assert [record["step"] for record in logged(folder)] == [1, 2, 3, 4, 10, 11, 12]


def test_two_batches_a_step_are_one_batch_of_both(tmp_path: Path):
    # By hand: the gradient of a mean over eight samples is the mean of the gradients over four and four.
    trained = Training(settings(tmp_path / "run", accumulation_steps=2, epochs=2, log_every=2), dropout=0.0)
    by_hand = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.0), nn.Linear(6, 1)).to(
        trained.run.accelerator.device
    )
    by_hand.load_state_dict(trained.network.state_dict())
    optimizer = SGD(by_hand.parameters(), 0.1, momentum=0.9)
    aims, loader = Draws(), TinyLoader()
    for step, (epoch, first) in enumerate([(0, 0), (0, 2), (1, 0), (1, 2)]):
        batches = list(loader.epoch(epoch))[first : first + 2]
        losses = []
        for batch in batches:
            aim = torch.rand((), generator=aims.generator).item()
            losses.append((by_hand(batch.to(trained.run.accelerator.device)) - aim).square())
        optimizer.zero_grad()
        torch.cat(losses).mean().backward()
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / (2 * BATCHES))
        optimizer.step()
    trained.all()
    # The fifth batch of an epoch makes no whole step and is not used.
    assert trained.loader.asked == [(epoch, position) for epoch in (0, 1) for position in range(4)]
    assert trained.run.step == 4
    for name, tensor in trained.network.state_dict().items():
        torch.testing.assert_close(tensor, by_hand.state_dict()[name])


def test_whichever_comes_first_ends_the_run(tmp_path: Path):
    short = Training(settings(tmp_path / "short", max_steps=7)).all()
    assert (short.run.step, short.run.epoch) == (7, 1)
    assert short.loader.asked == [(0, i) for i in range(5)] + [(1, i) for i in range(2)]
    assert Training(settings(tmp_path / "long", epochs=1, max_steps=7)).all().run.step == 5
    longer = Training(settings(tmp_path / "short", max_steps=9, resume=True)).all()
    assert longer.run.step == 9
    assert longer.loader.asked == [(1, 2), (1, 3)]
    again = Training(settings(tmp_path / "short", max_steps=9, resume=True)).all()
    assert again.loader.asked == []


def test_a_finished_run_is_extended_and_its_schedule_has_the_new_length(tmp_path: Path, capsys, monkeypatch):
    folder = tmp_path / "run"
    assert Training(settings(folder, epochs=1)).all().optimizer.param_groups[0]["lr"] == 0
    RunFolder(folder).record_resume({"epochs": 2}, 5, besides=())
    with pytest.raises(ValueError, match="--epochs is 1, was 2"):
        Training(settings(folder, epochs=1, resume=True))
    monkeypatch.setattr("sys.argv", ["recipes/test.py", "--epochs", "4"])
    longer = Training(settings(folder, epochs=4, log_every=2, resume=True))
    assert "The run is extended to 4 epochs, was 2: schedules follow the new length" in capsys.readouterr().out
    rates = [longer.optimizer.param_groups[0]["lr"]]
    rates += [longer.optimizer.param_groups[0]["lr"] for _ in longer.steps()]
    assert rates == pytest.approx([0.1 * (1 - step / 20) for step in range(5, 21)])  # by hand: linear over 20 steps
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["epochs"] == 4
    assert config["resumed"][-1] == {
        "step": 5, "command": "recipes/test.py --epochs 4",
        "changed": {"epochs": {"was": 2, "now": 4}, "log_every": {"was": 1, "now": 2}},
    }  # fmt: skip


def test_ends_of_epochs_and_of_the_run(tmp_path: Path):
    training = Training(settings(tmp_path / "run", epochs=2, max_steps=8))
    seen = [(step, training.run.at_epoch_end, training.run.at_end) for step in training.steps()]
    assert [step for step, epoch_end, _ in seen if epoch_end] == [5]
    assert [step for step, _, end in seen if end] == [8]


def test_more_accumulation_than_batches_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="--accumulation-steps 6 exceeds the 5 batches of an epoch"):
        Training(settings(tmp_path / "run", accumulation_steps=6))


def test_entries_every_few_steps_and_at_the_end(tmp_path: Path):
    Training(settings(tmp_path / "run", log_every=3, max_steps=8)).all()
    records = logged(tmp_path / "run")
    assert [(record["step"], record["epoch"]) for record in records] == [(3, 0), (6, 1), (8, 1)]
    assert all(record.keys() == {"step", "epoch", "loss", "aim"} for record in records)


def test_checkpoints_when_due_and_at_the_end(tmp_path: Path):
    Training(settings(tmp_path / "run", checkpoint_every=4, max_steps=9, keep_checkpoints=5)).all()
    assert checkpoint_names(tmp_path / "run") == ["step-00000004", "step-00000008", "step-00000009"]


@pytest.mark.parametrize(
    ("seconds", "saved"),
    [
        (100.0, [6, 12, 15]),  # every ten minutes
        (130.0, [5, 10, 15]),  # the fifth step is the first after ten minutes
        (250.0, [3, 5, 8, 10, 13, 15]),  # every ten minutes, and each epoch of five steps is longer
    ],
)
def test_without_an_interval_a_checkpoint_every_ten_minutes_and_after_long_epochs(
    tmp_path: Path, monkeypatch, seconds: float, saved: list[int]
):
    clock = [0.0]
    monkeypatch.setattr("mixgan.engine.run.time", SimpleNamespace(monotonic=lambda: clock[0]))
    training = Training(settings(tmp_path / "run", keep_checkpoints=9))
    for _ in training.steps():
        clock[0] += seconds
    assert checkpoint_names(tmp_path / "run") == [f"step-{step:08d}" for step in saved]


def test_an_evaluation_that_fails_or_draws_changes_nothing(tmp_path: Path):
    whole = Training(settings(tmp_path / "whole")).all()
    broken = Training(settings(tmp_path / "broken"))
    with pytest.raises(MemoryError):  # noqa: PT012
        for step in broken.steps():
            if step == 4:
                with broken.run.pause():
                    torch.rand(3)
                broken.run.record({"accuracy": 0.25})
            if step == 7:
                with broken.run.pause():
                    die()
    resumed = Training(settings(tmp_path / "broken", resume=True))
    assert (resumed.run.step, resumed.run.just_resumed) == (7, True)
    assert resumed.run.recorded("accuracy") is None  # not at this step: the evaluation is to be made again
    assert resumed.run.recorded("loss", "aim") == logged(tmp_path / "whole")[6]
    resumed.all()
    assert resumed.run.recorded("loss") is None
    assert not resumed.run.just_resumed
    assert torch.equal(resumed.weights(), whole.weights())
    records = [record for record in logged(tmp_path / "broken") if "loss" in record]
    assert records == logged(tmp_path / "whole")


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_batch_that_cannot_be_loaded_loses_no_step(tmp_path: Path, capsys, monkeypatch, accumulation: int):
    # The oracle is the run in which nothing fails. No checkpoint is due before.
    options = {"accumulation_steps": accumulation}
    whole = Training(settings(tmp_path / "whole", **options)).all()
    training = Training(settings(tmp_path / "run", **options))
    epoch = training.loader.epoch

    def failing(number: int, *, first_step: int = 0) -> Iterator[Tensor]:
        for batch in epoch(number, first_step=first_step):
            if training.run.step == 2:
                raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
            yield batch

    monkeypatch.setattr(training.loader, "epoch", failing)
    with pytest.raises(RuntimeError, match="killed"):
        training.all()
    assert "Saved at step 2. Resume with:" in capsys.readouterr().out
    training.run.finish()
    resumed = Training(settings(tmp_path / "run", resume=True, **options))
    assert resumed.run.step == 2
    resumed.all()
    assert torch.equal(resumed.weights(), whole.weights())
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


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
    """A tracker as users may write them for accelerate: notes what it is told, in its folder."""

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
