"""Small GANs on eight and on 25 Gaussians, with and without mixing: python recipes/toy_gan.py"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from mixgan.cli import main  # noqa: E402 - this folder must leave the path first: its files are called like packages

if __name__ == "__main__":
    main(["toy-gan", *sys.argv[1:]])
