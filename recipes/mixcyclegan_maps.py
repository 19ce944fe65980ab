"""Train MixCycleGAN on Google Maps, or on the synthetic tiles: accelerate launch recipes/mixcyclegan_maps.py"""

import sys
from pathlib import Path

sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]

from mixgan.cli import main  # noqa: E402 - this folder must leave the path first: its files are called like packages

if __name__ == "__main__":
    main(["train-gan", *sys.argv[1:]])
