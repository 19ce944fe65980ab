"""Translate a folder of images: python recipes/translate.py RUN_OR_WEIGHTS INPUT_DIR OUTPUT_DIR --direction AtoB"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from mixgan.cli import main  # noqa: E402 - this folder must leave the path first: its files are called like packages

if __name__ == "__main__":
    main(["translate", *sys.argv[1:]])
