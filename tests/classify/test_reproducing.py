"""Every command of docs/reproducing.md resolves to a row of its table and can be built; a few are run, with --dry-run."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

from classify.__main__ import main
from classify.config import settings_from
from classify.data import list_datasets
from classify.methods import build_method
from classify.networks import build_network
from classify.presets import TABLES
from mixgan.engine.run_folder import save_weights

PAGE = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text()
ROW = re.compile(
    r"\| (?P<row>[^|]+) \| (?P<paper>[^|]+) \| (?P<ours>[^|]+) \| `accelerate launch recipes/classify.py (?P<flags>[^`]+)` \|"
)
ROWS = [match.groupdict() for match in map(ROW.fullmatch, PAGE.splitlines()) if match]
COMMANDS = [shlex.split(row["flags"]) for row in ROWS]
#: Rows without a figure in the paper.
BLANK = {
    ("understanding-mixup-table1", d, "resnext29-8x64d", m)
    for d in ("cifar10", "cifar100")
    for m in ("mixup-h", "mixup-hc")
} | {("comixup", "tiny-imagenet", "preact-resnet18-published", "comixup")}
DRY_RUNS = [
    "--preset lamix-table1 --dataset cifar10 --network preact-resnet18-published --method lamix",
    "--preset lamix-table3 --dataset cifar10 --network preact-resnet18-published --method puzzlemix",
    "--preset automix-table1 --dataset cifar10 --network resnet18 --method automix",
    "--preset understanding-mixup-table1 --dataset cifar10 --network preact-resnet18-published --method mixup-hv",
    "--preset multi-sample-table1 --dataset cifar10 --network resnet56 --method erm --finetune-from runs/multi-sample",
]


def flag(words: list[str], name: str) -> str:
    return words[words.index(f"--{name}") + 1]


def row_of(words: list[str]) -> tuple[str, ...]:
    return tuple(flag(words, name) for name in ("preset", "dataset", "network", "method"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the runs that rows are fine-tuned from, and CIFAR-10 in miniature."""
    for method in ("mixup-x", "mixup-l", "multi-sample"):
        doubled = 2 if method == "multi-sample" else 1
        shape = {"num_classes": 2 * doubled, "in_channels": 3 * doubled}
        about = {
            "network": "resnet56", **shape, "classes": ["cat", "dog"], "mean": [0.5] * 3, "std": [0.5] * 3,
            "image_size": 32, "method": method, "dataset": "cifar10",
        }  # fmt: skip
        (tmp_path / "runs" / method / "weights").mkdir(parents=True)
        network = build_network("resnet56", **shape)
        save_weights(tmp_path / "runs" / method / "weights" / "network.safetensors", network, about)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "data" / "cifar10" / split / label).mkdir(parents=True)
            for k in range(4):
                Image.new("RGB", (32, 32), (40 * k, 90, 30)).save(
                    tmp_path / "data" / "cifar10" / split / label / f"{k}.png"
                )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_process_state():
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    torch.set_num_threads(threads)


def test_every_command_of_the_page_is_a_row_with_a_figure():
    assert len(ROWS) == sum("`accelerate launch" in line for line in PAGE.splitlines()) > 300
    assert all(re.search(r"\d", row["paper"]) for row in ROWS)
    assert len({row["flags"] for row in ROWS}) == len(ROWS)


def test_the_page_has_the_rows_of_the_presets_and_no_others():
    ours = "wrong-labels", "few-labels"
    papers = {name: table for name, table in TABLES.items() if name not in ours}
    rows = {(name, *row) for name, table in papers.items() for row in table.rows()}
    assert {row_of(words) for words in COMMANDS} == rows - BLANK
    assert {row[1] for row in rows} <= set(list_datasets())


def test_every_command_resolves_and_its_method_builds(runs: Path):
    # Networks and data sets change nothing about how flags are parsed: one of each is enough for a preset, method and options.
    distinct = {(row_of(words)[0], row_of(words)[3], *words[8:]): words for words in COMMANDS}
    for words in distinct.values():
        settings = settings_from(words)
        assert (settings.preset, settings.dataset, settings.network, settings.method) == row_of(words)
        network = build_network("bundled", num_classes=4)
        method = build_method(
            settings.method,
            network,
            num_classes=4,
            mixer=settings.mixer,
            options=settings.method_options,
            schedule=settings.mix_schedule(),
        )
        assert method.network is network


def test_parameters_of_table_7_are_counted_and_the_papers_to_the_printed_digit():
    rows = [row for row in ROWS if "--preset automix-table7" in row["flags"]]
    assert len(rows) == 10
    for row in rows:
        settings = settings_from(shlex.split(row["flags"]))
        with torch.device("meta"):
            network = build_network(settings.network, num_classes=200)
            method = build_method(settings.method, network, num_classes=200, options=settings.method_options)
        millions = sum(weight.numel() for weight in method.parameters() if weight.requires_grad) / 1e6
        assert row["ours"] == f"{millions:.3f}M"
        if row["row"] not in ("RX-50, AutoMix l_1", "RX-50, AutoMix l_2"):  # whose layers are others in the paper
            assert row["paper"].startswith(f"{millions:.2f}M ")


def test_every_network_of_the_page_can_be_built():
    for name in {row_of(words)[2] for words in COMMANDS}:
        with torch.device("meta"):  # shapes only
            assert build_network(name, num_classes=10).classifier.out_features == 10


@pytest.mark.parametrize("command", DRY_RUNS)
@pytest.mark.usefixtures("own_process_state")
def test_dry_run(command: str, runs: Path, capsys: pytest.CaptureFixture):
    assert command in {row["flags"] for row in ROWS}
    main([*shlex.split(command), "--dry-run", "--batch-size", "4", "--threads", "1"])
    assert "Dry run: settings resolve" in capsys.readouterr().out
