import errno
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path

import pytest

from mixgan.engine import run_folder
from mixgan.engine.run_folder import FolderLock, RunFolder, default_folder, git_commit, version


def test_a_new_or_empty_folder_gets_its_layout(tmp_path):
    for path in (tmp_path / "a" / "new", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        RunFolder(path).create()
        assert sorted(entry.name for entry in path.iterdir()) == [".lock", "checkpoints", "samples", "weights"]


def test_a_used_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=f"output folder {tmp_path} is in use; add --resume"):
        RunFolder(tmp_path).create()
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_with_a_checkpoint_or_a_result_or_foreign_files_is_in_use(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.is_unstarted
    folder.create()
    (folder.path / ".config.json.partial").touch()  # a kill while it was written
    assert folder.is_unstarted
    (folder.path / "thesis.txt").touch()
    assert not folder.is_unstarted  # without a config.json it is not a run's
    for foreign in ("", "[]", '{"model_type": "bert"}'):  # folders of models have a config.json too
        folder.config.write_text(foreign)
        (folder.weights / "model.safetensors").touch()
        with pytest.raises(ValueError, match="is in use"):
            folder.create()
        assert (folder.weights / "model.safetensors").is_file()
    folder.config.write_text('{"recipe": "classify", "settings": {}}')
    assert folder.is_unstarted
    folder.summary.touch()
    assert not folder.is_unstarted
    folder.summary.unlink()
    (folder.checkpoints / "step-00000001").mkdir()
    assert not folder.is_unstarted
    (folder.checkpoints / "step-00000001").rmdir()
    folder.create()
    assert (folder.path / "thesis.txt").is_file()


HOLDER = """
import sys
from pathlib import Path
from mixgan.engine.run_folder import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_folder_has_one_writer_for_the_life_of_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match=f"in use by process {holder.pid} on {re.escape(platform.node())}: wait"):
            FolderLock(tmp_path)
        with pytest.raises(ValueError, match="in use by"):
            RunFolder(tmp_path).create()
        holder.kill()
    FolderLock(tmp_path).release()  # freed by the end of the process, however it came
    assert (tmp_path / ".lock").read_text() == ""


def test_a_file_system_without_locks_is_not_protected(tmp_path, monkeypatch):
    def refuses(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(run_folder.fcntl, "lockf", refuses)
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)  # neither is refused
    first.release()
    second.release()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    # A file in the way stops everybody; permissions would not stop the superuser.
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=f"^cannot write to output folder {path}: [A-Za-z ]+$"):
            RunFolder(path).create()


def test_config_tells_how_the_run_was_made(tmp_path, monkeypatch):
    words = ["recipes/classify.py", "--data-root", "my data", "--seed", "3"]
    monkeypatch.setattr("sys.argv", words)
    folder = RunFolder(tmp_path)
    folder.write_config({"seed": 3, "epochs": 2}, recipe="classify", processes=2, device="cpu")
    config = json.loads(folder.config.read_text())
    assert config["settings"] == {"seed": 3, "epochs": 2}
    assert (config["recipe"], config["seed"], config["processes"], config["device"]) == ("classify", 3, 2, "cpu")
    assert shlex.split(config["command"]) == words
    assert config["versions"]["python"] == platform.python_version()
    assert config["versions"]["torch"] == installed("torch")


def test_the_default_folder_is_named_after_recipe_and_time():
    assert re.fullmatch(r"classify-\d{8}-\d{6}", default_folder("classify").name)
    assert default_folder("classify").parent == Path("runs")


def test_a_package_that_is_not_installed_has_no_version():
    assert version("torch") == installed("torch")
    assert version("no-such-package-of-anybody") is None


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """The commit is asked for once a process."""
    git_commit.cache_clear()
    yield
    git_commit.cache_clear()


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(("status", "expected"), [("", "abc123"), (" M file.py\n", "abc123+changes")])
def test_the_commit_says_whether_files_differ_from_it(monkeypatch, status: str, expected: str):
    def git(command: list[str], **options: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 0, stdout="abc123\n" if "rev-parse" in command else status)

    monkeypatch.setattr(run_folder.subprocess, "run", git)
    assert git_commit() == expected


@pytest.mark.usefixtures("asked_anew")
def test_there_is_no_commit_without_git_or_outside_a_checkout(monkeypatch):
    def missing(command: list[str], **options: object) -> None:
        raise FileNotFoundError("git")

    def refuses(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(128, command)

    for git in (missing, refuses):
        monkeypatch.setattr(run_folder.subprocess, "run", git)
        git_commit.cache_clear()
        assert git_commit() is None


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize("tracked", [False, True])
def test_the_commit_of_a_repository_that_only_surrounds_the_package_is_not_recorded(
    tmp_path, monkeypatch, tracked: bool
):
    package = tmp_path / "env" / "mixgan" / "run_folder.py"
    package.parent.mkdir(parents=True)
    package.touch()
    (tmp_path / "thesis.tex").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "." if tracked else "thesis.tex"], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(run_folder, "__file__", str(package))
    assert (git_commit() is not None) == tracked
