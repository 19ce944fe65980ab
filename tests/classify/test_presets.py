import dataclasses
from collections.abc import Iterator

import pytest

from classify.config import ClassifySettings, settings_from
from classify.methods import build_method
from classify.networks import build_network
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
    others = {"understanding-mixup-table1", "multi-sample-table1", "comixup"}
    assert set(TABLES) == lamix | automix | own | others
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
        ("automix-table1", "cifar10", "mixup", {"epochs": 800, "batch_size": 100, "lr": 0.1}),
        ("automix-table1", "cifar100", "manifold-mixup", {"schedule": "cosine"}),
        # 5.2: pretrained, lr 0.001, batch 16, 200 epochs.
        (
            "automix-table1",
            "cub-200",
            "erm",
            {"epochs": 200, "batch_size": 16, "lr": 0.001, "init_from": "torchvision"},
        ),
        # 5.1, ImageNet Datasets: 300 epochs, batch 256, lr 0.1; Tiny-ImageNet 400, 100, 0.2.
        ("automix-table3", "imagenet", "erm", {"epochs": 300, "batch_size": 256, "lr": 0.1, "weight_decay": 1e-4}),
        ("automix-table3", "tiny-imagenet", "erm", {"epochs": 400, "batch_size": 100, "lr": 0.2, "crop": "resized"}),
        # alpha is 1 by default, 2 on CIFAR (5.1); SaliencyMix's own paper mixes half of the batches there, as CutMix's.
        ("automix-table3", "tiny-imagenet", "manifold-mixup", {"method_options": {"alpha": 1.0, "per_batch": True}}),
        ("automix-table1", "cifar10", "saliencymix", {"mix_prob": 0.5}),
        # Public configs: one floor on CIFAR; Tiny-ImageNet's backbone 0.2 -> 0.05, Mix Block 0.1 -> 0.001; ImageNet's 0, 0.001.
        ("automix-table1", "cifar100", "automix", {"lr": 0.1, "min_lr": 0.05}),
        ("automix-table3", "tiny-imagenet", "automix", {"min_lr": 0.05, "side_lr": 0.1, "side_min_lr": 0.001}),
        ("automix-table3", "imagenet", "automix", {"lr": 0.1, "min_lr": 0.0, "side_min_lr": 0.001}),
        ("automix-table1", "cub-200", "automix", {"min_lr": 0.0, "side_lr": 0.01, "side_min_lr": 0.0005}),
        # Co-Mixup's README: lr 0.2, 300 epochs, steps at 100 and 200, a clean loss of weight 1 beside bce.
        ("comixup", "cifar100", "comixup", {"epochs": 300, "lr": 0.2, "lr_drops": (1 / 3, 2 / 3), "batch_size": 100}),
        # LaMix 3.1: 400 epochs, batches of 128, beta 0.5; 3.2: 600 epochs, beta 1.
        ("lamix-table1", "svhn", "lamix", {"epochs": 400, "batch_size": 128}),
        ("lamix-table3", "cifar10", "lamix-puzzle", {"epochs": 600, "lr": 0.2}),
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


def test_lambda_is_drawn_once_a_batch_wherever_the_papers_code_draws_it_so():
    # mixup-cifar10, CutMix, PuzzleMix, spatial-mixup and OpenMixup call beta() once a step. ERM and AugMix draw none, CoMixup
    # none per pair; AutoMix's default is Algorithm 1's; Multi-Sample has no public code.
    for name, dataset, network, method in rows():
        if name in ("wrong-labels", "few-labels", "comixup", "multi-sample-table1") or method in ("erm", "augmix"):
            continue
        values = preset_values(name, dataset=dataset, method=method)
        settings = ClassifySettings(dataset=dataset, network=network, method=method, **values)
        settings.check()
        built = build_method(
            method,
            build_network("bundled", num_classes=3),
            num_classes=3,
            mixer=settings.mixer,
            options=settings.method_options,
            schedule=settings.mix_schedule(),
        )
        assert built.mixer.per_batch, (name, method)
        assert "lambda is drawn once a batch" in TABLES[name].note or "one lambda a step" in TABLES[name].note


