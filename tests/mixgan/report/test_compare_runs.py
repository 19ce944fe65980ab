"""The runs of a comparison, with a stand-in for the recipe: a small script with the flags, files and signals of the recipes.

Nothing here depends on timing: the stand-in waits at a step while a file ``hold-<run>-<step>`` exists.
"""

import dataclasses
import fcntl
import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mixgan.engine import progress
from mixgan.engine.run_folder import RunFolder, read_metrics
from mixgan.report import compare
from mixgan.report.compare import Recipe, flags_of, is_complete, last_error, run_all, saved_step, steps_done
from mixgan.report.seeds import PlannedRun

STAND_IN = """
import json, shlex, shutil, signal, sys, time
from pathlib import Path

stops = []
signal.signal(signal.SIGINT, lambda number, frame: stops.append(number))
words = sys.argv[1:]
value = lambda flag, default: words[words.index(flag) + 1] if flag in words else default
method, epochs = value("--method", ""), int(value("--epochs", 2))
def write(path, value):  # at once, as the recipes do
    path.with_name(".partial").write_text(json.dumps(value))
    path.with_name(".partial").replace(path)

if method == "unknown":
    sys.exit("error: unknown --method 'unknown'")
if "--dry-run" in words:
    sys.exit()
folder = Path(value("--output-dir", ""))
with (folder.parent / "events").open("a") as events:
    events.write(f"start {folder.name}\\n")
last = folder / "checkpoints" / "last.json"
step = json.loads(last.read_text())["step"] if "--resume" in words else 0
if "--resume" not in words:
    shutil.rmtree(folder, ignore_errors=True)
    last.parent.mkdir(parents=True)
    settings = {"epochs": epochs, "max_steps": None, "seed": int(value("--seed", 0))}
    config = {"recipe": "stand_in", "command": shlex.join(sys.argv), "settings": settings, "processes": 1, "steps_per_epoch": 3}
else:
    config = json.loads((folder / "config.json").read_text())
if "--max-steps" in words:
    config["settings"]["max_steps"] = int(value("--max-steps", 0))
write(folder / "config.json", config)
total = min(3 * epochs, config["settings"]["max_steps"] or 10**9)  # an epoch has three steps

def save():
    (last.parent / f"step-{step:08d}").mkdir(exist_ok=True)
    write(last, {"checkpoint": f"step-{step:08d}", "step": step})

while step < total:
    if method == "diverging" and step == 4:
        save()
        print("error: loss is nan at step 4", file=sys.stderr)
        sys.exit(2)
    while (folder.parent / f"hold-{folder.name}-{step}").exists() and not (stops and method != "deaf"):
        time.sleep(0.01)
    step += 1
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "epoch": (step - 1) // 3, "started_at": 0}) + "\\n")
    if step % 3 == 0:
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, "epoch": step // 3, "test_accuracy": step / 10}) + "\\n")
    if stops:
        save()
        sys.exit(130)
save()
write(folder / "summary.json", {"steps": step, "epochs": step / 3})
(folder / "report.html").write_text("a report")
with (folder.parent / "events").open("a") as events:
    events.write(f"end {folder.name}\\n")
"""
#: Like accelerate's launcher: starts the script and waits, but a Ctrl-C ends it before the script has saved.
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.Popen([sys.executable, *sys.argv[1:]]).wait())"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(compare, "POLL_SECONDS", 0.02)
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(Recipe, "command", lambda recipe, words: [sys.executable, str(script), *words])
    return Recipe("stand_in", recipes=tmp_path)


def planned(output: Path, method: str, *flags: str, seed: int = 0) -> PlannedRun:
    name = f"{method}-seed{seed}"
    words = ("--method", method, *flags, "--seed", str(seed))
    return PlannedRun(method, seed, words, RunFolder(output / name), output / "logs" / f"{name}.log")


def events(output: Path) -> list[str]:
    return (output / "events").read_text().splitlines()


def steps(run: PlannedRun) -> list[int]:
    return [record["step"] for record in read_metrics(run.folder.metrics) if "started_at" in record]


def hold(run: PlannedRun, step: int) -> Path:
    """The run stops at this step until the file is removed or a signal comes."""
    file = run.folder.path.parent / f"hold-{run.name}-{step}"
    file.touch()
    return file


