import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Adam

from mixgan.engine import checkpoint
from mixgan.engine.checkpoint import Checkpoints, pointed, random_states, restore_random_states
from mixgan.engine.run_folder import write_json


class Training:
    """A network with buffers and dropout and an optimizer with moments, prepared; each step draws its own batch."""

    def __init__(self, accelerator: Accelerator) -> None:
        network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
        self.network, self.optimizer = accelerator.prepare(network, Adam(network.parameters(), 0.01))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.network(torch.randn(6, 5) * random.random()).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def state(self) -> list[Tensor]:
        moments = [value for state in self.optimizer.state_dict()["state"].values() for value in state.values()]
        return [tensor.clone() for tensor in (*self.network.state_dict().values(), *moments)]


@pytest.fixture
def training(accelerator: Accelerator) -> Training:
    return Training(accelerator)


@pytest.fixture
def checkpoints(accelerator: Accelerator, tmp_path: Path) -> Checkpoints:
    return Checkpoints(accelerator, tmp_path / "checkpoints")


def save(checkpoints: Checkpoints, *steps: int) -> Path:
    """Checkpoints of these steps; returns the folder of the last."""
    for step in steps:
        checkpoints.save(step, trainer={"step": step}, process={})
    return pointed(checkpoints.folder, "last.json")


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def pointer(checkpoints: Checkpoints, name: str) -> dict[str, Any]:
    return json.loads((checkpoints.folder / name).read_text())


def test_training_goes_on_bit_for_bit(checkpoints: Checkpoints, training: Training):
    # The oracle is the training itself, which is not disturbed by being saved.
    training.steps(3)
    shared, own = {"position": {"step": 3, "best": None}}, {"pool": {"images": torch.randn(2, 3), "count": 2}}
    checkpoints.save(3, trainer=shared, process=own)
    training.steps(3)
    expected = training.state()
    training.steps(2)
    trainer, process, skipped = checkpoints.load()
    training.steps(3)
    assert trainer == shared
    assert skipped == []
    assert process["pool"]["count"] == 2
    assert torch.equal(process["pool"]["images"], own["pool"]["images"])
    assert (
        len(expected) == 9 + 6 * 3
    )  # the network's 6 parameters and 3 buffers, and 3 numbers of Adam for each parameter
    assert all(torch.equal(now, then) for now, then in zip(training.state(), expected, strict=True))


def test_random_states_do_not_depend_on_accelerates_own_file(checkpoints: Checkpoints, training: Training):
    folder = save(checkpoints, 1)
    expected = torch.rand(4), random.random()
    (folder / "checksums.json").unlink()  # as an older version wrote it
    (folder / "random_states_0.pkl").unlink()  # accelerate would log that and go on with other numbers
    checkpoints.load()
    assert torch.equal(torch.rand(4), expected[0])
    assert random.random() == expected[1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["trainer.pt", "process-0.pt", "model.safetensors", "optimizer.bin"])
def test_a_damaged_or_missing_file_is_one_sentence(
    checkpoints: Checkpoints, training: Training, name: str, damage: Callable[[Path], Any]
):
    training.steps(1)
    folder = save(checkpoints, 1)
    damage(folder / name)
    with pytest.raises(ValueError, match=f"^checkpoint {folder} is damaged or incomplete .*") as error:
        checkpoints.load()
    assert "\n" not in str(error.value)


BAD_STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "all missing": lambda own: own.pop("random"),
    "torch's missing": lambda own: own["random"].pop("torch"),
    "Python's missing": lambda own: own["random"].pop("python"),
    "torch's too short": lambda own: own["random"].update(torch=torch.zeros(3, dtype=torch.uint8)),
    "no state at all": lambda own: own["random"].update(torch="yesterday"),
}


@pytest.mark.parametrize("kind", list(BAD_STATES))
def test_a_random_state_that_cannot_be_restored_is_an_error(checkpoints: Checkpoints, training: Training, kind: str):
    folder = save(checkpoints, 1)
    own = torch.load(folder / "process-0.pt", weights_only=True)
    BAD_STATES[kind](own)
    (folder / "checksums.json").unlink()
    torch.save(own, folder / "process-0.pt")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        checkpoints.load()