def test_notes_name_what_differs_from_the_paper_or_its_code():
    """Oracle: the "Readings" of docs/methods.md and the notes of docs/datasets.md, by method, network and data set."""
    differences = {
        "puzzlemix": ["another solver"],
        "comixup": ["another solver", "equal outputs are not separated"],
        "saliencymix": ["not of normalised values"],
        "augmix": ["Pillow truncates"],
        "automix": ["constant for a tenth", "below 0.08", "Two projections", "Eq. 5's sigmoid", "per sample, as Eq. 6"],
        "lamix": ["--method.local-label average"],
        "mixup-hv": ["lambda as drawn", "split in half"],
        "multi-sample": ["each is paired with itself"],
        "cub-200": ["from a picture of 256 px"],
        "aircraft": ["from a picture of 256 px"],
    }
    for name, table in TABLES.items():
        if not name.endswith("-labels"):  # our own experiments
            has = {*table.methods, *table.networks} & differences.keys()
            assert [word for one in has for word in differences[one] if word not in table.note] == [], name


def test_alphas_weights_and_published_forms():
    def option(name: str, dataset: str, method: str, group: str, key: str) -> object:
        return preset_values(name, dataset=dataset, method=method)[group][key]

    # 5.1: alpha 2 for ManifoldMix and AutoMix on CIFAR, 1 else; LaMix 3.1 and 3.2: beta 0.5 and 1.
    assert option("automix-table1", "cifar100", "manifold-mixup", "method_options", "alpha") == 2.0
    assert option("automix-table1", "cifar10", "mixup", "mixer", "alpha") == 1.0
    assert option("lamix-table1", "svhn", "lamix", "method_options", "beta") == 0.5
    assert option("lamix-table3", "cifar10", "lamix-puzzle", "method_options", "beta") == 1.0
    assert option("comixup", "tiny-imagenet", "comixup", "method_options", "clean_weight") == 1.0
    for name, dataset, methods in (
        ("automix-table3", "tiny-imagenet", ("fmix", "resizemix")),
        ("understanding-mixup-table1", "imagenet", ("mixup-h", "mixup-hv", "mixup-hc")),
    ):
        assert {option(name, dataset, method, "mixer", "fidelity") for method in methods} == {"published"}
    code = {"momentum_schedule": "published", "lam_margin": 0.08}
    assert (
        preset_values("automix-table5", dataset="tiny-imagenet", method="automix")["method_options"].items()
        >= code.items()
    )


def test_pre_activation_networks_of_the_tables_are_the_published_ones():
    networks = {network for _, _, network, _ in rows() if network.startswith("preact")}
    assert networks == {"preact-resnet18-published"}


def test_parts_of_a_row_are_laid_over_one_another():
    # PuzzleMix on Tiny-ImageNet: alpha of the method, t_size and clean loss of the data set.
    values = TABLES["automix-table3"].values("tiny-imagenet", "puzzlemix")
    assert values["mixer"] == {"alpha": 1.0, "per_batch": True, "t_size": 0}
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
    assert values["mixer"] == {"alpha": 0.2, "per_batch": True}


def test_the_default_depends_on_the_data():
    quick, paper = (preset_values(None, dataset=dataset, method="mixup") for dataset in ("tiles", "cifar10"))
    assert (quick, paper) == (PRESETS["quick"], PRESETS["paper"])
    assert quick != paper


def test_an_unknown_preset_is_quoted_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'fast'; known: quick, paper, lamix-table1, "):
        preset_values("fast", dataset="tiles", method="mixup")


def test_the_label_experiments_are_those_of_the_results_page():
    """Wrong labels: 200 images per class, 0.4 redrawn, width 48, lr 0.05, decay 2e-4, batch 64, 100 epochs; few labels: 50 per
    class, width 128 with dropout 0.5, lr 0.1, decay 1e-3, batch 32, 400 epochs, restarts every 10."""
    wrong, few = (settings_from(["--preset", name, "--method", "erm"]) for name in ("wrong-labels", "few-labels"))
    shared = ("cifar10", "bf16", "reflect", True, "cosine")
    for settings, own in (
        (wrong, ("conv9", 200, 0.4, 0.05, 2e-4, 64, 100, None)),
        (few, ("conv9:width=128,dropout=0.5", 50, 0.0, 0.1, 1e-3, 32, 400, 10)),
    ):
        found = (
            settings.dataset,
            settings.mixed_precision,
            settings.crop_padding,
            settings.nesterov,
            settings.schedule,
        )
        assert found == shared
        found = settings.network, settings.labels_per_class, settings.label_noise, settings.lr, settings.weight_decay
        assert (*found, settings.batch_size, settings.epochs, settings.restart_every) == own
    tiles = settings_from(["--preset", "wrong-labels", "--dataset", "tiles", "--method", "cutmix"])
    assert (tiles.labels_per_class, tiles.train_count, tiles.label_noise, tiles.image_size) == (None, 500, 0.4, 32)
