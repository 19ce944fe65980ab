"""Compare variants over seeds: python recipes/compare.py --recipe classify --variants mixup,cutmix --seeds 0,1,2"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from mixgan.cli import main  # noqa: E402 - this folder must leave the path first: its files are called like packages

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
