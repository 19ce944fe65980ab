from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from mixgan.engine import accelerator as room
from mixgan.engine.accelerator import make_accelerator, on_main, set_threads, synchronise_buffers
from mixgan.engine.command import check_processes
from mixgan.engine.config import CommonSettings


def test_settings_reach_the_accelerator_and_the_seed_every_draw():
    settings = CommonSettings(accumulation_steps=3, mixed_precision="bf16", threads=1, seed=7)
    draws = []
    for _ in range(2):
        made = make_accelerator(settings)
        draws.append(torch.rand(3))
    assert (made.gradient_accumulation_steps, made.mixed_precision, made.num_processes) == (3, "bf16", 1)
    assert torch.equal(draws[0], draws[1])


@pytest.mark.parametrize(("found", "wish", "cpu"), [(True, False, False), (True, True, True), (False, False, True)])
def test_the_device_is_the_one_accelerate_chooses_unless_the_cpu_is_asked_for(
    monkeypatch, found: bool, wish: bool, cpu: bool
):
    """Whatever kind of accelerator torch sees, MPS and XPU as well as CUDA; a recorder stands for accelerate."""
    asked = []

    def recorder(**options):
        asked.append(options["cpu"])
        return Accelerator(**{**options, "cpu": True})

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: found)
    monkeypatch.setattr(room, "Accelerator", recorder)
    make_accelerator(CommonSettings(threads=1, cpu=wish))
    assert asked == [cpu]


def test_what_accelerate_uses_is_what_the_settings_have(monkeypatch):
    """A stand-in for a launcher's plugin (DeepSpeed, say) that decides by its own file: config.json would not be true."""
    monkeypatch.setattr(Accelerator, "mixed_precision", "no")
    with pytest.raises(ValueError, match="accelerate uses --mixed-precision no, the settings have bf16"):
        make_accelerator(CommonSettings(mixed_precision="bf16", threads=1))


def test_a_run_on_another_device_than_cuda_names_it(monkeypatch):
    on_mps = SimpleNamespace(num_processes=1, device=torch.device("mps"), mixed_precision="no")
    said = room.describe_processes(on_mps, CommonSettings())
    assert said == "Training in 1 process on one GPU (mps), in float32."


def test_processes_that_did_not_find_each_other_are_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(2)
    with pytest.raises(
        ValueError, match=r"started 2 processes but this run would use 1; .* torchrun --nproc_per_node N"
    ):
        check_processes(1)
    monkeypatch.delenv("WORLD_SIZE")
    check_processes(1)


@pytest.mark.parametrize(
    ("asked", "processes", "given"), [(3, 1, 3), (3, 4, 3), (0, 1, 8), (0, 2, 4), (0, 3, 2), (0, 16, 1)]
)
def test_processes_of_a_machine_share_its_cores(monkeypatch, asked: int, processes: int, given: int):
    monkeypatch.setattr(room, "available_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    set_threads(asked)
    assert torch.get_num_threads() == given


def test_on_main_hands_over_results_and_wrong_input(accelerator: Accelerator):
    def fail(error: Exception) -> None:
        raise error

    assert on_main(accelerator, lambda: {"a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match=r"^wrong$"):
        on_main(accelerator, lambda: fail(ValueError("wrong")))
    with pytest.raises(ValueError, match=r"^full disk$"):
        on_main(accelerator, lambda: fail(OSError("full disk")))
    with pytest.raises(ZeroDivisionError):
        on_main(accelerator, lambda: fail(ZeroDivisionError()))


def test_buffers_become_those_of_the_main_process(monkeypatch):
    # The broadcast of two processes, played: what arrives is the main process's buffer, here 5 more than ours.
    monkeypatch.setattr(room, "broadcast", lambda tensor: tensor + 5)
    module = nn.BatchNorm1d(2)
    weight = module.weight.clone()
    synchronise_buffers(SimpleNamespace(num_processes=1), module)
    assert torch.equal(module.running_mean, torch.zeros(2))
    synchronise_buffers(SimpleNamespace(num_processes=2), module)
    assert torch.equal(module.running_mean, torch.full((2,), 5.0))
    assert module.num_batches_tracked == 5
    assert torch.equal(module.weight, weight)
