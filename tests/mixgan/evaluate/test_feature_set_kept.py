"""The kept sample against its definition: a function of (seed, set of positions), spread evenly over the stream."""

import threading

import pytest
import scipy.stats
import torch

from mixgan.engine.accelerator import seeded_generator
from mixgan.evaluate.feature_set import KeptFeatures


def stream(n: int) -> torch.Tensor:
    """Features (n,3) that tell their position."""
    return torch.arange(n)[:, None] + torch.tensor([0.0, 0.25, 0.5])


def kept(indices: torch.Tensor, batch: int = 64, **settings: int) -> KeptFeatures:
    result = KeptFeatures(3, **settings)
    features = stream(int(indices.max()) + 1)
    for piece in indices.split(batch):
        result.update(features[piece], piece)
    return result


def test_a_short_stream_is_kept_whole_in_order():
    sample = kept(torch.randperm(50, generator=torch.Generator().manual_seed(0)), batch=7, limit=50)
    assert torch.equal(sample.indices, torch.arange(50))
    assert torch.equal(sample.features, stream(50))


@pytest.mark.parametrize("batch", [1, 10, 333, 2000])
@pytest.mark.parametrize("reverse", [False, True])
def test_batches_and_their_order_do_not_matter(batch, reverse):
    expected = kept(torch.arange(1000), limit=100)
    assert len(expected.indices) == 100
    order = torch.arange(999, -1, -1) if reverse else torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    sample = kept(order, batch=batch, limit=100)
    assert torch.equal(sample.indices, expected.indices)
    assert torch.equal(sample.features, stream(1000)[expected.indices])


def test_positions_that_come_again_count_once():
    """The padding of last batches: kept ones, lost ones and ones within a batch; the first features stay."""
    expected = kept(torch.arange(1000), limit=100)
    sample = kept(torch.arange(1000), limit=100)
    again = torch.cat([torch.arange(1000), torch.arange(500)])
    sample.update(torch.zeros(1500, 3), again)
    assert torch.equal(sample.indices, expected.indices)
    assert torch.equal(sample.features, expected.features)
    short = KeptFeatures(3, limit=100)
    short.update(stream(20)[[3, 5, 3]], torch.tensor([3, 5, 3]))
    assert short.indices.tolist() == [3, 5]


def test_looking_in_between_changes_nothing():
    sample = KeptFeatures(3, limit=100)
    for piece in torch.arange(1000).split(30):
        sample.update(stream(1000)[piece], piece)
        assert len(sample.features) == min(100, int(piece[-1]) + 1)
    assert torch.equal(sample.indices, kept(torch.arange(1000), limit=100).indices)


def splitmix64(state: int, count: int) -> list[int]:
    """The generator's first outputs as its authors' C code has them, read as signed numbers."""
    outputs, wrap = [], (1 << 64) - 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & wrap
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wrap
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wrap
        z ^= z >> 31
        outputs.append(z - (1 << 64) if z >> 63 else z)
    return outputs


def test_the_smallest_keys_of_the_generator_are_kept():
    """So that a sample stays the same from one release to the next; the first check is the generator's published one."""
    assert splitmix64(1234567, 1) == [6457827717110365317]
    keys = splitmix64(seeded_generator(5, "kept features").initial_seed(), 1000)
    expected = sorted(sorted(range(1000), key=keys.__getitem__)[:100])
    assert kept(torch.arange(1000), limit=100, seed=5).indices.tolist() == expected


def test_seed_decides():
    """Of 1000 positions 100 are kept; two seeds share 10 on average, with a deviation of 2.8."""
    first, second = (set(kept(torch.arange(1000), limit=100, seed=seed).indices.tolist()) for seed in (1, 2))
    assert len(first & second) <= 22