def when(*stages: tuple[Callable[[], bool], Callable[[], object]]) -> threading.Thread:
    """Beside the test: wait for each condition in turn, then act."""

    def wait_and_act() -> None:
        for ready, act in stages:
            until = time.monotonic() + 100
            while not ready() and time.monotonic() < until:
                time.sleep(0.01)
            act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def screen(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    """What is printed by the progress bar."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=text, force_terminal=terminal, width=120))
    return text


def test_one_after_the_other_in_order(tmp_path: Path, recipe: Recipe):
    runs = [planned(tmp_path, "a"), planned(tmp_path, "b"), planned(tmp_path, "a", seed=1)]
    runs[1].state = "done"  # taken as it is
    runs[1].folder.path.mkdir()
    runs[1].folder.summary.write_text('{"steps": 6}')
    seen = []
    assert run_all(runs, recipe, at_end=lambda run: seen.append((run.name, run.state))) is None
    assert events(tmp_path) == ["start a-seed0", "end a-seed0", "start a-seed1", "end a-seed1"]
    assert seen == [("a-seed0", "done"), ("a-seed1", "done")]
    assert runs[0].summary() == {"steps": 6, "epochs": 2.0}
    assert all(is_complete(run, recipe) for run in (runs[0], runs[2]))


def test_two_jobs_are_two_runs_at_once(tmp_path: Path, recipe: Recipe):
    runs = [planned(tmp_path, name) for name in "abc"]
    held = [hold(run, 1) for run in runs[:2]]
    started = tmp_path / "events"
    both = when((lambda: started.is_file() and len(events(tmp_path)) == 2, held[1].unlink))
    at_end = lambda run: held[0].unlink() if run.variant == "c" else None  # noqa: E731
    run_all(runs, recipe, jobs=2, at_end=at_end)
    both.join()
    order = events(tmp_path)
    assert {*order[:2]} == {"start a-seed0", "start b-seed0"}
    assert order[2:] == ["end b-seed0", "start c-seed0", "end c-seed0", "end a-seed0"]  # c not before one ended
    assert [run.state for run in runs] == ["done"] * 3


def test_a_failing_run_says_why_and_the_others_are_made(tmp_path: Path, recipe: Recipe, capsys):
    runs = [planned(tmp_path, "diverging"), planned(tmp_path, "b")]
    assert run_all(runs, recipe) is None
    assert [(run.state, run.error) for run in runs] == [("failed", "loss is nan at step 4"), ("done", None)]
    assert f"diverging-seed0: failed, loss is nan at step 4 (see {runs[0].log})" in capsys.readouterr().out
    assert not is_complete(runs[0], recipe)
    again = [planned(tmp_path, "diverging")]
    run_all(again, recipe)
    assert again[0].state == "failed"
    assert steps(again[0]) == [1, 2, 3, 4]  # it went on from its checkpoint, nothing was made twice


def test_the_reason_is_that_of_this_attempt(tmp_path: Path, recipe: Recipe):
    run = planned(tmp_path, "a", "--epochs", "two")
    run.log.parent.mkdir()
    run.log.write_text("error: of the attempt before\n")
    run_all([run], recipe)
    assert run.error == "ValueError: invalid literal for int() with base 10: 'two'"


def test_ctrl_c_lets_the_run_save_and_the_next_call_goes_on(tmp_path: Path, recipe: Recipe, monkeypatch):
    launched = [sys.executable, "-c", LAUNCHER, str(tmp_path / "stand_in.py")]
    monkeypatch.setattr(Recipe, "command", lambda recipe, words: [*launched, *words])
    before = signal.getsignal(signal.SIGINT)
    runs = [planned(tmp_path, name, "--lr", "0.3") for name in "ab"]
    hold(runs[0], 2)
    interrupted = when((lambda: len(steps(runs[0])) == 2, ctrl_c))
    assert run_all(runs, recipe) == signal.SIGINT
    interrupted.join()
    assert [run.state for run in runs] == ["interrupted", "waiting"]
    assert saved_step(runs[0]) == 3  # it finished the step, and was waited for though its launcher was gone
    assert signal.getsignal(signal.SIGINT) is before
    assert not is_complete(runs[0], recipe)
    again = [planned(tmp_path, name, "--lr", "0") for name in "ab"]
    with pytest.raises(ValueError, match=r"a-seed0 with other settings: --lr is 0, was 0\.3$"):
        is_complete(again[0], recipe)
    again = [planned(tmp_path, name, "--lr", "0.3", "--threads", "1", "--max-steps", "4") for name in "ab"]
    assert not is_complete(again[0], recipe)  # neither threads nor the number of steps decides how the steps go
    assert run_all(again, recipe) is None
    assert [(run.state, steps(run)) for run in again] == [("done", [1, 2, 3, 4])] * 2
    assert is_complete(again[0], recipe)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, recipe: Recipe, monkeypatch):
    run = planned(tmp_path, "deaf")  # would never end by itself
    hold(run, 1)
    text = screen(monkeypatch, terminal=False)
    interrupted = when((lambda: len(steps(run)) == 1, ctrl_c), (lambda: "Stopping" in text.getvalue(), ctrl_c))
    with pytest.raises(KeyboardInterrupt):
        run_all([run], recipe)
    interrupted.join()
    with run.log.open("rb") as file:  # soon no process holds it
        fcntl.flock(file, fcntl.LOCK_EX)
    assert saved_step(run) is None


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path: Path, recipe: Recipe):
    run = planned(tmp_path, "a")
    run_all([run], recipe)
    shutil.rmtree(run.folder.checkpoints)
    for leftover in (run.folder.summary, run.folder.report):
        leftover.unlink()
    again = planned(tmp_path, "a")
    assert not is_complete(again, recipe)
    run_all([again], recipe)
    assert (again.state, steps(again)) == ("done", [1, 2, 3, 4, 5, 6])


def test_what_is_complete_depends_on_the_steps_asked_for(tmp_path: Path, recipe: Recipe):
    run_all([planned(tmp_path, "a", "--max-steps", "4")], recipe)
    assert is_complete(planned(tmp_path, "a", "--max-steps", "4"), recipe)
    assert not is_complete(planned(tmp_path, "a", "--max-steps", "5"), recipe)
    assert is_complete(planned(tmp_path, "a"), recipe)  # --max-steps stays until it is given again
    with pytest.raises(ValueError, match="a-seed0 has done 4 steps already, more than --max-steps 3"):
        is_complete(planned(tmp_path, "a", "--max-steps", "3"), recipe)
    longer = planned(tmp_path, "a", "--max-steps", "99")
    run_all([longer], recipe)
    assert steps(longer) == [1, 2, 3, 4, 5, 6]
    assert is_complete(planned(tmp_path, "a"), recipe)
    assert is_complete(planned(tmp_path, "a", "--max-steps", "100"), recipe)  # its epochs are over
    longer.folder.report.unlink()  # a kill came between summary and report
    assert not is_complete(planned(tmp_path, "a"), recipe)


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (["--epochs", "3", "--lr", "0.1"], "--epochs is 3, was 2"),
        (["--lr=0.1"], "--epochs is not given, was 2"),
        (["--epochs", "2", "--lr", "0.2"], "--lr is 0.2, was 0.1"),
        (["--epochs", "2", "--lr", "0.1", "--channels_last"], "--channels-last is given, was not given"),
        (["--epochs", "2", "--lr", "0.1", "--preset", "paper"], "--preset is paper, was not given"),
        (["--epochs", "4", "--lr", "0.2"], "--epochs is 4, was 2; --lr is 0.2, was 0.1"),
    ],
)
def test_other_settings_are_one_sentence(tmp_path: Path, recipe: Recipe, flags: list[str], difference: str):
    run_all([planned(tmp_path, "a", "--epochs", "2", "--lr", "0.1")], recipe)
    same = planned(tmp_path, "a", "--lr=0.1", "--epochs", "1", "--epochs", "2", "--data-root", "/elsewhere")
    assert is_complete(same, recipe)
    with pytest.raises(ValueError) as error:
        is_complete(planned(tmp_path, "a", *flags), recipe)
    assert str(error.value) == f"cannot resume {tmp_path / 'a-seed0'} with other settings: {difference}"


def test_another_recipe_and_other_processes_are_other_settings(tmp_path: Path, recipe: Recipe):
    run_all([planned(tmp_path, "a")], recipe)
    other = Recipe("another", 2, tmp_path)
    with pytest.raises(ValueError, match=r"recipe is another, was stand_in; --processes is 2, was 1$"):
        is_complete(planned(tmp_path, "a"), other)


def test_foreign_files_and_other_processes_are_left_alone(tmp_path: Path, recipe: Recipe):
    run = planned(tmp_path, "a")
    run.folder.path.mkdir()
    (run.folder.path / ".config.json.partial").touch()  # of a run that was killed
    assert not is_complete(run, recipe)
    (run.folder.path / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"a-seed0 contains files but no config\.json"):
        is_complete(run, recipe)
    run.log.parent.mkdir()
    with run.log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another process still works on .*a-seed0"):
            is_complete(run, recipe)


def test_a_dry_run_checks_the_flags(tmp_path: Path, recipe: Recipe):
    recipe.check("a", ["--method", "a"])
    with pytest.raises(ValueError, match=r"^variant a: unknown --method 'unknown'$"):
        recipe.check("a", ["--method", "unknown"])


def test_flags():
    words = ["--lr_drops", "0.5", "0.7", "--a=b=c", "--on", "--lr", "1", "--lr", "-1"]
    assert flags_of(words) == {"--lr-drops": "0.5 0.7", "--a": "b=c", "--on": "given", "--lr": "-1"}


TORCHRUN = """\
Traceback (most recent call last):
torch.OutOfMemoryError: CUDA out of memory
E1121 10:00:00 failed (exitcode: 1)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("a warning\nerror: lr is 0\nbye\n", "lr is 0"),
        ("[process 1] error: no data in data/maps\n" + TORCHRUN, "no data in data/maps"),
        (TORCHRUN, "torch.OutOfMemoryError: CUDA out of memory"),
        ("mixup on tiles 12/40\n\n====\n", "its last line is: mixup on tiles 12/40"),
        ("", "it printed nothing"),
    ],
)
def test_why_a_process_failed(printed: str, reason: str):
    assert last_error(printed) == reason


