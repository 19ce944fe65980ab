"""A small training loop around ``Run``, as both commands have it, for the tests of runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from mixgan.engine.accelerator import seeded_generator
from mixgan.engine.config import CommonSettings
from mixgan.engine.run import Run
from mixgan.engine.run_folder import read_metrics

BATCHES = 5


class TinyLoader:
    """Five batches of four samples an epoch, each a function of (epoch, position); notes which were asked for."""

    steps_per_epoch = BATCHES

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[Tensor]:
        for position in range(first_step, BATCHES):
            self.asked.append((epoch, position))
            yield torch.randn(4, 3, generator=seeded_generator("tiny", epoch, position))


class Draws:
    """Something of this process alone that draws at every step, as image pools do."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class Training:
    """A loop as both commands have it, around a network with dropout, momentum, a schedule and a source of draws."""

    def __init__(self, settings: CommonSettings, *, dropout: float = 0.3) -> None:
        self.run = run = Run.start(settings, recipe="test")
        network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 1))
        optimizer = SGD(network.parameters(), 0.1, momentum=0.9)
        self.schedule = LambdaLR(optimizer, lambda step: 1 - step / (settings.epochs * BATCHES))
        self.network, self.optimizer = run.accelerator.prepare(network, optimizer)
        self.draws, self.loader = Draws(), TinyLoader()
        run.register_for_checkpointing("schedule", self.schedule)
        run.register_for_checkpointing("draws", self.draws, own=True)
        run.begin(self.loader.steps_per_epoch)

    def steps(self) -> Iterator[int]:
        """Trains; yields after every optimizer step, inside the loop."""
        run, accelerator = self.run, self.run.accelerator
        for batch in run.batches(self.loader, description="test"):
            batch = batch.to(accelerator.device)
            with accelerator.accumulate(self.network):
                aim = torch.rand((), generator=self.draws.generator).item()
                loss = (self.network(batch) - aim).square().mean()
                accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
            if accelerator.sync_gradients:
                self.schedule.step()
                run.end_step({"loss": loss.detach(), "aim": aim}, images=len(batch))
                yield run.step
        run.finish()

    def all(self, *, at: int = 0, then: Callable[[], object] = lambda: None) -> "Training":
        """Trains to the end; after step ``at`` something happens."""
        for step in self.steps():
            if step == at:
                then()
        return self

    def weights(self) -> Tensor:
        """Parameters and momentum, one after the other."""
        moments = [state["momentum_buffer"] for state in self.optimizer.state_dict()["state"].values()]
        return torch.cat([tensor.detach().flatten().cpu() for tensor in (*self.network.parameters(), *moments)])


def die() -> None:
    raise MemoryError


def settings(folder: Path | None, **values: Any) -> CommonSettings:
    return CommonSettings(**{"output_dir": folder, "epochs": 3, "log_every": 1, "threads": 1, **values})


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def logged(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder / "metrics.jsonl")
