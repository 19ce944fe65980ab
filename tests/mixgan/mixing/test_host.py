"""Host choices: frequencies, and that state_dict carries them on."""

import torch

from mixgan.mixing.sampling import HostChoice


def test_odds_are_those_of_the_weights():
    torch.manual_seed(0)
    host = HostChoice()
    drawn = [host.draw([1.0, 3.0]) for _ in range(2000)]
    assert abs(sum(drawn) / 2000 - 0.75) < 5 * (0.75 * 0.25 / 2000) ** 0.5  # five standard deviations


def test_state_dict_continues_the_stream():
    torch.manual_seed(0)
    host = HostChoice()
    host.draw([1.0, 1.0])
    state = {name: value.clone() for name, value in host.state_dict().items()}
    expected = [host.draw([1.0] * 8) for _ in range(20)]
    other = HostChoice()
    other.load_state_dict(state)
    assert [other.draw([1.0] * 8) for _ in range(20)] == expected


def test_modules_made_under_one_seed_choose_alike_and_leave_the_global_stream_alone():
    torch.manual_seed(1)
    first = HostChoice()
    torch.manual_seed(1)
    second = HostChoice()
    state = torch.get_rng_state()
    assert [first.draw([1.0] * 8) for _ in range(20)] == [second.draw([1.0] * 8) for _ in range(20)]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_given_generator_decides():
    torch.manual_seed(0)
    host = HostChoice()
    first = [host.draw([1.0] * 8, torch.Generator().manual_seed(k)) for k in range(20)]
    second = [host.draw([1.0] * 8, torch.Generator().manual_seed(k)) for k in range(20)]
    assert first == second
    assert len(set(first)) > 3