def test_lines_away_from_a_terminal(tmp_path: Path, recipe: Recipe, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    text = screen(monkeypatch, terminal=False)
    runs = [planned(tmp_path, "a"), planned(tmp_path, "b")]
    held = hold(runs[0], 3)
    seen = when((lambda: "a-seed0 step 3 of 6" in text.getvalue(), held.unlink))
    run_all(runs, recipe)
    seen.join()
    lines = text.getvalue().splitlines()
    # By hand: half of the first of two runs is a quarter of the whole.
    assert any(line.startswith("compare 0.5/2  a-seed0 step 3 of 6  ") and line.endswith(" left") for line in lines)
    assert [line for line in lines if line.endswith(": done")] == ["a-seed0: done", "b-seed0: done"]


def test_one_bar_over_all_runs_on_a_terminal(tmp_path: Path, recipe: Recipe, monkeypatch):
    text = screen(monkeypatch, terminal=True)
    runs = [planned(tmp_path, "a"), planned(tmp_path, "b")]
    held, next_held = hold(runs[0], 4), hold(runs[1], 0)
    seen = when(
        (lambda: "a-seed0 step 4 of 6" in text.getvalue(), held.unlink),
        (lambda: "1/2" in text.getvalue(), next_held.unlink),
    )
    run_all(runs, recipe)
    seen.join()
    for part in ("0/2", "1/2", "2/2", "b-seed0: done"):
        assert part in text.getvalue()


def test_how_far_a_run_is(tmp_path: Path):
    run = planned(tmp_path, "a")
    assert steps_done(run) == (0, None)
    run.folder.create()
    config = {"recipe": "classify", "settings": {"epochs": 2}, "steps_per_epoch": 700}
    run.folder.config.write_text(json.dumps(config))
    records = "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(1000))
    run.folder.metrics.write_text(records + '{"step": 10')  # a line that is being written
    assert steps_done(run) == (999, 1400)
    assert steps_done(dataclasses.replace(run, words=("--max-steps", "1200"))) == (999, 1200)


def test_several_processes_are_started_by_torchrun_and_one_inherits_the_launchers_wishes():
    # accelerate launch would export --mixed_precision no over an outer bf16
    assert Recipe("classify").command([]) == [sys.executable, str(compare.RECIPES / "classify.py")]
    several = Recipe("classify", 3).command([])
    assert several[2] == "torch.distributed.run"
    assert several[-3:-1] == ["--nproc_per_node", "3"]
