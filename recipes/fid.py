"""Frechet distance and more of two folders: python recipes/fid.py REAL FAKE --json out.json --html out.html"""

import sys
from functools import partial
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from classify.weights import checkpoint_features  # noqa: E402 - this folder must leave the path first
from mixgan.engine.config import run_command  # noqa: E402
from mixgan.evaluate.command import main  # noqa: E402

if __name__ == "__main__":
    run_command(partial(main, read_checkpoint=checkpoint_features))
