from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """accelerate keeps its state in singletons, and a run sets threads: every test begins as a new process would."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


@pytest.fixture
def accelerator(fresh_process: None) -> Accelerator:
    return Accelerator(cpu=True)
