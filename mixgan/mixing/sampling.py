"""Every random number a mixing method needs: lambda, partner, places. Drawn on the device, reproducible by seed."""

from typing import Any

import torch
from torch import Tensor


class Draws:
    """The random source of one plan: B independent draws, or one draw shared by the batch.

    Args:
        count: batch size B.
        device: where the draws are made.
        shared: one value for the whole batch (``per_batch=True`` of the mixers); the partner is never shared.
        partner: (B,) int64, returned by ``partner()`` instead of a random permutation.
        generator: draws come from it instead of torch's global generator of the device.

    Raises:
        ValueError: the generator is none of torch's, or on another device.
    """

    def __init__(
        self,
        count: int,
        *,
        device: torch.device,
        shared: bool = False,
        partner: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ValueError(f"generator must be a torch.Generator, got {generator!r}")
        if generator is not None and generator.device.type != device.type:
            raise ValueError(f"the generator is on {generator.device} but the images are on {device}: use one device")
        self.count, self.device, self.shared = count, device, shared
        self.given_partner, self.generator = partner, generator
        # generator=None is never passed on: torch.compile cannot trace it for changing batch sizes.
        self._source: dict[str, Any] = {} if generator is None else {"generator": generator}

    def partner(self) -> Tensor:
        """(B,) int64: the given partner, else a random permutation; fixed points allowed."""
        if self.given_partner is not None:
            return self.given_partner
        return torch.randperm(self.count, device=self.device, **self._source)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B,) float32 from U[low, high)."""
        return self._spread(low + (high - low) * self._unit())

    def bernoulli(self, p: float = 0.5) -> Tensor:
        """(B,) bool, True with probability ``p``."""
        return self._spread(self._unit() < p)

    def permutations(self, *shape: int) -> Tensor:
        """(B,*shape) int64: independent random permutations of 0..n-1 along the last axis, of length n."""
        return self._spread(self._unit(*shape).argsort(-1))

    def normal(self, *shape: int, shared: bool = False) -> Tensor:
        """(B,*shape) float32 from N(0, 1); (1,*shape) where shared, so that what is made of it is computed only once."""
        return torch.randn(1 if shared else self._drawn_count(), *shape, device=self.device, **self._source)

    def beta(self, alpha: float) -> Tensor:
        """(B,) float32 from Beta(alpha, alpha), safe for any alpha > 0.

        With X ~ Gamma(alpha + 1) and U uniform, X * U^(1/alpha) ~ Gamma(alpha) (Marsaglia and Tsang, 2000). The ratio of two
        such gammas is taken in log space, so that a small alpha does not underflow to 0/0.
        """
        if alpha == 1.0:
            return self.uniform()
        return self._spread(torch.sigmoid(self._log_gamma(alpha) - self._log_gamma(alpha)))

    def log_gamma(self, alpha: float) -> Tensor:
        """(B,) float32, logarithms of Gamma(alpha) draws, whose shares of a sum are a Dirichlet(alpha) draw."""
        return self._spread(self._log_gamma(alpha))

    def randint(self, high: int, *shape: int) -> Tensor:
        """(B,*shape) int64, uniform in 0..high-1; a value for every sample even where draws are shared."""
        return torch.randint(high, (self.count, *shape), device=self.device, **self._source)

    def choice(self, weights: list[float]) -> int:
        """An index chosen on the host; see ``host_choice``."""
        return host_choice(weights, self.generator)

    def _log_gamma(self, alpha: float) -> Tensor:
        shape = torch.full((self._drawn_count(),), alpha + 1.0, device=self.device)
        # torch.distributions takes no generator, and torch.compile takes none either: this private call serves both.
        boosted = torch._standard_gamma(shape, **self._source)
        return boosted.log() + torch.log1p(-self._unit()) / alpha

    def _unit(self, *shape: int) -> Tensor:
        return torch.rand(self._drawn_count(), *shape, device=self.device, **self._source)

    def _drawn_count(self) -> int:
        return 1 if self.shared else self.count

    def _spread(self, drawn: Tensor) -> Tensor:
        return drawn.expand(self.count, *drawn.shape[1:]) if self.shared else drawn


def host_choice(weights: list[float], generator: torch.Generator | None = None) -> int:
    """A random index, with probabilities in proportion to ``weights``, for choices that decide shapes or which code runs.

    Drawn from torch's global CPU generator, which is seeded in every DataLoader worker and saved in checkpoints, or from
    ``generator``. One on a GPU is not waited for: where it stands seeds a CPU generator, and it moves on by one draw. A single
    option draws nothing.
    """
    if len(weights) == 1:
        return 0
    shares = torch.tensor(weights)
    if generator is None:
        return int(torch.multinomial(shares, 1))
    if generator.device.type != "cpu":
        low, high = generator.initial_seed() % 2**31, generator.get_offset() % 2**31
        generator.set_offset(generator.get_offset() + 4)  # CUDA counts in fours
        generator = torch.Generator().manual_seed(low * 2**31 + high)
    return int(torch.multinomial(shares, 1, generator=generator))


def is_eager_cpu(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for a device and without breaking a graph that is being traced."""
    return type(values) is Tensor and values.device.type == "cpu" and not is_traced()


def is_traced() -> bool:
    """Whether torch.compile, a trace or a function transform is at work, which cannot look at values or write to given memory."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced or torch._C._functorch.maybe_current_level() is not None
