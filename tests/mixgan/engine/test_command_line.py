"""From command-line words to settings: precedence, files, old spellings, resumed runs, and what is refused."""

import dataclasses
import inspect
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest

from mixgan.engine.annotations import AtLeast1, Positional, Probability
from mixgan.engine.command import note_unused, print_once, run_command
from mixgan.engine.config import (
    OF_ONE_CALL,
    CommandLine,
    CommonSettings,
    Settings,
    check_same_settings,
    read_options,
    run_settings,
    to_json,
)


@dataclass(kw_only=True)
class Training(CommonSettings):
    """A test."""

    renamed: ClassVar[Mapping[str, str]] = {
        "--odds": "--prob",
        "--kind embedded": "--kind bundled",
        "--mixer.odds": "--mixer.p",
    }

    kind: Literal["auto", "bundled"] = "auto"
    """What kind."""
    prob: Probability = 0.5
    """Share, in 100 % of the cases."""
    drops: tuple[float, ...] = (0.5,)
    span: tuple[float, float] = (0.0, 1.0)
    where: Path | None = None
    method: str = "mixup"
    mixer: dict[str, Any] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)


def settings_of(*argv: str, **preset: Any) -> Training:
    return CommandLine(Training, argv, prog="test").settings(preset)


def folder_of(tmp_path: Path, settings: CommonSettings, **more: Any) -> Path:
    """A run folder as far as this room looks at it: config.json with the settings."""
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "test", "settings": {**to_json(settings), **more}}))
    return tmp_path


