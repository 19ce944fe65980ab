"""recipes/translate.py as a process of its own, from a folder that is not the project's."""

import subprocess
import sys

from PIL import Image

from mixgan.engine.run_folder import save_weights
from mixgan.gan.networks import ResnetGenerator


def test_translates_a_folder(launch):
    save_weights(launch.cwd / "mine.safetensors", ResnetGenerator(width=4, blocks=1), {"role": "generator"})
    (launch.cwd / "photos").mkdir()
    Image.new("RGB", (70, 33), "green").save(launch.cwd / "photos" / "1.jpg")
    words = ["mine.safetensors", "photos", "maps", "--tile", "32", "--threads", "1"]
    command = [sys.executable, str(launch.recipes / "translate.py"), *words]
    process = subprocess.run(command, cwd=launch.cwd, capture_output=True, text=True, timeout=900, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""  # no progress bar, no warning
    first, last = process.stdout.splitlines()
    assert first.startswith("mine.safetensors: AtoB, ResNet-1, width 4; on ")
    assert last.startswith("1 image translated: maps (")
    assert Image.open(launch.cwd / "maps" / "1.png").size == (70, 33)