def test_a_checkpoint_of_a_cpu_cannot_be_exact_on_a_gpu():
    states = random_states(torch.device("cpu"))
    restore_random_states(states, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"no random state of cuda, as one written on CPU or on .* another kind"):
        restore_random_states(states, torch.device("cuda"))


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_the_random_state_of_any_device_is_kept(kind, monkeypatch):
    """A generator on the CPU stands for the device's; torch.mps has functions without a device, the others want it."""
    theirs, which = torch.Generator(), [] if kind == "mps" else [torch.device(kind, 0)]

    def get(*device):
        assert [*device] == which
        return theirs.get_state()

    def put(state, *device):
        assert [*device] == which
        theirs.set_state(state)

    monkeypatch.setattr(
        torch, "get_device_module", lambda device: SimpleNamespace(get_rng_state=get, set_rng_state=put)
    )
    states = random_states(torch.device(kind, 0))
    drawn = torch.rand(3, generator=theirs)
    restore_random_states(states, torch.device(kind, 0))
    assert torch.equal(torch.rand(3, generator=theirs), drawn)


def test_nothing_to_resume(checkpoints: Checkpoints):
    assert pointed(checkpoints.folder, "last.json") is None
    assert pointed(checkpoints.folder, "best.json") is None
    with pytest.raises(ValueError, match=r"nothing to resume: .* contains no checkpoint; .* without --resume"):
        checkpoints.load()


def test_another_number_of_processes_is_an_error(checkpoints: Checkpoints, training: Training):
    folder = save(checkpoints, 1)
    (folder / "checksums.json").unlink()
    shared = torch.load(folder / "trainer.pt", weights_only=True)
    torch.save({**shared, "processes": 2}, folder / "trainer.pt")
    with pytest.raises(ValueError, match="written by 2 processes; this run has 1"):
        checkpoints.load()


def test_the_last_few_are_kept_and_the_best_of_all(checkpoints: Checkpoints, training: Training):
    save(checkpoints, 90)
    checkpoints.mark_best(90, metric="accuracy", value=0.5)
    save(checkpoints, 100, 110, 1000)
    assert names(checkpoints) == ["best.json", "last.json", "step-00000090", "step-00000110", "step-00001000"]
    checkpoints.mark_best(1000, metric="accuracy", value=0.75)
    save(checkpoints, 2000, 3000)
    assert names(checkpoints) == ["best.json", "last.json", "step-00001000", "step-00002000", "step-00003000"]
    assert pointer(checkpoints, "last.json") == {"checkpoint": "step-00003000", "step": 3000}
    best = {"checkpoint": "step-00001000", "step": 1000, "metric": "accuracy", "value": 0.75}
    assert pointer(checkpoints, "best.json") == best
    assert pointed(checkpoints.folder, "last.json").name == "step-00003000"
    assert pointed(checkpoints.folder, "best.json").name == "step-00001000"
    assert checkpoints.load()[0] == {"step": 3000}


def test_being_killed_while_saving_leaves_the_last_checkpoint(
    checkpoints: Checkpoints, training: Training, monkeypatch: pytest.MonkeyPatch
):
    save(checkpoints, 1)

    def killed(*anything: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, trainer={}, process={})
    assert names(checkpoints) == [".step-00000002.partial", "last.json", "step-00000001"]
    assert checkpoints.load()[0] == {"step": 1}
    save(checkpoints, 3)  # another step than the one that was cut off
    assert names(checkpoints) == ["last.json", "step-00000001", "step-00000003"]


