"""Short runs for the figures to look at: 96 tiles, two epochs, the small network."""

from pathlib import Path

import pytest
import torch
from unplotted import leave_out_plots

from classify.analysis.trained_run import TrainedRun
from classify.config import settings_from
from classify.train import train

SHORT = ["--dataset", "tiles", "--train-count", "96", "--epochs", "2", "--batch-size", "32", "--image-size", "32"]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory):
    """A function of flags that gives the folder of a finished run; one run for the same flags."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*flags: str) -> Path:
        if flags not in made:
            folder = tmp_path_factory.mktemp("runs") / "-".join(flags).replace("--", "")
            with pytest.MonkeyPatch.context() as patch:
                leave_out_plots(patch.setattr)
                train(settings_from([*flags, *SHORT, "--threads", "1", "--output-dir", str(folder)]))
            made[flags] = folder
        return made[flags]

    return make


@pytest.fixture(scope="session")
def cutmix_run(make_run) -> TrainedRun:
    """A run of CutMix."""
    return TrainedRun(make_run("--method", "cutmix"), "cutmix", torch.device("cpu"))
