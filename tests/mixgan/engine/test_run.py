"""Runs that stop, fail and resume: bit for bit as an unbroken one; when they save, and when they end."""

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_run import BATCHES, Draws, TinyLoader, Training, checkpoint_names, die, logged, settings
from torch import Tensor, nn
from torch.optim import SGD

from mixgan.engine.interrupt import SIGNALS
from mixgan.engine.run_folder import RunFolder


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
