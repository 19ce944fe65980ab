"""The launcher's wishes: what `accelerate launch` exports, who wins, what is refused. Oracle: the order of the documentation."""

import json

import pytest

from mixgan.engine.accelerator import describe_processes, make_accelerator, one_device
from mixgan.engine.command import REFUSED, WISHES, check_processes, launcher_wish
from mixgan.engine.config import CommandLine, CommonSettings, read_options, to_json
from mixgan.engine.run import Run
from mixgan.gan.translate import TranslateOptions

PRECISION, ACCUMULATION, CPU = (variable for variable, *_ in WISHES.values())


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for variable in (
        PRECISION,
        ACCUMULATION,
        CPU,
        *REFUSED,
        "MASTER_ADDR",
        "MASTER_PORT",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "RANK",
    ):
        monkeypatch.delenv(variable, raising=False)


def settings_of(*argv: object, **preset: object) -> CommonSettings:
    return CommandLine(CommonSettings, list(map(str, argv)), prog="test").settings(preset)


def test_what_plain_accelerate_launch_exports_is_no_wish(monkeypatch):
    assert launcher_wish() == {}
    for variable, value in (
        (PRECISION, "no"),
        (ACCUMULATION, "1"),
        (CPU, "False"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO"),
    ):
        monkeypatch.setenv(variable, value)
    assert launcher_wish() == {}
    assert settings_of("--mixed-precision", "bf16", "--accumulation-steps", 2, "--cpu").mixed_precision == "bf16"


def test_a_wish_wins_over_preset_and_default_and_loses_to_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv(PRECISION, "bf16")
    monkeypatch.setenv(ACCUMULATION, "4")
    monkeypatch.setenv(CPU, "true")
    settings = settings_of(accumulation_steps=2)
    assert (settings.mixed_precision, settings.accumulation_steps, settings.cpu) == ("bf16", 4, True)
    assert settings_of("--accumulation-steps", 4, "--cpu").accumulation_steps == 4  # a flag that agrees
    file = tmp_path / "a.yaml"
    file.write_text("accumulation-steps: 3\n")
    settings = settings_of("--config", file)
    assert (settings.mixed_precision, settings.accumulation_steps) == ("bf16", 3)
    accelerator = make_accelerator(settings)
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("bf16", 3)
    line = describe_processes(accelerator, settings)
    assert line.startswith("Training in 1 process on the CPU, ")
    assert line.endswith(", in bf16; --accumulation-steps 3, not 4 as the launcher asks.")


@pytest.mark.parametrize(
    ("variable", "value", "words", "message"),
    [
        (
            PRECISION,
            "bf16",
            ("--mixed-precision", "no"),
            "the command line has --mixed-precision no, .* for bf16 .*PRECISION",
        ),
        (ACCUMULATION, "4", ("--accumulation-steps", 2), "--accumulation-steps 2, but the launcher asks for 4 .*STEPS"),
        (CPU, "True", ("--no-cpu",), "--cpu False, but the launcher asks for True .*USE_CPU"),
    ],
)
def test_a_flag_that_contradicts_a_wish_is_an_error_that_names_both(monkeypatch, variable, value, words, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        settings_of(*words)


def test_so_is_a_resumed_setting(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"settings": to_json(CommonSettings()), "recipe": "test"}))
    resume = ("--resume", "--output-dir", tmp_path)
    monkeypatch.setenv(CPU, "1")
    assert settings_of(*resume).cpu  # False stands for: a GPU if there is one
    monkeypatch.setenv(PRECISION, "bf16")
    with pytest.raises(
        ValueError, match=f"the run in {tmp_path} has --mixed-precision no, but the launcher asks for bf16"
    ):
        settings_of(*resume)


def test_commands_without_presets_obey_the_same_rule(monkeypatch):
    words = ["run", "in", "out"]
    monkeypatch.setenv(PRECISION, "bf16")
    assert read_options(TranslateOptions, words, prog="translate")[0].mixed_precision == "bf16"
    with pytest.raises(ValueError, match="the command line has --mixed-precision no, but the launcher asks for bf16"):
        read_options(TranslateOptions, [*words, "--mixed-precision", "no"], prog="translate")
    monkeypatch.setenv(PRECISION, "fp16")
    with pytest.raises(ValueError, match="--mixed-precision must be one of no, bf16, got 'fp16'"):
        read_options(TranslateOptions, words, prog="translate")
    monkeypatch.setenv(CPU, "yes")
    assert one_device().type == "cpu"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (PRECISION, "fp8", "the launcher's ACCELERATE_MIXED_PRECISION must be one of no, bf16, fp16, got 'fp8'"),
        (ACCUMULATION, "auto", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS must be a whole number, got 'auto'"),
        (ACCUMULATION, "0", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS must be at least 1, got 0"),
        (CPU, "maybe", "ACCELERATE_USE_CPU must be true or false, got 'maybe'"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "ACCELERATE_DYNAMO_BACKEND=inductor, .* compiled by --compile"),
        ("ACCELERATE_USE_FSDP", "true", "ACCELERATE_USE_FSDP=true, .* launch without FSDP"),
    ],
)
def test_what_no_command_has_is_refused(monkeypatch, variable: str, value: str, message: str):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        settings_of()


def test_settings_from_python_are_what_is_used_whatever_the_variables_say(monkeypatch):
    """Each batch is used once: accelerate alone would accumulate 4 batches here, and the schedules would count 1."""
    monkeypatch.setenv(ACCUMULATION, "4")
    monkeypatch.setenv(PRECISION, "bf16")
    accelerator = make_accelerator(CommonSettings(accumulation_steps=2))
    assert (accelerator.gradient_accumulation_steps, accelerator.mixed_precision) == (2, "no")


def test_fp16_is_refused_where_networks_are_on_the_cpu(monkeypatch):
    with pytest.raises(ValueError, match="--mixed-precision fp16 needs a GPU and there is none"):
        make_accelerator(CommonSettings(mixed_precision="fp16", cpu=True))


def test_one_process_where_the_launcher_was_asked_for_several_stops_with_the_command_that_works(monkeypatch):
    """`accelerate launch --num_processes 2` without GPUs sets the address, but neither rank nor world size."""
    monkeypatch.setattr("sys.argv", ["recipes/classify.py", "--epochs", "3"])
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    check_processes(1)  # without accelerate launch: somebody's own variables
    monkeypatch.setenv(PRECISION, "no")
    with pytest.raises(
        ValueError, match=r"it starts one; use: torchrun --nproc_per_node N recipes/classify.py --epochs 3"
    ):
        check_processes(1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_processes(1)


def test_the_first_line_of_a_run_says_where_it_trains(capsys, tmp_path):
    Run.start(CommonSettings(output_dir=tmp_path / "run", threads=1), recipe="test")
    assert capsys.readouterr().out == "Training in 1 process on the CPU, 1 thread, in float32.\n"
