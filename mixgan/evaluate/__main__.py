"""python -m mixgan.evaluate REAL FAKE: the evaluation command with the features that mixgan has."""

from mixgan.engine.command import run_command
from mixgan.evaluate.command import main

if __name__ == "__main__":
    run_command(main)
