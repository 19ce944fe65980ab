"""The benchmark of the classifiers' step: the command itself, and that both sides do the same work."""

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState, PartialState

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # bench is in no installed package

from bench import classify, published_mixing  # noqa: E402
from classify.networks import build_network  # noqa: E402

TINY = ["--network", "bundled", "--batch-size", "4", "--images", "16", "--repeats", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def own_process_state():
    threads = torch.get_num_threads()
    yield
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    torch.set_num_threads(threads)


def rows(file: Path) -> dict[str, list[str]]:
    lines = [line for line in file.read_text().splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_the_command_makes_a_row_for_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Traces only; the compiler proper takes minutes.
    in_place, compile_proper = torch.nn.Module.compile, torch.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: in_place(self, backend="eager"))
    monkeypatch.setattr(torch, "compile", lambda *args, **_: compile_proper(*args, backend="eager"))
    classify.main([*TINY, "--markdown", str(tmp_path / "table.md")])
    found = rows(tmp_path / "table.md")
    names = classify.Options().methods.split(",")
    assert set(found) == (
        {f"step of mixup, {name}" for name in classify.VARIANTS}
        | {f"step of {name}, fp32" for name in names}
        | {"step with TrainingLoader, fp32", "Mix Block, fp32"}
    )
    assert all(float(row[0]) > 0 and float(row[2]) > 0 for row in found.values())
    goals = {name: row[4] for name, row in found.items()}
    assert goals["step of puzzlemix, fp32"] == "≤ 1.9 x slower"
    assert goals["step with TrainingLoader, fp32"] == "≤ 1.03 x slower"
    assert goals["step of mixup, bf16+channels-last"] == "≥ 2.3 x faster"
    assert goals["Mix Block, fp32"] == "≥ 10 x faster"
    assert "threads" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(("flag", "value"), [("--methods", "erm,mixip"), ("--variants", "fp8"), ("--network", "vgg")])
def test_unknown_names_are_quoted(flag: str, value: str):
    with pytest.raises(ValueError, match=rf"{value.split(',')[-1]}'.*known: "):
        classify.main([flag, value])


def test_the_published_step_is_a_step_of_sgd_on_one_mixed_batch():
    # The oracle: the gradient of soft cross-entropy at lambda, and SGD's first step, by hand.
    torch.manual_seed(0)
    network = build_network("bundled", num_classes=3)
    images, labels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    device = torch.device("cpu")
    by_hand = copy.deepcopy(network)
    step = published_mixing.mixup_step(network, images, labels, batch_size=4, workers=0, device=device)
    torch.manual_seed(1)
    loss, accuracy = step()
    torch.manual_seed(1)
    loader = torch.utils.data.DataLoader(published_mixing.OneByOne(images, labels), 4, shuffle=True, drop_last=True)
    own, own_labels = next(iter(loader))
    lam = torch.distributions.Beta(1.0, 1.0).sample().item()
    order = torch.randperm(4)
    targets = lam * F.one_hot(own_labels, 3) + (1 - lam) * F.one_hot(own_labels[order], 3)
    logits = by_hand(lam * own + (1 - lam) * own[order])
    expected = F.cross_entropy(logits, targets)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert accuracy == pytest.approx(targets.gather(1, logits.argmax(1, keepdim=True)).mean().item(), rel=1e-5)
    for mine, theirs in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * (theirs.grad + 1e-4 * theirs))


def test_both_sides_train_on_the_same_kind_of_images():
    images, labels = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8)
    image, label = published_mixing.OneByOne(images, labels)[3]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 3)
    # Values of an untouched place: black borders of the crop are normalised too, the rest is (x/255 - mean) / std.
    allowed = (torch.cat([images[3].flatten(), torch.zeros(1)]).float() / 255 - 0.5) / 0.25
    assert torch.isin((image * 1e4).round(), (allowed * 1e4).round()).all()
