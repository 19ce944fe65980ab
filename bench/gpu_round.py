"""Everything worth measuring on one GPU, in two calls of 8 and 4 minutes: python bench/gpu_round.py --part 1 --output OUT

Every stage is one command with a time limit, run by itself: a stage that fails or runs out of time is a line in the table, and
the next one starts. OUT gets round-1.json and round-1.md with the commands, their times and the tables they wrote, and
round-1.log with what they printed. ``--check`` rehearses every stage on a CPU with tiny sizes.

The data travel with the call: class folders of CIFAR-10 and Google Maps are in ``--data-root``, as everywhere. Where they are
missing the stages train on tiles.
"""

import json
import shlex
import shutil
import subprocess
import sys
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

PYTHON = sys.executable
LAUNCH = (PYTHON, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1")
LAUNCH += ("--mixed_precision", "no", "--dynamo_backend", "no")
#: Seconds of a part as a whole; what is left of it bounds every stage.
BUDGET = {1: 470, 2: 230}
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
        evaluation = "--quick --parts distance"
    else:
        common = "--device cuda --compile --methods mixup,cutmix,fmix,resizemix,puzzlemix"
        mixers = {
            "mixers-32": f"{common} --batch-size 128 --image-size 32",
            "mixers-224": f"{common} --batch-size 256 --image-size 224 --dtype bfloat16",
        }
        training = (
            "--network preact-resnet18 --mixed-precision bf16 --channels-last --compile --batch-size 512 --lr 0.4 "
            "--warmup 0.2 --schedule cosine --epochs 36 --eval-every-epochs 9"
        )
        methods = "--methods-variant bf16+channels-last --images 1000"
        evaluation = "--parts network,end-to-end"
    data = "cifar10" if (options.data_root / "cifar10").is_dir() else "tiles"
    return [
        Stage("gpu-tests", (PYTHON, "-m", "pytest", "-q", "-k", "gpu or cuda or synchronisation", *gpu_tests()), 90),
        *(bench("mixing", name, work, 80, flags) for name, flags in mixers.items()),
        train(
            "classify",
            "cifar10-cutmix",
            work,
            200,
            options,
            f"--dataset {data} --method cutmix --mix-prob 0.5 {training}",
        ),
        bench("classify", "methods", work, 60, f"--parts methods {methods}"),
        bench("fid", "fid", work, 60, evaluation),
    ]


def second_part(options: Options, work: Path, tiny: bool) -> list[Stage]:
    """MixCycleGAN: its step by batch size, then short trainings."""
    if tiny:
        sizes, batches = "--sizes 64 --variants none --repeats 1", [1]
        training = "--image-size 32 --width 8 --blocks 1 --max-steps 2 --eval-count 4 --train-count 4"
    else:
        sizes, batches = "--sizes 256 --repeats 3", [1, 4, 16]
        training = (
            "--image-size 256 --batch-size 8 --mixed-precision bf16 --compile --epochs 3 --lr 5e-4 --eval-count 100"
        )
    data = "maps" if (options.data_root / "maps").is_dir() else "tiles"
    steps = [
        bench("gan", f"step-batch-{batch}", work, 30, f"--batch-size {batch} --precisions bf16 {sizes}")
        for batch in batches
    ]
    return [
        *steps,
        *(
            train("mixcyclegan_maps", f"maps-{name}", work, 50, options, f"--dataset {data} --mixing {name} {training}")
            for name in ("none", "mixcyclegan", "mixcyclegan-plus")
        ),
    ]


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
    """Run one stage; what became of it."""
    started, limit = time.monotonic(), min(seconds, left)
    with log.open("a") as out:
        out.write(f"\n$ {shlex.join(stage.command)}\n")
        out.flush()
        try:
            code = subprocess.run(
                stage.command, cwd=HERE.parent, stdout=out, stderr=out, timeout=max(limit, 1)
            ).returncode
            outcome = {0: "done", 5: "no test chosen"}.get(code, f"failed with code {code}")
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {limit:.0f} s"
    return {"stage": stage.name, "outcome": outcome, "seconds": round(time.monotonic() - started, 1),
            "command": shlex.join(stage.command)}  # fmt: skip


def result_of(stage: Stage, work: Path) -> tuple[dict[str, Any], str]:
    """The numbers of a run's summary, and the table of a benchmark, where the stage left them."""
    summary, table = work / stage.name / "summary.json", work / f"{stage.name}.md"
    numbers = json.loads(summary.read_text()) if summary.is_file() else {}
    return {key: numbers[key] for key in SHOWN if key in numbers}, table.read_text() if table.is_file() else ""


def main(argv: Sequence[str]) -> None:
    """The command."""
    words = ["--check-only" if word == "--check" else word for word in argv]  # "check" is a method of Settings
    options, _ = read_options(Options, words, prog="bench/gpu_round.py")
    if not options.check_only and not torch.cuda.is_available():
        raise ValueError("torch finds no GPU on this machine; --check rehearses the round on a CPU")
    # Runs and tables stay beside the results, so that a stage that is stopped leaves what it has.
    output, work = options.output.absolute(), options.output.absolute() / f"work-{options.part}"
    shutil.rmtree(work, ignore_errors=True)  # of an earlier round
    work.mkdir(parents=True)
    name = f"round-{options.part}"
    (output / f"{name}.log").write_text("")
    patience = 6 if options.check_only else 1  # a rehearsal finds what is broken, not what is slow
    end = time.monotonic() + patience * BUDGET[options.part]
    device = torch.device("cpu" if options.check_only else "cuda")
    lines = [f"- python bench/gpu_round.py {shlex.join(argv)}", *(f"- {line}" for line in machine(device)), ""]
    lines += ["| stage | outcome | s | numbers |", "| --- | --- | ---: | --- |"]
    results, tables = [], []
    for stage in stages(options, work):
        print(f"{stage.name} ...", flush=True)
        result = run_stage(stage, patience * stage.seconds, end - time.monotonic(), output / f"{name}.log")
        result["numbers"], table = result_of(stage, work)
        results.append(result)
        tables += [f"\n## {stage.name}\n", table] if table else []
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in result["numbers"].items())
        lines.append(f"| {stage.name} | {result['outcome']} | {result['seconds']} | {numbers} |")
        print(lines[-1], flush=True)
        # After every stage: a call that is cut off leaves what was measured.
        (output / f"{name}.json").write_text(json.dumps(results, indent=1))
        (output / f"{name}.md").write_text("\n".join([*lines, *tables]) + "\n")
    failed = [result["stage"] for result in results if result["outcome"] not in ("done", "no test chosen")]
    if len(failed) == len(results) or (failed and options.check_only):
        raise ValueError(f"{', '.join(failed)} did not end well; {output / name}.log has what they printed")


if __name__ == "__main__":
    run_command(main)
