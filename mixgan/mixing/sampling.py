"""Everything random that a mixing method draws: lambda, partner, coins, places. On device, from torch, reproducible by seed."""

import torch
from torch import Tensor, nn


class Draws:
    """The random source of one plan: B independent draws, or one draw shared by the batch.

    Args:
        count: batch size B.
        device: where the draws are made.
        shared: one value for the whole batch (``per_batch=True`` of the mixers); the partner is never shared.
        generator: draws come from it instead of torch's global generator of the device.

    Raises:
        ValueError: the generator lives on another device.
    """

    def __init__(
        self, count: int, *, device: torch.device, shared: bool = False, generator: torch.Generator | None = None
    ) -> None:
        if generator is not None and generator.device.type != device.type:
            raise ValueError(f"the generator is on {generator.device} but the images are on {device}: use one device")
        self.count = count
        self.device = device
        self.shared = shared
        self.generator = generator

    def partner(self) -> Tensor:
        """A random permutation (B,) int64; fixed points allowed."""
        return torch.randperm(self.count, device=self.device, generator=self.generator)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B,) float32 from U[low, high)."""
        return self._spread(low + (high - low) * self._unit())

    def coin(self, odds: float = 0.5) -> Tensor:
        """(B,) bool, True with probability ``odds``."""
        return self._spread(self._unit() < odds)

    def permutations(self, *shape: int) -> Tensor:
        """(B,*shape) int64: independent random permutations of 0..n-1 along the last axis, of length n."""
        return self._spread(self._unit(*shape).argsort(-1))

    def normal(self, *shape: int) -> Tensor:
        """(B,*shape) float32 from N(0, 1); (1,*shape) where shared, so that what is made of it is computed only once."""
        return torch.randn(self._drawn_count(), *shape, device=self.device, generator=self.generator)

    def beta(self, alpha: float) -> Tensor:
        """(B,) float32 from Beta(alpha, alpha), safe for any alpha > 0.

        With X ~ Gamma(alpha + 1) and U uniform, X * U^(1/alpha) ~ Gamma(alpha) (Marsaglia and Tsang, 2000). The ratio of two
        such gammas is taken in log space, so that a small alpha does not underflow to 0/0.
        """
        if alpha == 1.0:
            return self.uniform()
        return self._spread(torch.sigmoid(self._log_gamma_draw(alpha) - self._log_gamma_draw(alpha)))

    def log_gamma(self, alpha: float) -> Tensor:
        """(B,) float32, logarithms of Gamma(alpha) draws, whose shares of a sum are a Dirichlet(alpha) draw."""
        return self._spread(self._log_gamma_draw(alpha))

    def numbers(self, high: int, *shape: int) -> Tensor:
        """(B,*shape) int64, uniform in 0..high-1; a value for every sample even where draws are shared."""
        return torch.randint(high, (self.count, *shape), device=self.device, generator=self.generator)

    def _log_gamma_draw(self, alpha: float) -> Tensor:
        shape = torch.full((self._drawn_count(),), alpha + 1.0, device=self.device)
        # torch.distributions takes no generator, and torch.compile takes none either: this private call serves both.
        boosted = torch._standard_gamma(shape, generator=self.generator)
        return boosted.log() + torch.log1p(-self._unit()) / alpha

    def _unit(self, *shape: int) -> Tensor:
        return torch.rand(self._drawn_count(), *shape, device=self.device, generator=self.generator)

    def _drawn_count(self) -> int:
        return 1 if self.shared else self.count

    def _spread(self, drawn: Tensor) -> Tensor:
        return drawn.expand(self.count, *drawn.shape[1:]) if self.shared else drawn


# Choices that decide shapes or which code runs: made on the host as Python ints, and resumed exactly.


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
