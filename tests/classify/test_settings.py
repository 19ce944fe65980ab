import json
from pathlib import Path

import pytest

from classify.config import ClassifySettings, settings_from
from classify.methods import list_methods
from mixgan.engine.config import to_json


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: no data, no runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder: Path, *words: str) -> Path:
    """A run folder as far as settings go: the config of these command-line words."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"recipe": "test", "settings": to_json(settings_from(words))}))
    return folder


def cifar_below(root: Path) -> None:
    for split in ("train", "test"):
        (root / "cifar10" / split).mkdir(parents=True)


def test_without_flags_the_quick_preset_on_tiles(here: Path, capsys):
    settings = settings_from([])
    assert (settings.dataset, settings.network, settings.epochs, settings.method) == ("tiles", "bundled", 40, "mixup")
    said = capsys.readouterr().out
    assert said == "No CIFAR-10 under data: using the synthetic tiles (--dataset cifar10 --download fetches it).\n"


def test_class_folders_that_auto_does_not_take_are_pointed_out(here: Path, capsys):
    for folder in ("own/train/cat", "own/val/cat"):
        (here / folder).mkdir(parents=True)
    assert settings_from(["--data-root", "own"]).dataset == "tiles"
    assert capsys.readouterr().out.endswith(" It has class folders, too: --dataset imagefolder trains on them.\n")


def test_auto_takes_cifar_where_it_lies_and_the_papers_settings(here: Path, capsys):
    cifar_below(here / "sets")
    settings = settings_from(["--data-root", "sets"])
    assert (settings.dataset, settings.network, settings.epochs) == ("cifar10", "preact-resnet18", 200)
    assert capsys.readouterr().out == "Using CIFAR-10 from sets.\n"


def test_a_named_set_is_not_commented_on(here: Path, capsys):
    assert settings_from(["--dataset", "mnist"]).dataset == "mnist"
    assert capsys.readouterr().out == ""


def test_flags_override_the_preset(here: Path):
    settings = settings_from(["--preset", "paper", "--dataset", "tiles", "--epochs", "3", "--lr-drops", "0.3", "0.6"])
    assert (settings.epochs, settings.lr_drops, settings.network) == (3, (0.3, 0.6), "preact-resnet18")


def test_drops_are_shares_of_the_run(here: Path):
    for drop in ("2", "-0.5"):
        with pytest.raises(ValueError, match="--lr-drops must be at least 0 and at most 1"):
            settings_from(["--schedule", "steps", "--lr-drops", "0.5", drop])


def test_mixer_options_are_typed_by_the_method(here: Path):
    assert settings_from(["--mixer.alpha", "0.2", "--mixer.per-batch"]).mixer == {
        "alpha": 0.2, "per_batch": True, "lam_range": None,
    }  # fmt: skip
    ranges = settings_from(["--method", "mixup-x", "--mixer.image-range", "0.5", "1"])
    assert ranges.mixer == {"image_range": (0.5, 1.0), "per_batch": False}
    assert settings_from(["--method", "erm"]).mixer == {}
    assert settings_from(["--method", "mixup-c"]).mixer == {"alpha": 1.0, "per_batch": False, "lam_range": None}


@pytest.mark.parametrize(
    "words",
    [
        ["--mixer.alpa", "0.2"],
        ["--method", "erm", "--mixer.alpha", "0.2"],
        ["--mixer.alpha", "much"],
        ["--epochs", "many"],
        ["--schedule", "warp"],
    ],
)
def test_flags_that_do_not_fit_are_named(here: Path, words: list[str]):
    with pytest.raises(ValueError, match=words[-2]):
        settings_from(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method mixip", "unknown --method 'mixip'; known: erm, .*cutmix"),
        ("--network vgg", "unknown --network 'vgg'; known: bundled, preact-resnet18, "),
        ("--preset fast", "unknown preset 'fast'; known: quick, paper"),
        ("--dataset imagenette", "unknown dataset 'imagenette'; known: auto, tiles, cifar10, .*imagefolder"),
        ("--lr 0", "--lr must be above 0, got 0.0"),
        ("--momentum 1", "--momentum must be at least 0 and below 1, got 1.0"),
        ("--warmup -0.1", "--warmup must be at least 0 and below 1, got -0.1"),
        ("--ema 1", "--ema must be at least 0 and below 1, got 1.0"),
        ("--min-lr 0.2", "--min-lr must be at most --lr, which is 0.1, got 0.2"),
        ("--side-lr 0", "--side-lr must be above 0, got 0.0"),
        ("--side-min-lr 0.2", "--side-min-lr must be at most --lr, which is 0.1, got 0.2"),
        ("--side-lr 0.05 --side-min-lr 0.2", "--side-min-lr must be at most --side-lr, which is 0.05, got 0.2"),
        (
            "--side-lr 0.01 --min-lr 0.05",
            "--min-lr must be at most --side-lr, which is 0.01, got 0.05; give --side-min-lr",
        ),
        ("--side-min-lr -1", "--side-min-lr must be at least 0, got -1.0"),
        (
            "--min-lr 0.01 --schedule steps",
            "--min-lr is where the schedule cosine ends; --schedule steps has no such end",
        ),
        ("--mix-off-last 41", "--mix-off-last must be at most --epochs, 40, got 41"),
        ("--mix-off-last 3 --mix-off-epoch 3", "--mix-off-epoch and --mix-off-last both say when mixing ends"),
        ("--image-size 0", "--image-size must be at least 1, got 0"),
        ("--train-count 0", "--train-count must be at least 1, got 0"),
        ("--eval-batch-size 0", "--eval-batch-size must be at least 1, got 0"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--dataset svhn --tiles-view map", "--tiles-view belongs to the tiles, not to --dataset svhn"),
        ("--label-noise 1.1", "--label-noise must be at least 0 and at most 1, got 1.1"),
        ("--label-noise-kind flip", "--label-noise-kind must be one of symmetric, pair, got 'flip'"),
        ("--restart-every 10 --schedule steps", "repeats the schedule cosine .*: leave out --schedule steps"),
        ("--restart-every 10 --warmup 0.1", "repeats the schedule cosine from its full rate: leave out --warmup"),
        ("--network conv9:depth=3", "cannot read the options of conv9; write conv9:width=48,dropout=0.0"),
        ("--network conv9:dropout=1", "--network conv9:dropout must be at least 0 and below 1, got 1.0"),
        ("--network lenet:width=3", "cannot read the options of lenet; it has none"),
        ("--network conv7:width=3", "unknown --network 'conv7:width=3'; known: bundled, "),
        ("--resume", "--resume needs --output-dir"),
        ("--resume --output-dir nowhere", r"nothing to resume: nowhere/config\.json does not exist"),
    ],
)
def test_wrong_values_are_one_sentence(here: Path, words: str, message: str):
    with pytest.raises(ValueError, match=message) as error:
        settings_from(words.split())
    assert "\n" not in str(error.value)


def test_a_list_of_methods_needs_no_other_flag_to_be_right(here: Path):
    assert settings_from(["--list-methods", "--method", "mixip"]).list_methods


def test_mixing_can_end_with_the_last_epochs(here: Path):
    schedule = settings_from(["--epochs", "10", "--mix-off-last", "3"]).mix_schedule()
    assert [schedule.share(epoch) for epoch in (0, 6, 7, 9)] == [1, 1, 0, 0]
    assert settings_from(["--epochs", "10", "--mix-off-last", "0"]).mix_schedule().share(9) == 1


def test_a_list_of_presets_needs_no_other_flag_to_be_right(here: Path):
    assert settings_from(["--list-presets", "--preset", "fast"]).list_presets


def test_a_run_of_a_table_goes_on_without_naming_it(here: Path):
    words = ["--preset", "automix-table1", "--method", "automix", "--dataset", "cifar100"]
    folder = make_run(here / "run", *words)
    resumed = settings_from(["--resume", "--output-dir", str(folder)])
    assert (resumed.dataset, resumed.network, resumed.epochs, resumed.min_lr) == (
        "cifar100",
        "resnet18",
        800,
        0.05,
    )
    assert resumed.method_options == settings_from(words).method_options


def test_a_run_goes_on_with_its_own_settings_and_no_flags_repeated(here: Path, capsys):
    words = [
        "--method",
        "mixup-x",
        "--mixer.image-range",
        "0.2",
        "0.4",
        "--preset",
        "paper",
        "--lr",
        "0.05",
        "--seed",
        "3",
    ]
    first = settings_from([*words, "--dataset", "svhn", "--data-root", "sets"])
    folder = make_run(here / "run", *words, "--dataset", "svhn", "--data-root", "sets")
    resumed = settings_from(["--resume", "--output-dir", str(folder), "--max-steps", "9"])
    assert (resumed.resume, resumed.output_dir, resumed.max_steps) == (True, folder, 9)
    free = ("resume", "output_dir", "max_steps", "preset")
    kept = {key: value for key, value in to_json(first).items() if key not in free}
    assert {key: value for key, value in to_json(resumed).items() if key not in free} == kept
    assert capsys.readouterr().out == ""


def test_a_run_cannot_go_on_with_other_settings(here: Path):
    folder = make_run(here / "run", "--method", "mixup-x", "--dataset", "tiles")
    again = ["--resume", "--output-dir", str(folder)]
    with pytest.raises(ValueError, match=r"other settings: --method is cutmix, was mixup-x$"):
        settings_from([*again, "--method", "cutmix"])
    with pytest.raises(ValueError, match=r"other settings: --network is resnet18, was bundled$"):
        settings_from([*again, "--network", "resnet18"])
    with pytest.raises(ValueError, match=r"settings: --mixer\.image-range is \[0\.5, 1\.0\], was \[0\.0, 1\.0\]$"):
        settings_from([*again, "--mixer.image-range", "0.5", "1"])


def test_every_method_has_settings_that_survive_a_run_folder(here: Path):
    for name in list_methods():
        folder = make_run(here / name, "--method", name, "--dataset", "tiles")
        resumed = settings_from(["--resume", "--output-dir", str(folder)])
        assert isinstance(resumed, ClassifySettings)
        assert resumed.method == name


def test_a_composite_takes_its_methods_options_and_resumes_with_them(tmp_path):
    words = ["--method", "mixup+mixup-hv", "--mixer.mixup.alpha", "0.2", "--mixer.weights", "1", "3"]
    settings = settings_from(words)
    assert settings.mixer["mixup"] == {"alpha": 0.2, "per_batch": False, "lam_range": None}
    assert settings.mixer["weights"] == (1.0, 3.0)
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "test", "settings": to_json(settings)}))
    resumed = settings_from(["--resume", "--output-dir", str(tmp_path)])
    assert resumed.mixer == settings.mixer


@pytest.mark.parametrize(
    ("method", "old", "place"),
    [
        ("patchshuffle", "--mixer.odds", ("mixer", "p")),
        ("mixup-hv", "--mixer.h-odds", ("mixer", "h_prob")),
        ("mixup-hc", "--mixer.h-odds", ("mixer", "h_prob")),
        ("cutmix+patchshuffle", "--mixer.patchshuffle.odds", ("mixer", "patchshuffle", "p")),
        ("cutmix+mixup-hv", "--mixer.mixup-hv.h-odds", ("mixer", "mixup_hv", "h_prob")),
        ("mixup+mixup-hc", "--mixer.mixup-hc.h-odds", ("mixer", "mixup_hc", "h_prob")),
        ("patchup", "--method.odds", ("method_options", "prob")),
        ("cutmix", "--mix-odds", ("mix_prob",)),
    ],
)
def test_former_spellings_of_probabilities_are_read_from_flags_and_runs(method, old, place, tmp_path, capsys):
    settings = settings_from(["--method", method, old, "0.25", "--dataset", "tiles"])
    assert f"{old} is now called" in capsys.readouterr().out

    def value(settings: ClassifySettings) -> float:
        found = to_json(settings)
        for key in place:
            found = found[key]
        return found

    assert value(settings) == 0.25
    stored = to_json(settings)  # a run of the former version
    *groups, former = [part.replace("-", "_") for part in old.removeprefix("--").split(".")]
    holder = stored
    for group in place[:-1]:
        holder = holder[group]
    holder[former] = holder.pop(place[-1])
    assert len(groups) == len(place) - 1
    (tmp_path / "config.json").write_text(json.dumps({"recipe": "classify", "settings": stored}))
    assert value(settings_from(["--resume", "--output-dir", str(tmp_path)])) == 0.25
