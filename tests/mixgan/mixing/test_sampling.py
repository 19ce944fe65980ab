"""Choices on the host come from torch's global CPU generator: they differ between workers and epochs, replay and resume."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from mixgan.engine.checkpoint import random_states, restore_random_states
from mixgan.mixing import build_mixer
from mixgan.mixing.sampling import host_choice


def test_choices_have_the_probabilities_of_the_weights():
    torch.manual_seed(0)
    drawn = [host_choice([1.0, 3.0]) for _ in range(2000)]
    assert abs(sum(drawn) / 2000 - 0.75) < 5 * (0.75 * 0.25 / 2000) ** 0.5  # five standard deviations


def test_a_given_generator_decides_and_the_global_state_stays():
    state = torch.get_rng_state()
    first, second = ([host_choice([1.0] * 8, torch.Generator().manual_seed(k)) for k in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 3
    assert torch.equal(torch.get_rng_state(), state)


def test_a_single_option_draws_nothing():
    state = torch.get_rng_state()
    assert host_choice([2.0]) == 0
    assert torch.equal(torch.get_rng_state(), state)


class GpuGenerator:
    """A generator of another device, as far as a choice on the host looks at it."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.offset = 0

    def initial_seed(self) -> int:
        return 5

    def get_offset(self) -> int:
        return self.offset

    def set_offset(self, offset: int) -> None:
        assert offset % 4 == 0  # CUDA's rule
        self.offset = offset


def test_a_generator_on_a_gpu_gives_a_new_choice_each_time():
    generator = GpuGenerator()
    first = [host_choice([1.0] * 8, generator) for _ in range(20)]
    assert len(set(first)) > 3
    generator.set_offset(0)
    assert [host_choice([1.0] * 8, generator) for _ in range(20)] == first


@pytest.mark.parametrize("name", ["mixup+cutmix", "puzzlemix"])
def test_choices_resume_with_the_random_states_of_a_checkpoint(name):
    def choices():
        return [mixer.plan(images, saliency=images[:, 0]).choice for _ in range(20)]

    images, mixer = torch.rand(2, 3, 16, 16), build_mixer(name, num_classes=4)
    assert not mixer.state_dict()  # no random state of its own
    states = random_states(torch.device("cpu"))
    expected = choices()
    restore_random_states(states, torch.device("cpu"))
    assert choices() == expected
    assert choices() != expected


@pytest.mark.parametrize("name", ["mixup+cutmix", "puzzlemix"])
def test_a_generator_replays_a_call_with_its_choices(name):
    images, mixer = torch.rand(4, 3, 16, 16), build_mixer(name, num_classes=4)
    plans = [
        mixer.plan(images, saliency=images[:, 0], generator=torch.Generator().manual_seed(k)) for k in (*range(10), 3)
    ]
    assert torch.equal(plans[3].mask, plans[10].mask)
    assert plans[3].choice == plans[10].choice
    assert len({plan.choice for plan in plans}) > 1
    assert all(type(plan.choice) is int for plan in plans)


class Choices:
    """A collate function that mixes and returns what the mixer chose."""

    def __init__(self, mixer):
        self.mixer = mixer

    def __call__(self, samples):
        (images,) = default_collate(samples)
        return self.mixer.plan(images).choice


def test_data_workers_choose_differently_in_every_worker_and_epoch():
    torch.manual_seed(0)
    collate = Choices(build_mixer("mixup+cutmix", num_classes=10))
    loader = DataLoader(
        TensorDataset(torch.rand(48, 1, 2, 2)), 1, num_workers=2, collate_fn=collate, multiprocessing_context="fork"
    )
    epochs = [list(loader) for _ in range(2)]  # batch i comes from worker i % 2
    streams = {tuple(epoch[worker::2]) for epoch in epochs for worker in range(2)}
    assert len(streams) == 4


def test_a_mixer_can_be_sent_to_a_spawned_worker():
    collate = Choices(build_mixer("mixup+cutmix", num_classes=10))
    loader = DataLoader(
        TensorDataset(torch.rand(2, 1, 2, 2)), 2, num_workers=1, collate_fn=collate, multiprocessing_context="spawn"
    )
    assert set(loader) <= {0, 1}
