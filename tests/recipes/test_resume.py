"""A run that is killed in the middle and resumed equals one that is not, bit for bit: logs and weights.

The oracle is the uninterrupted run of the same command.
"""

import json
import re
import signal

import pytest
import torch
from PIL import Image

COMMON = ("--max-steps", 12, "--checkpoint-every", 4, "--log-every", 1)
GAN = "--image-size 32 --width 4 --blocks 1 --train-count 16 --eval-count 4 --pool-size 3 --batch-size 2"
CLASSIFY = "--method mixup-hv --network bundled --image-size 32 --batch-size 16 --eval-count 8 --epochs 3"


def class_folders(root):
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 48), ("test", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = torch.randint(256, (40, 48, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")
    return root


def results(folder):
    summary = json.loads((folder / "summary.json").read_text())
    for timing in ("seconds", "images_per_second"):
        del summary[timing]
    weights = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "weights").rglob("*.*"))
        if path.is_file()
    }
    return (folder / "metrics.jsonl").read_text(), summary, weights


@pytest.mark.parametrize("job", ["gan", "classify", "classify streaming with 2 workers"])
def test_killed_and_resumed_equals_uninterrupted(job, launch, tmp_path):
    again = ()
    if job == "gan":
        command = ("mixcyclegan_maps.py", *GAN.split(), *COMMON)
    elif job == "classify":
        command = ("classify.py", *CLASSIFY.split(), "--train-count", 80, *COMMON)
    else:
        data = class_folders(tmp_path / "data")
        streamed = ("--dataset", "imagefolder", "--data-root", data, "--num-workers", 2)
        command, again = ("classify.py", *CLASSIFY.split(), *streamed, "--cache-gb", 0, *COMMON), ("--cache-gb", 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    launch(*command, "--output-dir", whole)
    launch.signalled(signal.SIGKILL, *command, "--output-dir", broken, folder=broken, after_step=6)
    assert not (broken / "summary.json").exists()
    printed = launch(*command, *again, "--output-dir", broken, "--resume")
    resumed = re.search(r"Resuming at step (\d+) of 12", printed)
    assert resumed, printed
    assert int(resumed[1]) in (4, 5)  # killed after step 6; classify saves at its evaluation, too
    log, summary, weights = results(broken)
    expected_log, expected_summary, expected_weights = results(whole)
    assert log == expected_log
    assert summary == expected_summary
    assert weights == expected_weights


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_the_process_group_saves_and_prints_how_to_resume(launch, tmp_path, workers: int):
    folder = tmp_path / "run"
    data = ("--train-count", 80)
    if workers:  # which get the signal too
        data = ("--dataset", "imagefolder", "--data-root", class_folders(tmp_path / "data"), "--num-workers", workers)
    command = ("classify.py", *CLASSIFY.split(), *data, "--log-every", 1, "--max-steps", 12)
    command = (*command, "--output-dir", folder)
    printed = launch.signalled(signal.SIGTERM, *command, folder=folder, after_step=2, really=workers == 2)
    assert "saved. Resume with:" in printed
    assert "--resume" in printed
    stopped = json.loads((folder / "checkpoints" / "last.json").read_text())["step"]
    assert stopped == 2
    assert f"Resuming at step {stopped} of 12" in launch(*command, "--resume")
