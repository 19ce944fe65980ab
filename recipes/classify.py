"""Train a classifier with a mixing method: accelerate launch recipes/classify.py --method cutmix"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from classify.train import main  # noqa: E402 - this folder must leave the path first, or this file shadows the package
from mixgan.engine.config import run_command  # noqa: E402

if __name__ == "__main__":
    run_command(main)