def test_a_pointer_into_nothing_is_an_error(checkpoints: Checkpoints, training: Training):
    save(checkpoints, 1).rename(checkpoints.folder / "moved")
    with pytest.raises(ValueError, match=r"last\.json points to step-00000001, which does not exist"):
        pointed(checkpoints.folder, "last.json")
    with pytest.raises(ValueError, match="contains no checkpoint"):
        checkpoints.load()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = [
    (name, damage)
    for name in ("trainer.pt", "process-0.pt", "model.safetensors", "optimizer.bin", "checksums.json")
    for damage in (Path.unlink, cut, flip_a_bit)
    if (name, damage) != ("checksums.json", Path.unlink)  # that is a checkpoint of an older version
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    checkpoints: Checkpoints, training: Training, name: str, damage: Callable[[Path], Any]
):
    save(checkpoints, 1)
    training.steps(1)
    damaged = save(checkpoints, 2)
    damage(damaged / name)
    trainer, _, (sentence,) = checkpoints.load()
    assert trainer == {"step": 1}
    assert str(damaged) in sentence
    # The damaged one does not count as one of the two that are kept, nor does its step decide.
    save(checkpoints, 2)
    assert checkpoints.load()[::2] == ({"step": 2}, [])
    assert names(checkpoints) == ["last.json", "step-00000001", "step-00000002"]


def test_retention_follows_the_run_not_the_names(checkpoints: Checkpoints, training: Training):
    checkpoints.keep = 1
    save(checkpoints, 100)
    checkpoints.keep = 2
    flip_a_bit(save(checkpoints, 300) / "trainer.pt")
    checkpoints.keep = 1
    (checkpoints.folder / "step-00000100 copy").mkdir()  # of a user
    assert checkpoints.load()[0] == {"step": 100}
    save(checkpoints, 200)
    assert names(checkpoints) == ["last.json", "step-00000100 copy", "step-00000200"]


def test_everything_is_on_disk_before_the_pointer_moves(checkpoints: Checkpoints, training: Training, monkeypatch):
    done: list[str] = []
    monkeypatch.setattr(checkpoint, "sync", lambda path: done.append(path.name))
    monkeypatch.setattr(checkpoint, "write_json", lambda path, value: done.append(path.name) or write_json(path, value))
    save(checkpoints, 1)
    folder = checkpoints.folder / "step-00000001"
    assert done[-2:] == ["checkpoints", "last.json"]
    assert {path.name for path in folder.iterdir()} <= {*done}


def test_the_best_is_restored_from_whichever_record_is_newer(checkpoints: Checkpoints, training: Training):
    save(checkpoints, 1, 2)
    older, newer = ({"metric": "ece", "value": 0.5, "step": step} for step in (1, 2))
    assert checkpoints.restore_best(None, step=2) == (None, False)
    assert checkpoints.restore_best(older, step=2) == (older, False)  # a kill came before best.json was written
    assert pointer(checkpoints, "best.json") == {"checkpoint": "step-00000001", **older}
    checkpoints.mark_best(**newer)
    assert checkpoints.restore_best(older, step=2) == (newer, False)  # evaluated after the checkpoint was saved
    assert checkpoints.restore_best(older, step=1) == (older, True)  # checkpoint 2 was damaged
    checkpoints.mark_best(**newer)
    assert checkpoints.restore_best(None, step=0) == (None, True)
    assert pointed(checkpoints.folder, "best.json") is None


@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("text", ["[]", "{", '{"checkpoint": 3}', '{"step": "one", "metric": "ece", "value": 0.5}'])
def test_a_damaged_best_json_is_written_again(checkpoints: Checkpoints, training: Training, text: str, skipped: bool):
    """Where a later checkpoint was skipped, weights/best may be of its step."""
    save(checkpoints, 1)
    (checkpoints.folder / "best.json").write_text(text)
    with pytest.raises(ValueError, match=r"best\.json does not point to a checkpoint: .*best\.json is damaged: "):
        pointed(checkpoints.folder, "best.json")
    best = {"metric": "ece", "value": 0.5, "step": 1}
    assert checkpoints.restore_best(best, step=1, skipped=skipped) == (best, skipped)
    assert pointed(checkpoints.folder, "best.json") == checkpoints.folder / "step-00000001"


def test_best_json_never_points_past_the_run(checkpoints: Checkpoints, training: Training):
    """Step 3 is damaged and skipped, and the best one before, of step 1, has been deleted: there is no best checkpoint."""
    save(checkpoints, 2, 3)
    checkpoints.mark_best(3, metric="ece", value=0.1)
    best = {"metric": "ece", "value": 0.5, "step": 1}
    assert checkpoints.restore_best(best, step=2) == (best, True)
    assert pointed(checkpoints.folder, "best.json") is None
