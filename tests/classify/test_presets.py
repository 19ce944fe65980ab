import dataclasses
from collections.abc import Iterator

import pytest

from classify.config import ClassifySettings, settings_from
from classify.presets import PRESETS, TABLES, preset_values


def rows() -> Iterator[tuple[str, str, str, str]]:
    return ((name, *row) for name, table in TABLES.items() for row in table.rows())


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid_settings(name: str):
    settings = ClassifySettings(dataset="tiles", **PRESETS[name])
    settings.check()
    assert {field.name for field in dataclasses.fields(settings)} >= PRESETS[name].keys()


def test_every_row_of_every_table_is_valid_settings():
    for name, dataset, network, method in rows():
        values = preset_values(name, dataset=dataset, method=method)
        ClassifySettings(dataset=dataset, network=network, method=method, **values).check()


def test_every_table_of_the_papers_is_there():
    lamix, automix = ({f"{paper}-table{number}" for number in range(1, 9)} for paper in ("lamix", "automix"))
    own = {"wrong-labels", "few-labels"}
    assert set(TABLES) == lamix | automix | own | {"understanding-mixup-table1", "multi-sample-table1"}
    assert all(table.source and table.note for table in TABLES.values())


def test_the_paper_preset_is_the_papers():
    # Understanding Mixup V-A: 200 epochs, learning rate 0.1 divided by 10 after 50 % and 75 %, weight decay 1e-4.
    paper = preset_values("paper", dataset="cifar10", method="mixup")
    assert (paper["epochs"], paper["lr"], paper["schedule"], paper["lr_drops"]) == (200, 0.1, "steps", (0.5, 0.75))
    assert paper["weight_decay"] == 1e-4


@pytest.mark.parametrize(
    ("name", "dataset", "method", "facts"),
    [
        # AutoMix 5.1: 800 epochs, batch 100, lr 0.1, weight decay 1e-4, cosine; alpha 2 for ManifoldMix and AutoMix only.
        ("automix-table1", "cifar10", "mixup", {"epochs": 800, "batch_size": 100, "lr": 0.1, "mixer": {"alpha": 1.0}}),
        ("automix-table1", "cifar100", "manifold-mixup", {"schedule": "cosine", "method_options": {"alpha": 2.0}}),
        # 5.2: pretrained, lr 0.001, batch 16, 200 epochs.
        (
            "automix-table1",
            "cub-200",
            "erm",
            {"epochs": 200, "batch_size": 16, "lr": 0.001, "init_from": "torchvision"},
        ),
        # 5.1, ImageNet Datasets: 300 epochs, batch 256, lr 0.1; Tiny-ImageNet 400, 100, 0.2.
        ("automix-table3", "imagenet", "erm", {"epochs": 300, "batch_size": 256, "lr": 0.1, "weight_decay": 1e-4}),
        ("automix-table3", "tiny-imagenet", "erm", {"epochs": 400, "batch_size": 100, "lr": 0.2}),
        # LaMix 3.1: 400 epochs, batches of 128, beta 0.5; 3.2: 600 epochs, beta 1.
        ("lamix-table1", "svhn", "lamix", {"epochs": 400, "batch_size": 128, "method_options": {"beta": 0.5}}),
        ("lamix-table3", "cifar10", "lamix-puzzle", {"epochs": 600, "lr": 0.2, "method_options": {"beta": 1.0}}),
        ("lamix-table3", "cifar10", "erm", {"epochs": 400, "lr": 0.1}),
        # Understanding Mixup V-A: channel means are subtracted on CIFAR; ImageNet: 90 epochs, drops after 30, 60 and 80.
        ("understanding-mixup-table1", "cifar100", "mixup-hv", {"epochs": 200, "normalise": "mean", "nesterov": True}),
        ("understanding-mixup-table1", "imagenet", "erm", {"epochs": 90, "lr_drops": (1 / 3, 2 / 3, 8 / 9)}),
        # Multi-Sample 5.1: 100 epochs, divided by 10 at 40 %, 60 % and 80 %.
        ("multi-sample-table1", "cifar10", "multi-sample", {"epochs": 100, "lr_drops": (0.4, 0.6, 0.8), "lr": 0.1}),
    ],
)
def test_tables_are_the_papers(name: str, dataset: str, method: str, facts: dict):
    values = preset_values(name, dataset=dataset, method=method)
    assert {key: values[key] for key in facts} == facts


def test_parts_of_a_row_are_laid_over_one_another():
    # PuzzleMix on Tiny-ImageNet: alpha of the method, t_size and clean loss of the data set.
    values = TABLES["automix-table3"].values("tiny-imagenet", "puzzlemix")
    assert values["mixer"] == {"alpha": 1.0, "t_size": 0}
    assert values["method_options"]["clean_weight"] == 1.0


def test_flags_choose_the_row_and_win_over_it(capsys):
    first = settings_from(["--preset", "automix-table1"])
    assert (first.dataset, first.network, first.method, first.epochs) == ("cifar10", "resnet18", "erm", 800)
    birds = settings_from(["--preset", "automix-table1", "--dataset", "cub-200", "--method", "automix"])
    assert (birds.network, birds.lr, birds.method_options["alpha"]) == ("resnet18-imagenet", 0.001, 2.0)
    own = settings_from(["--preset", "automix-table3", "--method", "mixup", "--lr", "0.3", "--mixer.alpha", "0.2"])
    assert (own.dataset, own.lr, own.mixer["alpha"], own.epochs) == ("tiny-imagenet", 0.3, 0.2, 400)
    assert capsys.readouterr().out == ""


def test_a_row_that_the_table_lacks_is_announced_and_has_its_other_settings(capsys):
    settings = settings_from(
        ["--preset", "automix-table1", "--method", "lamix", "--network", "vgg11", "--dataset", "tiles"]
    )
    assert (settings.epochs, settings.batch_size, settings.network, settings.dataset) == (800, 100, "vgg11", "tiles")
    assert capsys.readouterr().out == (
        "automix-table1 has no row for --dataset tiles --method lamix: its other settings are used.\n"
    )


def test_an_alias_has_the_settings_of_its_method():
    # mixup-C of Understanding Mixup; alpha 0.2 on ImageNet.
    values = preset_values("understanding-mixup-table1", dataset="imagenet", method="mixup-c")
    assert values["mixer"] == {"alpha": 0.2}


def test_the_default_depends_on_the_data():
    quick, paper = (preset_values(None, dataset=dataset, method="mixup") for dataset in ("tiles", "cifar10"))
    assert (quick, paper) == (PRESETS["quick"], PRESETS["paper"])
    assert quick != paper


def test_an_unknown_preset_is_quoted_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'fast'; known: quick, paper, lamix-table1, "):
        preset_values("fast", dataset="tiles", method="mixup")