def test_flags_win_over_the_resumed_run_the_file_the_preset_and_defaults(tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 3\nlog-every: 3\nthreads: 3\nseed: 3\n")
    run = folder_of(tmp_path, Training(epochs=2, log_every=2, threads=2, batch_size=2))
    flags = ["--epochs", "1", "--config", str(file)]
    preset = {"epochs": 4, "log_every": 4, "threads": 4, "seed": 4, "keep_checkpoints": 4}

    def values(settings: Training) -> list[int]:
        names = ("epochs", "log_every", "threads", "seed", "keep_checkpoints", "num_workers")
        return [getattr(settings, name) for name in names]

    assert values(settings_of(*flags, **preset)) == [1, 3, 3, 3, 4, None]
    resumed = ["--resume", "--output-dir", str(run), "--config", str(file), "--num-workers", "7"]
    assert values(settings_of(*resumed, **preset)) == [2, 2, 2, 0, 2, 7]
    line = "The resumed run keeps its own settings where --config differs: "
    assert (
        capsys.readouterr().out
        == f"{line}--epochs is 2, not 3; --log-every is 2, not 3; --threads is 2, not 3; --seed is 0, not 3.\n"
    )
    settings_of(*resumed, *["--epochs", "2", "--log-every", "3", "--threads", "2"])
    assert capsys.readouterr().out == f"{line}--seed is 0, not 3.\n"  # flags are no surprise
    file.write_text("epochs: 2\nbatch-size: 2\n")
    settings_of(*resumed)
    assert not capsys.readouterr().out


def test_auto_in_a_file_is_what_the_resumed_run_found(capsys):
    note_unused({"dataset": "auto"}, {"dataset": "tiles"}, {}, {"dataset": str})
    assert not capsys.readouterr().out
    note_unused({"dataset": "maps"}, {"dataset": "tiles"}, {}, {"dataset": str})
    assert "--dataset is tiles, not maps" in capsys.readouterr().out


def test_values_are_converted_by_their_annotations():
    words = "--drops 0.1 1 --span 0 2 --no-download --where somewhere --data_root a_b --prob=1 --max-steps None"
    settings = settings_of(*words.split())
    assert (settings.drops, settings.span, settings.where) == ((0.1, 1.0), (0.0, 2.0), Path("somewhere"))
    assert (settings.data_root, settings.download, settings.max_steps) == (Path("a_b"), False, None)
    assert type(settings.prob) is float


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epohcs 7", "unknown flag --epohcs; did you mean --epochs\\?"),
        ("--epoch 7", "unknown flag --epoch"),  # no abbreviations: a new flag would change their meaning
        ("seven", "unknown word seven"),
        ("--epochs", "--epochs: expected one argument"),
        ("--epochs many", "--epochs must be a whole number, got 'many'"),
        ("--epochs 1.5", "--epochs must be a whole number, got '1.5'"),
        ("--prob nan", "--prob must be a finite number, got 'nan'"),
        ("--prob 2", "--prob must be at least 0 and at most 1, got 2.0"),
        ("--kind other", "--kind must be one of auto, bundled, got 'other'"),
        ("--span 1", "--span: expected 2 arguments"),
        ("--config nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_wrong_words_are_quoted(words: str, message: str):
    with pytest.raises((ValueError, OSError), match=message):
        settings_of(*words.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "bundeld"}, "--kind must be one of auto, bundled, got 'bundeld'"),
        ({"prob": math.inf}, "--prob must be a finite number, got inf"),
        ({"epochs": True}, "--epochs must be a whole number, got True"),
        ({"epochs": 2.5}, "--epochs must be a whole number, got 2.5"),
        ({"resume": "yes"}, "--resume must be true or false, got 'yes'"),
        ({"where": 3}, "--where must be a path, got 3"),
        ({"span": (1, 2, 3)}, "--span takes 2 values, got 3: 1 2 3"),
        ({"drops": [0.5, "x"]}, "--drops must be a finite number, got 'x'"),
        ({"method": 3}, "--method must be a text, got 3"),
        ({"mixer": [1]}, "--mixer takes options by name"),
    ],
)
def test_the_same_checks_hold_in_python(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Training(**changes)


def test_python_may_give_text_for_paths_whole_numbers_for_floats_and_lists_for_tuples():
    settings = Training(data_root="data", where="x", prob=1, drops=[1, 2])
    assert (settings.data_root, settings.where, settings.prob, settings.drops) == (
        Path("data"),
        Path("x"),
        1.0,
        (1.0, 2.0),
    )


def test_options_are_collected_by_group_until_a_signature_says_their_types():
    words = "--mixer.alpha 0.2 --mixer.no-per-batch --mixer.cut-mix.range 0 1 --method.layers=a --method cutmix --mixer.flag"
    settings = settings_of(*words.split())
    assert settings.mixer == {"alpha": "0.2", "per_batch": False, "cut_mix": {"range": ["0", "1"]}, "flag": True}
    assert (settings.method, settings.method_options) == ("cutmix", {"layers": "a"})


def test_old_spellings_are_read_and_reported(tmp_path, capsys):
    settings = settings_of("--odds", "0.3", "--kind", "embedded", "--mixer.odds", "1", "--mixer.a", "1")
    assert (settings.prob, settings.kind, settings.mixer) == (0.3, "bundled", {"a": "1", "p": "1"})
    assert capsys.readouterr().out.splitlines() == [
        "--odds is now called --prob.",
        "--kind embedded is now called --kind bundled.",
        "--mixer.odds is now called --mixer.p.",
    ]
    old = to_json(Training(mixer={"odds": 0.5}))
    del old["prob"]
    (tmp_path / "config.json").write_text(
        json.dumps({"recipe": "test", "settings": {**old, "odds": 0.2, "kind": "embedded"}})
    )
    resumed = settings_of("--resume", "--output-dir", str(tmp_path))
    assert (resumed.prob, resumed.kind, resumed.mixer) == (0.2, "bundled", {"p": 0.5})
    assert capsys.readouterr().out == ""


class TestConfigFile:
    """--config FILE."""

    def test_a_runs_config_is_a_file_of_settings(self, tmp_path):
        first = Training(seed=9, drops=(0.1,), where=Path("x"), mixer={"alpha": 0.3}, output_dir=tmp_path, resume=True)
        again = settings_of("--config", str(folder_of(tmp_path, first) / "config.json"), "--epochs", "3")
        assert (again.output_dir, again.resume, again.epochs) == (None, False, 3)
        same = {"config": None, "epochs": first.epochs, "output_dir": tmp_path, "resume": True}
        assert dataclasses.replace(again, **same) == first

    def test_options_of_another_method_are_left_out(self, tmp_path):
        (tmp_path / "a.yaml").write_text("method: cutmix\nmixer: {alpha: 2}\nseed: 4\n")
        words = ["--config", str(tmp_path / "a.yaml")]
        assert settings_of(*words, "--mixer.beta", "1").mixer == {"alpha": 2, "beta": "1"}
        other = settings_of(*words, "--method", "mixup")
        assert (other.mixer, other.seed) == ({}, 4)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epohcs: 3", r"a\.yaml has settings that this command does not know: epohcs"),
            ("epochs: many", "--epochs must be a whole number, got 'many'"),
            ("- 1", r"a\.yaml must hold settings by name, got list"),
            ("a: [", r"a\.yaml is not YAML or JSON"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text: str, message: str):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            settings_of("--config", str(tmp_path / "a.yaml"))


def mix(*, alpha: float = 0.25, per_batch: bool = False) -> None:
    """A signature."""


def test_help_shows_groups_choices_and_resolved_defaults(capsys):
    line = CommandLine(Training, ["--epochs", "7", "--help"], prog="mixgan test")
    with pytest.raises(SystemExit) as ended:
        line.settings({"prob": 0.75}, options={"mixer": dict(inspect.signature(mix).parameters)})
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "usage: mixgan test [options] A test.", "--kind {auto,bundled} What kind. (default: auto)", "(default: 7)",
        "Share, in 100 % of the cases. (default: 0.75)", "every training command:", "--mixer.alpha FLOAT (default: 0.25)",
        "--resume, --no-resume", "--drops [FLOAT ...]", "-h, --help",
    ):  # fmt: skip
        assert part in text
    assert "--odds" not in text


