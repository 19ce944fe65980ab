"""``python -m mixgan.gan``: the same as recipes/mixcyclegan_maps.py."""

from mixgan.engine.config import run_command
from mixgan.gan.train import main

if __name__ == "__main__":
    run_command(main)
