"""Look inside trained classifiers: python recipes/analyze.py RUN [RUN ...] --figures all"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from classify.analysis.command import main  # noqa: E402 - this folder must leave the path first
from mixgan.engine.config import run_command  # noqa: E402

if __name__ == "__main__":
    run_command(main)
