"""``python -m classify``: the same as recipes/classify.py."""

from classify.train import main
from mixgan.engine.config import run_command

if __name__ == "__main__":
    run_command(main)
