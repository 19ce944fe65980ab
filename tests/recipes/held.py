"""Runs a recipe that stops after a step until a signal comes, so that no test depends on timing: held.py STEP RECIPE FLAGS."""

import runpy
import signal
import sys
import time

from mixgan.engine.run import Run

step, recipe = int(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
end_step = Run.end_step


def held(run: Run, *values: object, **more: object) -> None:
    end_step(run, *values, **more)
    handler = signal.getsignal(signal.SIGTERM)  # the run's own, until the first signal
    while run.step == step and signal.getsignal(signal.SIGTERM) == handler:
        time.sleep(0.01)


Run.end_step = held
runpy.run_path(recipe, run_name="__main__")
