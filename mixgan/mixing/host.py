"""Choices that decide shapes or which code runs: made on the host as Python ints, and resumed exactly."""

import torch
from torch import Tensor, nn


class HostChoice(nn.Module):
    """A CPU generator that a mixer owns; its state is part of the state_dict, so a resumed run chooses as before.

    It is seeded from torch's global CPU generator when it is made. Processes that build their mixers under one seed choose
    alike, which keeps their steps equally long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def draw(self, weights: list[float], generator: torch.Generator | None = None) -> int:
        """An index, with odds in proportion to ``weights``; from ``generator`` where one is given, without waiting for it."""
        source = self.generator if generator is None else _on_host(generator)
        return int(torch.multinomial(torch.tensor(weights), 1, generator=source))

    def get_extra_state(self) -> Tensor:
        """The generator's state, uint8."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a state."""
        self.generator.set_state(state.cpu())


def _on_host(generator: torch.Generator) -> torch.Generator:
    """The generator itself on CPU; for one on a GPU a CPU generator seeded by where it stands, which the host knows."""
    if generator.device.type == "cpu":
        return generator
    seeds = torch.tensor([generator.initial_seed() % 2**31, generator.get_offset() % 2**31])
    return torch.Generator().manual_seed(int(seeds[0] * 2**31 + seeds[1]))