@dataclass(frozen=True, kw_only=True)
class Tool(Settings):
    """A command without presets."""

    source: Annotated[Path, Positional("SOURCE")]
    more: Annotated[tuple[Path, ...], Positional("MORE")] = ()
    size: AtLeast1 = 4


def test_a_command_without_presets_takes_positional_words_and_options_of_a_known_signature(capsys):
    known = {"figure": dict(inspect.signature(mix).parameters)}
    words = ["a", "--figure.alpha", "0.5", "b", "--figure.per-batch", "c", "--size", "3"]
    tool, options = read_options(Tool, words, prog="tool", options=known)
    assert tool == Tool(source="a", more=["b", "c"], size=3)
    assert options == {"figure": {"alpha": 0.5, "per_batch": True}}
    with pytest.raises(
        ValueError, match=r"unknown option --figure\.alhpa; known: --figure\.alpha, --figure\.per-batch"
    ):
        read_options(Tool, ["a", "--figure.alhpa", "1"], prog="tool", options=known)
    with pytest.raises(ValueError, match="required: SOURCE"):
        read_options(Tool, [], prog="tool")
    with pytest.raises(SystemExit):
        read_options(Tool, ["--help"], prog="tool")
    assert "usage: tool SOURCE MORE [options]" in capsys.readouterr().out


def test_a_resumed_run_gives_its_settings_but_not_those_of_one_call(tmp_path):
    first = Training(
        data_root=Path("elsewhere"),
        seed=9,
        mixer={"alpha": 0.3},
        where=Path("x"),
        max_steps=5,
        download=True,
        preset="quick",
    )
    assert not OF_ONE_CALL & set(run_settings(folder_of(tmp_path, first), Training))
    resumed = settings_of("--resume", "--output-dir", str(tmp_path), "--num-workers", "2")
    as_first = {"download": True, "preset": "quick"}
    again = {"resume": True, "output_dir": tmp_path, "num_workers": 2}
    assert dataclasses.replace(first, **again) == dataclasses.replace(resumed, **as_first)


def test_a_folder_that_is_no_run_or_of_another_command(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to resume: .*config\.json does not exist; .* without --resume"):
        settings_of("--resume", "--output-dir", str(tmp_path))
    folder_of(tmp_path, Training(), other=3)
    with pytest.raises(ValueError, match="settings this command does not know: other"):
        settings_of("--resume", "--output-dir", str(tmp_path))


def test_what_may_not_change_is_named_by_its_flag(tmp_path):
    folder = folder_of(tmp_path, Training(batch_size=4, mixer={"strength": 1.0}))
    free = {"max_steps": 3, "num_workers": 2, "data_root": Path("moved"), "resume": True, "output_dir": tmp_path}
    check_same_settings(Training(batch_size=4, mixer={"strength": 1.0}, **free), folder)
    changed = Training(batch_size=8, mixer={"strength": 0.5})
    with pytest.raises(ValueError) as error:
        check_same_settings(changed, folder)
    assert str(error.value) == (
        f"cannot resume {folder} with other settings: --batch-size is 8, was 4; --mixer.strength is 0.5, was 1.0"
    )


def test_only_the_first_process_says_it(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    print_once("alone")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        print_once(f"process {rank}")
    assert capsys.readouterr().out == "alone\nprocess 0\n"


def failing(error: BaseException):
    def main(argv: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize("error", [ValueError("no such\nmethod"), FileNotFoundError("no such method")])
@pytest.mark.parametrize(("rank", "who"), [("0", ""), ("1", "[process 1] ")])
def test_wrong_input_is_one_line_and_exit_code_2(monkeypatch, capsys, error: Exception, rank: str, who: str):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("MIXGAN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(failing(error), [])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{who}error: no such method\n"


def test_the_traceback_is_there_for_who_asks(monkeypatch, capsys):
    monkeypatch.setenv("MIXGAN_DEBUG", "1")
    with pytest.raises(SystemExit):
        run_command(failing(ValueError("wrong")), [])
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_dressed_as_wrong_input():
    with pytest.raises(ZeroDivisionError):
        run_command(failing(ZeroDivisionError()), [])


def test_ctrl_c_is_exit_code_130(capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(failing(KeyboardInterrupt()), [])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_that_an_import_turns_into_another_error_is_exit_code_130(capsys):
    def main(argv: list[str]) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError("of a half-imported module")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        run_command(main, [])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_gets_its_words(monkeypatch):
    seen = []
    run_command(seen.append, ["--a", "1"])
    monkeypatch.setattr("sys.argv", ["recipe.py", "--b"])
    run_command(seen.append)
    assert seen == [["--a", "1"], ["--b"]]


def test_what_an_ascii_terminal_cannot_show_is_escaped():
    code = (
        "from mixgan.engine.command import run_command; run_command(lambda argv: print('0.5 \\u00b1 0.1 \\udcff'), [])"
    )
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.strip()) == (0, r"0.5 \xb1 0.1 \udcff"), done.stderr