@pytest.mark.parametrize("stride", [1, 1024])
def test_positions_are_drawn_evenly_and_alone(stride):
    """Chi-square over 50 equal stretches of the stream, and how often neighbours are kept together, over 20 seeds.

    Drawing 2000 of 20,000 without replacement makes the sum 0.9 times a chi-square variable; both tails are tested, as keys
    that are too regular are no random ones either.
    """
    n, limit, bins, seeds = 20_000, 2000, 50, 20
    squares, neighbours = 0.0, 0
    positions = torch.arange(n) * stride
    for seed in range(seeds):
        sample = KeptFeatures(1, limit=limit, seed=seed)
        sample.update(torch.zeros(n, 1), positions)
        chosen = sample.indices // stride
        counts = (chosen // (n // bins)).bincount(minlength=bins).double()
        squares += float((counts - limit / bins).square().sum() / (limit / bins) / (1 - limit / n))
        neighbours += int((chosen.diff() == 1).sum())
    assert 0.001 < scipy.stats.chi2.sf(squares, seeds * (bins - 1)) < 0.999
    expected = seeds * limit * limit / n
    assert abs(neighbours - expected) < 4 * expected**0.5


class Rank:
    """One of several processes, played by threads: ``gather`` joins all ranks' tensors, as Accelerator's does."""

    device = torch.device("cpu")

    def __init__(self, index: int, shared: dict, barrier: threading.Barrier) -> None:
        self.index, self.shared, self.barrier = index, shared, barrier
        self.num_processes = barrier.parties

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self.shared[self.index] = tensor
        self.barrier.wait(timeout=600)
        together = [self.shared[i] for i in range(self.num_processes)]
        assert len({piece.shape for piece in together}) == 1, "ranks gather different shapes"
        self.barrier.wait(timeout=600)
        return torch.cat(together)


def reduced(parts: list[KeptFeatures]) -> list[KeptFeatures]:
    shared, barrier, results = {}, threading.Barrier(len(parts)), [None] * len(parts)

    def work(i: int) -> None:
        results[i] = parts[i].reduce(Rank(i, shared, barrier))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    return results


@pytest.mark.parametrize(
    "shares",
    [
        [torch.arange(0, 1000, 2), torch.arange(1, 1000, 2)],
        [torch.arange(60), torch.arange(60, 1000)],
        [torch.arange(0, 1002, 3) % 1000, torch.arange(1, 1002, 3) % 1000, torch.arange(2, 1002, 3) % 1000],
    ],
    ids=["equal shares", "one below the limit", "a padded last batch"],
)
def test_processes_keep_what_one_would(shares):
    expected = kept(torch.arange(1000), limit=100)
    parts = [kept(share, limit=100) for share in shares]
    before = [part.indices for part in parts]
    for result in reduced(parts):
        assert torch.equal(result.indices, expected.indices)
        assert torch.equal(result.features, expected.features)
    for part, indices in zip(parts, before, strict=True):
        assert torch.equal(part.indices, indices)  # left as it was, so that a stream may go on


def test_processes_without_features():
    few = kept(torch.arange(5), limit=100)
    for result in reduced([KeptFeatures(3, limit=100), few]):
        assert torch.equal(result.features, stream(5))
    for result in reduced([KeptFeatures(3), KeptFeatures(3)]):
        assert result.features.shape == (0, 3)
        assert result.indices.dtype == torch.int64


def test_mistakes_are_named():
    sample = KeptFeatures(3)
    with pytest.raises(ValueError, match="3 dimensions are expected, got 2"):
        sample.update(torch.zeros(4, 2), torch.arange(4))
    with pytest.raises(ValueError, match=r"4 features need int64 .*\(3,\)"):
        sample.update(torch.zeros(4, 3), torch.arange(3))
    with pytest.raises(ValueError, match=r"from 0 on, got torch\.int32"):
        sample.update(torch.zeros(4, 3), torch.arange(4, dtype=torch.int32))
    with pytest.raises(ValueError, match="the least -1"):
        sample.update(torch.zeros(4, 3), torch.arange(-1, 3))
    with pytest.raises(ValueError, match="1 of 4 feature vectors"):
        sample.update(torch.zeros(4, 3).index_fill(0, torch.tensor([1]), torch.inf), torch.arange(4))
    with pytest.raises(ValueError, match="got dims 3 and limit 0"):
        KeptFeatures(3, limit=0)
