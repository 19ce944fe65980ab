"""What the real `accelerate launch` asks for, by flags and by a file of `accelerate config`, is what a run does and records."""

import json

import accelerate.commands.launch as accelerate_launch
import forked
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from mixgan.engine.run_folder import read_metrics

TINY = (
    "--dataset tiles --image-size 32 --width 4 --blocks 1 --train-count 8 --eval-count 2 --batch-size 2 --log-every 1"
)


def test_a_wish_reaches_accelerator_schedules_and_record(launch, tmp_path, monkeypatch):
    """8 images in batches of 2, two batches a step: two steps in one epoch; without the wish there would be four."""
    file = tmp_path / "default_config.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nnum_machines: 1\n"
        "num_processes: 1\nuse_cpu: true\n"
    )
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    launch.wishes = ["--config_file", str(file)]
    printed = launch.really("mixcyclegan_maps.py", *TINY.split(), "--epochs", 1, "--output-dir", tmp_path / "run")
    assert "Training in 1 process on the CPU, 1 thread, in bf16.\n" in printed
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    used = {name: config["settings"][name] for name in ("mixed_precision", "accumulation_steps", "cpu")}
    assert used == {"mixed_precision": "bf16", "accumulation_steps": 2, "cpu": True}
    assert [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "G_A" in r] == [1, 2]

    # accelerate's launcher up to the start of its process, which is a fork
    words = [launch.recipes / "mixcyclegan_maps.py", *TINY.split(), "--resume", "--output-dir", tmp_path / "run"]
    words = ["--mixed_precision", "fp16", *map(str, words), "--threads", "1"]
    asked, *_ = accelerate_launch._validate_launch_command(accelerate_launch.launch_command_parser().parse_args(words))
    command, environment = prepare_simple_launcher_cmd_env(asked)
    refused = forked.run(command[1:], cwd=launch.cwd, env=environment)
    assert refused.returncode == 2
    assert (
        f"error: the run in {tmp_path / 'run'} has --mixed-precision bf16, but the launcher asks for fp16"
        in refused.stderr
    )
