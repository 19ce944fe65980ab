"""Everything worth measuring on one GPU, in two calls of 8 and 4 minutes.

    python -m pip install --no-index --no-deps wheels/*.whl; python bench/gpu_round.py --part 1 --output OUT

Every stage is one command with a time limit, run by itself: a stage that fails or runs out of time is a line in the table, and
the next one starts. OUT gets round-1.json and round-1.md with the commands, their times and the tables they wrote, round-1.log
with what they printed, and the reports of trained runs: six files at most. ``--check`` rehearses every stage on a CPU with tiny
sizes.

What pyproject.toml asks for and the machine lacks (kornia, kornia_rs, pytorch-fid) travels as wheels; the package itself need
not be installed. The data travel too: class folders of CIFAR-10 and Google Maps are in ``--data-root``, as everywhere. Where
they are missing the stages train on tiles.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.timing import machine  # noqa: E402 - bench is in no installed package
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402
from mixgan.engine.run_folder import read_metrics  # noqa: E402

PYTHON = sys.executable
LAUNCH = (PYTHON, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1")
LAUNCH += ("--mixed_precision", "no", "--dynamo_backend", "no")
#: Seconds of a part as a whole; what is left of it bounds every stage.
BUDGET = {1: 470, 2: 230}
#: How many times longer a rehearsal may take: it finds what is broken, not what is slow.
PATIENCE = 6.0
#: Metrics of a run's summary that the table shows.
SHOWN = ("test_accuracy", "test_accuracy_best", "ece", "fd_AtoB", "fd_BtoA", "rmse_AtoB", "ssim_AtoB")
SHOWN += ("images_per_second", "seconds", "steps")


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Measure tests, mixers, training and evaluation on a GPU."""

    part: Literal[1, 2] = 1
    """1: tests, mixers, CIFAR-10, evaluation (8 minutes). 2: MixCycleGAN (4 minutes)."""
    output: Path = Path("gpu-round")
    """Folder for results."""
    data_root: Path = Path("data")
    """Folder with cifar10/ and maps/."""
    check_only: bool = False
    """Rehearse every stage on a CPU with tiny sizes."""


@dataclass(frozen=True)
class Stage:
    """One thing to measure.

    Attributes:
        name: of the stage, and of its run folder or table in the output folder.
        command: what is run, from the root of the checkout.
        seconds: its time limit.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


def stages(options: Options, work: Path) -> list[Stage]:
    """The stages of a part, the surest first; commands write into ``work``."""
    return (first_part if options.part == 1 else second_part)(options, work, options.check_only)


def first_part(options: Options, work: Path, tiny: bool) -> list[Stage]:
    """Tests, mixers, classifiers, evaluation."""
    if tiny:
        mixers = {"mixers": "--methods mixup,cutmix --repeats 1 --least-ms 1 --batch-size 4"}
        training = "--network conv9:width=8 --max-steps 2 --batch-size 8 --train-count 16 --eval-count 50"
        methods = "--methods lamix --network conv9:width=8 --batch-size 4 --images 8 --repeats 1"
        evaluation = "--parts distance --dims 64"
    else:
        common = "--device cuda --compile --repeats 7 --methods mixup,cutmix,fmix,resizemix"
        mixers = {  # PuzzleMix's peers take float32 only
            "mixers-32": f"{common},puzzlemix --batch-size 128 --image-size 32",
            "mixers-224": f"{common} --batch-size 256 --image-size 224 --dtype bfloat16",
        }
        training = (
            # 60 epochs: about 1 s each. Batches of one size only, 512 and 1000, as every other size is compiled again.
            "--network preact-resnet18 --mixed-precision bf16 --channels-last --compile --batch-size 512 --lr 0.4 --epochs 60 "
            "--weight-decay 5e-4 --warmup 0.1 --schedule cosine --eval-every-epochs 20 --eval-batch-size 1000"
        )
        methods = "--methods-variant bf16+channels-last --images 1000"
        evaluation = "--parts peers --images 400"
    data = "cifar10" if (options.data_root / "cifar10").is_dir() else "tiles"
    small, *large = (bench("mixing", name, work, 70, flags) for name, flags in mixers.items())
    training = f"--dataset {data} --method cutmix --mix-prob 0.5 {training}"
    return [
        small,
        train("classify", "cifar10-cutmix", work, 220, options, training),
        Stage("gpu-tests", (PYTHON, "-m", "pytest", "-q", "-k", "gpu or cuda or synchronisation", *gpu_tests()), 90),
        bench("fid", "fid", work, 60, evaluation),
        *large,
        bench("classify", "methods", work, 60, f"--parts methods {methods}"),
    ]


def second_part(options: Options, work: Path, tiny: bool) -> list[Stage]:
    """MixCycleGAN: steps of small batches, a training without and one with mixing, and what takes long or compiles."""
    if tiny:
        step = "--sizes 64 --variants none --repeats 1 --precisions bf16"
        training = "--image-size 32 --width 8 --blocks 1 --max-steps 2 --eval-count 4 --train-count 4"
    else:
        step = "--sizes 256 --variants mixcyclegan --repeats 3 --precisions bf16"
        training = "--image-size 256 --batch-size 8 --mixed-precision bf16 --epochs 4 --max-steps 120 --lr 5e-4 --eval-count 100"
    data = "maps" if (options.data_root / "maps").is_dir() else "tiles"

    def steps(batch: int, seconds: float, flags: str = "") -> Stage:
        name = f"step-batch-{batch}{'-compiled' if flags else ''}"
        return bench("gan", name, work, seconds, f"--batch-size {batch} {flags} {step}")

    def maps(mixing: str) -> Stage:
        flags = f"--dataset {data} --mixing {mixing} {training}"
        return train("mixcyclegan_maps", f"maps-{mixing}", work, 60, options, flags)

    trainings = [maps("none"), maps("mixcyclegan-plus")]
    if tiny:
        return [steps(1, 30), *trainings]
    # Compiling may take longer than all the rest, so it gets what is left.
    return [steps(1, 30), steps(4, 30), *trainings, steps(16, 45), steps(4, 70, "--compile")]


def bench(script: str, name: str, work: Path, seconds: float, flags: str) -> Stage:
    """One of the benchmarks beside this file, its table in ``work``."""
    return Stage(name, (PYTHON, f"bench/{script}.py", *flags.split(), "--markdown", str(work / f"{name}.md")), seconds)


def train(recipe: str, name: str, work: Path, seconds: float, options: Options, flags: str) -> Stage:
    """A training command, its run folder in ``work``."""
    folders = ("--data-root", str(options.data_root.absolute()), "--output-dir", str(work / name))
    return Stage(name, (*LAUNCH, f"recipes/{recipe}.py", *flags.split(), "--seed", "0", *folders), seconds)


def gpu_tests() -> list[str]:
    """Files with tests that need a GPU."""
    files = (HERE.parent / "tests").rglob("test_*.py")
    return sorted(str(file.relative_to(HERE.parent)) for file in files if "cuda.is_available" in file.read_text())


def run_stage(stage: Stage, seconds: float, left: float, log: Path) -> dict[str, Any]:
    """Run one stage with all its processes; what became of it."""
    started, limit = time.monotonic(), max(min(seconds, left), 1)
    outcome = f"stopped after {limit:.0f} s"
    with log.open("a") as out:
        out.write(f"\n$ {shlex.join(stage.command)}\n")
        out.flush()
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}  # recipes import the package, installed or not
        process = subprocess.Popen(
            stage.command, cwd=HERE.parent, env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = process.wait(limit)
            outcome = {0: "done", 5: "no test chosen"}.get(code, f"failed with code {code}")
        except subprocess.TimeoutExpired:  # a launcher's child would go on and keep the GPU from the next stage
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"stage": stage.name, "outcome": outcome, "seconds": round(time.monotonic() - started, 1),
            "command": shlex.join(stage.command)}  # fmt: skip


def result_of(stage: Stage, work: Path) -> tuple[dict[str, Any], str]:
    """The numbers of a run's summary, or the last ones on record of a run that was stopped, and the table of a benchmark."""
    summary, log, table = (
        work / stage.name / "summary.json",
        work / stage.name / "metrics.jsonl",
        work / f"{stage.name}.md",
    )
    records = [json.loads(summary.read_text())] if summary.is_file() else read_metrics(log) if log.is_file() else []
    numbers = {key: value for record in records for key, value in record.items()}
    return {key: numbers[key] for key in SHOWN if key in numbers}, table.read_text() if table.is_file() else ""


