"""All benchmarks, and docs/benchmarks.md made of their tables: python bench/page.py [--tiny] [--output FILE]

``make bench`` runs it: 15 minutes on two cores, with nothing else running. A benchmark that fails, or for which no time is left,
leaves a sentence in its chapter, and the command ends with an error.
"""

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent)] + [path for path in sys.path if Path(path or ".").resolve() != HERE]

from bench.gpu_round import PATIENCE, Stage, bench, run_stage  # noqa: E402 - bench is in no installed package
from mixgan.engine.command import run_command  # noqa: E402
from mixgan.engine.config import Settings, read_options  # noqa: E402

#: Seconds of all benchmarks together.
BUDGET = 900
HEAD = """# Benchmarks

`make bench` writes this page: every benchmark of `bench/` in 15 minutes on two idle CPU cores. Each table names its command,
date, commit and machine. mixgan and its peers take turns in one run; figures are medians, with ratios beside them, and a goal
where there is one. `pip install -e '.[bench]'` installs the peers. `bench/gpu_round.py` measures on a GPU.
"""
#: Name, title, time limit in seconds, flags, those of a rehearsal (none: bench/gpu_round.py --check has it), and what to know.
CHAPTERS = (
    ("mixing", "Mixing", 90, "--quick --compile", "",
     "Images and targets of a batch, with the methods' defaults. Why two goals are not reached: half of PuzzleMix's time are the "
     "16 sweeps of its labels, about 80 small operations each, whose number no batch shrinks; Co-Mixup is at its goal but for "
     "noise, and spends the rest of its time likewise."),
    ("mixing-large", "Mixing images of 224 pixels", 50,
     "--quick --methods mixup,cutmix,resizemix,fmix --image-size 224", "",
     "128 images in float32. All sides take about the time of a copy here, so one lambda a sample cannot be 3 or 6 times faster "
     "than timm's; those goals are of 32 pixels."),
    ("mixing-bfloat16", "Mixing images of 224 pixels in bfloat16", 30,
     "--quick --methods mixup,cutmix,resizemix,fmix --image-size 224 --batch-size 32 --dtype bfloat16", "",
     "32 images. What holds for float32 holds here. FMix's field for every sample (noise, transforms, threshold) costs 13 times "
     "a mixup, which only reads and writes half as many bytes as in float32; `shared_field` draws one field a batch."),
    ("gan", "MixCycleGAN's step", 90, "--sizes 64 128 --repeats 3", "",
     "One pair of images a step. A CPU with AMX multiplies bfloat16 eight times as fast as float32, one with AVX-512 BF16 "
     "twice as fast: there the convolutions alone set a limit near 2 x."),
    ("classify", "Classifiers' step", 240,
     "--repeats 2 --variants fp32 bf16+channels-last --methods-variant bf16+channels-last", "",
     "PreAct ResNet-18. With a clean loss PuzzleMix's second pass is free; any clean loss doubles a step of `erm`."),
    ("fid", "Evaluation", 230, "--images 120", "",
     "The commands as users run them, on the same folders and weights; `--images 1000`, the default, takes fifteen minutes."),
    ("ops", "Image operations", 30, "--repeats 11", "--repeats 1 --least-ms 0.1",
     "torch's way beside Kornia's; [ops.md](ops.md) says which one is used where, and why."),
    ("data", "Training images", 150, "--counts 1000 --seconds 2 --rounds 2",
     "--counts 300 --side 64 --seconds 1 --rounds 1 --commands classify",
     "From memory and from disk; larger sets and more machines are in [scaling.md](scaling.md)."),
    ("gan-compiled", "MixCycleGAN's step, compiled", 170,
     "--compile --sizes 64 --precisions bf16 --variants mixcyclegan --repeats 3", "",
     "`--compile` on a CPU; the row names the seconds that the first step takes."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(Settings):
    """Run all benchmarks and write their tables into one page."""

    output: Path = HERE.parent / "docs" / "benchmarks.md"
    """The page."""
    tiny: bool = False
    """Rehearse with tiny sizes, whose figures mean nothing."""


def stages(work: Path, *, tiny: bool) -> list[tuple[str, str, Stage]]:
    """Title and text of each chapter, and the benchmark that writes its table into ``work``."""
    found = []
    for name, title, seconds, flags, tiny_flags, text in CHAPTERS:
        if words := tiny_flags if tiny else flags:
            found.append((title, text, bench(name.split("-")[0], name, work, seconds, words)))
    return found


def main(argv: Sequence[str]) -> None:
    """The command."""
    options, _ = read_options(Options, argv, prog="bench/page.py")
    patience, page, failed = PATIENCE if options.tiny else 1, [HEAD], []
    end = time.monotonic() + patience * BUDGET
    with tempfile.TemporaryDirectory() as folder:
        work, log = Path(folder), options.output.with_suffix(".log")
        for title, text, stage in stages(work, tiny=options.tiny):
            print(f"{title} ...", flush=True)
            result = run_stage(stage, patience * stage.seconds, end - time.monotonic(), log)
            print(f"{result['outcome']}, {result['seconds']:.0f} s", flush=True)
            table = work / f"{stage.name}.md"
            page += [f"## {title}\n", f"{text}\n"]
            if table.is_file():  # without the folder that is gone when the page is read
                page.append(re.sub(rf" --markdown {re.escape(str(work))}\S*", "", table.read_text()))
            else:
                failed.append(title)
                page.append(f"Not measured: the benchmark {result['outcome']}.\n")
        options.output.write_text("\n".join(page))
    if failed:
        raise ValueError(f"no table of: {', '.join(failed)}; {log} has what the benchmarks printed")
    log.unlink()


if __name__ == "__main__":
    run_command(main)
