import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixgan.engine.config import (
    OF_ONE_CALL,
    CommonSettings,
    check_same_settings,
    first_look,
    from_json,
    parse,
    print_once,
    resumed_defaults,
    run_command,
    to_json,
)


@dataclass(kw_only=True)
class Options:
    strength: float = 1.0
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(kw_only=True)
class Settings(CommonSettings):
    name: str = "plain"
    drops: tuple[float, ...] = (0.5,)
    extra: Options = field(default_factory=Options)


def parsed(*argv: str, **defaults: Any) -> Settings:
    return parse(Settings, argv, defaults=defaults, prog="test", description="A test.")


def folder_of(tmp_path: Path, settings: CommonSettings) -> Path:
    """A run folder as far as this room looks at it: config.json with the settings."""
    (tmp_path / "config.json").write_text(json.dumps({"settings": to_json(settings)}))
    return tmp_path


def test_flags_override_defaults_and_defaults_the_fields_own():
    settings = parsed("--epochs", "7", "--extra.span", "0.2", "0.4", epochs=3, seed=5)
    assert (settings.epochs, settings.seed, settings.batch_size) == (7, 5, 1)
    assert settings.extra == Options(strength=1.0, span=(0.2, 0.4))


def test_a_flag_nobody_knows_ends_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        parsed("--epohcs", "7")
    assert ended.value.code == 2
    assert "--epohcs" in capsys.readouterr().err


def test_first_look_passes_over_unknown_flags_and_help():
    look = first_look(Settings, ["--help", "--other.thing", "3", "--seed", "4", "-h"], defaults={"name": "known"})
    assert (look.seed, look.name, look.epochs) == (4, "known", 1)


def test_settings_survive_json():
    settings = Settings(
        data_root=Path("some/where"), drops=(0.1, 0.2), extra=Options(strength=0.3, span=(0.1, 0.9)), max_steps=4
    )
    through_file = json.loads(json.dumps(to_json(settings)))
    assert Settings(**from_json(Settings, through_file)) == settings


def test_a_resumed_run_gives_its_settings_as_defaults_but_not_those_of_one_call(tmp_path):
    first = Settings(
        data_root=Path("elsewhere"), seed=9, extra=Options(strength=0.3), max_steps=5, download=True, preset="quick"
    )
    defaults = resumed_defaults(folder_of(tmp_path, first), Settings)
    assert not OF_ONE_CALL & set(defaults)
    resumed = parsed("--resume", "--output-dir", str(tmp_path), "--num-workers", "2", **defaults)
    as_first = {"max_steps": 5, "download": True, "preset": "quick"}
    again = {"resume": True, "output_dir": tmp_path, "num_workers": 2}
    assert dataclasses.replace(first, **again) == dataclasses.replace(resumed, **as_first)


def test_a_folder_that_is_no_run_or_of_another_command(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to resume: .*config\.json does not exist; .* without --resume"):
        resumed_defaults(tmp_path, Settings)
    with pytest.raises(ValueError, match="settings this command does not know: drops, extra, name"):
        resumed_defaults(folder_of(tmp_path, Settings()), CommonSettings)


def test_what_may_not_change_is_named_by_its_flag(tmp_path):
    folder = folder_of(tmp_path, Settings(batch_size=4))
    free = {"max_steps": 3, "num_workers": 2, "data_root": Path("moved"), "resume": True, "output_dir": tmp_path}
    check_same_settings(Settings(batch_size=4, **free), folder)
    changed = Settings(batch_size=8, extra=Options(strength=0.5))
    with pytest.raises(ValueError) as error:
        check_same_settings(changed, folder)
    assert str(error.value) == (
        f"cannot resume {folder} with other settings: --batch-size is 8, was 4; --extra.strength is 0.5, was 1.0"
    )


def test_only_the_first_process_says_it(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    print_once("alone")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        print_once(f"process {rank}")
    assert capsys.readouterr().out == "alone\nprocess 0\n"


def failing(error: Exception):
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


def test_the_command_gets_its_words(monkeypatch):
    seen = []
    run_command(seen.append, ["--a", "1"])
    monkeypatch.setattr("sys.argv", ["recipe.py", "--b"])
    run_command(seen.append)
    assert seen == [["--a", "1"], ["--b"]]