def main(argv: Sequence[str]) -> None:
    """The command."""
    words = ["--check-only" if word == "--check" else word for word in argv]  # "check" is a method of Settings
    options, _ = read_options(Options, words, prog="bench/gpu_round.py")
    if not options.check_only and not torch.cuda.is_available():
        raise ValueError("torch finds no GPU on this machine; --check rehearses the round on a CPU")
    output, name = options.output.absolute(), f"round-{options.part}"
    output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{name}-"))  # checkpoints are too many and too large to come back
    (output / f"{name}.log").write_text("")
    patience = PATIENCE if options.check_only else 1
    end = time.monotonic() + patience * BUDGET[options.part]
    device = torch.device("cpu" if options.check_only else "cuda")
    lines = [f"- python bench/gpu_round.py {shlex.join(argv)}", *(f"- {line}" for line in machine(device)), ""]
    lines += ["| stage | outcome | s | numbers |", "| --- | --- | ---: | --- |"]
    results, tables = [], []
    for stage in stages(options, work):
        print(f"{stage.name} ...", flush=True)
        result = run_stage(stage, patience * stage.seconds, end - time.monotonic(), output / f"{name}.log")
        result["numbers"], table = result_of(stage, work)
        if (report := work / stage.name / "report.html").is_file():
            shutil.copy(report, output / f"{stage.name}.html")
        results.append(result)
        tables += [f"\n## {stage.name}\n", table] if table else []
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in result["numbers"].items())
        lines.append(f"| {stage.name} | {result['outcome']} | {result['seconds']} | {numbers} |")
        print(lines[-1], flush=True)
        # After every stage: a call that is cut off leaves what was measured.
        (output / f"{name}.json").write_text(json.dumps(results, indent=1))
        (output / f"{name}.md").write_text("\n".join([*lines, *tables]) + "\n")
    shutil.rmtree(work)
    failed = [result["stage"] for result in results if result["outcome"] not in ("done", "no test chosen")]
    if len(failed) == len(results) or (failed and options.check_only):
        raise ValueError(f"{', '.join(failed)} did not end well; {output / name}.log has what they printed")


if __name__ == "__main__":
    run_command(main)
