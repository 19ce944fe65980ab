"""Frechet distance and more of two folders: python recipes/fid.py REAL FAKE --json out.json --html out.html"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from mixgan.cli import main  # noqa: E402 - this folder must leave the path first: its files are called like packages

if __name__ == "__main__":
    main(["fid", *sys.argv[1:]])
