"""Run by test_every_switch.py in one and in two processes: every training method and every variant of the GAN, each stopped after
two steps and resumed. The oracle is the run of the same command that is not stopped: logs, figures and weights, bit for bit.

Its one argument is a folder with CIFAR-10's class folders in little, which takes the runs too.
"""

import json
import os
import sys
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from accelerate.state import AcceleratorState, GradientState, PartialState
from unplotted import leave_out_plots

from classify.__main__ import main as classify
from classify.methods import METHODS
from mixgan.data import tiles
from mixgan.engine.run_folder import read_metrics
from mixgan.gan.__main__ import main as mixcyclegan

COMMON = "--threads 1 --log-every 1 --seed 3"
SMALL = "--dataset cifar10 --network bundled --image-size 16 --batch-size 4 --epochs 2 --lr 0.05"
GAN = (
    "--dataset tiles --image-size 32 --width 4 --blocks 1 --train-count 16 --eval-count 4 --pool-size 2 --epochs 3 "
    "--no-eval-at-start"
)
#: Options that bring out what a method keeps from step to step.
OPTIONS = {
    "automix": "--method.momentum 0.9 --method.tested teacher --side-lr 0.03 --crop resized",
    "multi-sample": "--method.heads 1",
    "patchup": "--method.mode hard --method.prob 0.5",
}
MIXERS = {
    "puzzlemix": "--method.clean-weight 1 --method.reuse-forward --mix-prob 0.5",
    "mixup+cutmix": "",
    "comixup": "--method.smoothing 0.1",
}
VARIANTS = {
    "none": "--ema 0.9 --gan-loss relativistic --r1 1 --r2 1 --r-every 3",
    "mixcyclegan": "--no-shared-lambda --d-alpha 0.5 --d-term add --gradient-checkpointing",
    "stitch-only": "--gan-loss bce --unstitched 0.5",
    "dmix-only": "--gan-loss hinge --accumulation-steps 2 --d-real input",
    "stitch-d": "--ema 0.9 --h-prob 0.3 --mixed-precision bf16",
    "consistency": "--d-weight 2 --upsample resize --skip --patch 34",
    "mixcyclegan-plus": "--d-layer 2 --r1 1 --r2 0.5 --r-every 2",
}


def results(folder: Path) -> tuple[list[dict], dict, dict[str, bytes]]:
    """What was logged in each step, the last figures, the weights: all but the test where the stopped run stopped."""
    steps = [record for record in read_metrics(folder / "metrics.jsonl") if {"loss", "G_A"} & record.keys()]
    summary = json.loads((folder / "summary.json").read_text())
    for other in ("seconds", "images_per_second", "test_accuracy_best", "test_accuracy_last10"):
        summary.pop(other, None)
    weights = {path.name: path.read_bytes() for path in (folder / "weights").rglob("last/*.safetensors")}
    return steps, summary, weights


def run(command, folder: Path, words: str) -> None:
    # As if it began in a new process.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    command([*words.split(), *COMMON.split(), "--output-dir", str(folder)])


def resumed_equals_uninterrupted(command, name: str, words: str, root: Path) -> None:
    whole, broken = root / f"{name}-whole", root / f"{name}-broken"
    run(command, whole, f"{words} --max-steps 4")
    run(command, broken, f"{words} --max-steps 2")
    run(command, broken, f"{words} --max-steps 4 --resume")
    if os.environ.get("RANK", "0") == "0":
        for found, expected, what in zip(results(broken), results(whole), ("log", "summary", "weights"), strict=True):
            assert found == expected, f"{name}: the {what} of the resumed run differs"
        print(f"passed: {name}", flush=True)


leave_out_plots()
tiles.make_tiles = cache(tiles.make_tiles)  # all variants train on the same ones
# A run ends its process group; a second group of the same processes finds the first one's addresses and hangs.
PartialState.destroy_process_group = lambda self, group=None: None
root = Path(sys.argv[1])
for name, own in ({name: OPTIONS.get(name, "") for name in METHODS} | MIXERS).items():
    words = f"--method {name} {SMALL} --data-root {root} {own}"
    resumed_equals_uninterrupted(classify, name, words, root)
for mixing, own in VARIANTS.items():
    resumed_equals_uninterrupted(mixcyclegan, mixing, f"--mixing {mixing} {GAN} {own}", root)
