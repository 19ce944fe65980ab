import dataclasses

import pytest

from classify.presets import PRESETS, preset_values
from classify.settings import ClassifySettings


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid_settings(name: str):
    settings = ClassifySettings(dataset="tiles", **PRESETS[name])
    settings.check()
    assert {field.name for field in dataclasses.fields(settings)} >= PRESETS[name].keys()


def test_the_paper_preset_is_the_papers():
    # Understanding Mixup V-A: 200 epochs, learning rate 0.1 divided by 10 after 50 % and 75 %, weight decay 1e-4.
    paper = preset_values("paper", dataset="cifar10")
    assert (paper["epochs"], paper["lr"], paper["schedule"], paper["lr_drops"]) == (200, 0.1, "steps", (0.5, 0.75))
    assert paper["weight_decay"] == 1e-4


def test_the_default_depends_on_the_data():
    assert preset_values(None, dataset="tiles") == preset_values("quick", dataset="cifar10")
    assert preset_values(None, dataset="cifar10") == preset_values("paper", dataset="tiles")
    assert preset_values("quick", dataset="tiles") != preset_values("paper", dataset="tiles")


def test_an_unknown_preset_is_quoted_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'fast'; known: quick, paper"):
        preset_values("fast", dataset="tiles")
