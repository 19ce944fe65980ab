"""Mixing on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, nothing on another device, no waiting.

The oracle of the numbers is the same call on the CPU, whose methods take other ways there (``is_eager_cpu``).
"""

import pytest
import torch
from fake_cuda import fake_cuda

from mixgan.mixing import (
    CoMixup,
    build_mixer,
    choose_partner,
    comixup,
    gradient_saliency,
    gradient_saliency_of,
    list_mixers,
    static_saliency,
)
from mixgan.mixing.registry import mixer_options

CLASSES, COUNT, SIZE = 5, 6, (12, 13)
#: Options that lead to other code, where a method has them; small ones where the default takes long.
SWITCHES = [
    {"per_batch": True},
    {"fidelity": "published"},
    {"shared_field": True},
    {"transport": False},
    {"alpha": 0.3},
]
SMALL = {"blocks": (2, 3), "n_labels": 2, "group": 3, "rounds": 2, "p": 0.5, "noise": 0.5}
COMPOSITES = [
    ("mixup+cutmix+fmix", {}),
    ("mixup+cutmix+fmix", {"per_sample": True, "weights": (1, 2, 3)}),
    ("puzzlemix+cutmix", {"weights": (9, 1), "puzzlemix": {"blocks": (2, 3), "std": (0.2, 0.3, 0.4)}}),
    ("saliencymix+resizemix+patchshuffle", {}),
]


def variants():
    for name in list_mixers():
        known = mixer_options(name)
        small = {key: value for key, value in SMALL.items() if key in known}
        if "blocks" in small:
            small["blocks"] = 2 if name == "comixup" else (2, 3)
        for switch in [{}, *SWITCHES]:
            if set(switch) <= set(known) and (name == "mixup" or "alpha" not in switch):
                yield name, small | switch
    yield from COMPOSITES


@pytest.fixture(params=variants(), ids=lambda each: "-".join([each[0], *each[1]]))
def make(request):
    """A function that builds a new mixer, with further keyword arguments."""
    name, options = request.param
    return lambda **labels: build_mixer(name, num_classes=CLASSES, **options, **labels)


@pytest.fixture(autouse=True)
def traced_assignment(monkeypatch):
    """CoMixup's assignment is one operation to torch, whose inside a dispatch mode does not see: call that."""
    monkeypatch.setattr(comixup, "assign_blocks", comixup.assign_blocks._init_fn)


def batch(count=COUNT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, *SIZE, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return images, labels, torch.rand(count, *SIZE, generator=generator)


def assert_same_on_gpu(action, *tensors):
    """Call ``action`` on the CPU and on the GPU, from one seed, and compare; on the GPU the host must not wait."""
    torch.manual_seed(1)
    expected = action(*tensors)
    with fake_cuda() as cuda:
        moved = [tensor.to("cuda") for tensor in tensors]
        cuda.waits.clear()
        torch.manual_seed(1)
        found = action(*moved)
        assert cuda.waits == []
        for one, other in zip(found, expected, strict=True):
            if other is None:
                assert one is None
                continue
            assert one.device.type == "cuda"
            torch.testing.assert_close(one.cpu(), other, atol=1e-6, rtol=1e-5)


def parts(mixed):
    plan = mixed.plan
    return mixed.images, mixed.targets, plan.drawn, plan.sources, plan.weights, plan.mask, plan.geometry


def test_a_batch_is_mixed_as_on_the_cpu_without_waiting(make):
    def mix(images, labels, saliency):
        mixer = make()
        return parts(mixer.mix(images, labels, saliency=saliency if mixer.saliency_kind else None))

    assert_same_on_gpu(mix, *batch())


def test_a_generator_of_the_gpu_draws_everything_there(make):
    def mix(images, labels, saliency):
        mixer = make()
        generator = torch.Generator(images.device).manual_seed(2)
        saliency = saliency if mixer.saliency_kind else None
        return parts(mixer.mix(images, labels, saliency=saliency, generator=generator))[:2]

    with fake_cuda() as cuda:
        moved = [tensor.to("cuda") for tensor in batch()]
        cuda.waits.clear()
        assert all(tensor.device.type == "cuda" for tensor in mix(*moved))
        assert cuda.waits == []
        with pytest.raises(ValueError, match="the generator is on cpu but the images are on cuda"):
            make().plan(moved[0], saliency=moved[2], generator=torch.Generator())


def test_others_and_all_forms_of_labels(make):
    images, labels, saliency = batch()
    others, other_labels, _ = batch(seed=5)
    several = (torch.rand(COUNT, CLASSES, generator=torch.Generator().manual_seed(3)) > 0.5).float()

    def mix(images, labels, saliency, others, other_labels, several):
        mixer = make()
        one_hot = torch.zeros_like(several).scatter(1, labels[:, None], 1.0)
        plan = mixer.plan(images, saliency=saliency if mixer.saliency_kind else None)
        found = [mixer.mix_images(images, plan, others=others), mixer.targets(labels, plan, other_labels=other_labels)]
        found.append(mixer.targets(one_hot, plan))
        if not mixer.changes_labels:
            for kind, options, values in (
                ("multi-label", {}, several),
                ("multi-label", {"union": True}, several),
                ("value", {}, labels.float()),
            ):
                found.append(make().with_labels(kind, **options).targets(values, plan))
        if mixer.label_follows_mask and not mixer.changes_labels:
            grafted = make().with_labels(by="saliency", blend=0.5)
            found.append(grafted.plan(images, saliency=saliency).weights)
        return found

    assert_same_on_gpu(mix, images, labels, saliency, others, other_labels, several)


def test_maps_features_and_volumes_by_the_same_plan(make):
    images, _, saliency = batch()
    maps = torch.randint(9, (COUNT, *SIZE), generator=torch.Generator().manual_seed(4))
    volumes = torch.rand(COUNT, 1, 2, *SIZE, generator=torch.Generator().manual_seed(4))

    def mix(images, saliency, maps, volumes):
        mixer = make()
        plan = mixer.plan(images, saliency=saliency if mixer.saliency_kind else None)
        found = [mixer.mix_images(maps, plan), mixer.mix_images(images[:, :, ::2, ::2], plan)]
        found.append(mixer.mix_images(images.to(memory_format=torch.channels_last), plan))
        if not (mixer.saliency_kind or mixer.moves_pixels):
            found.append(mixer.mix_images(volumes, mixer.plan(volumes)))
        return found

    assert_same_on_gpu(mix, images, saliency, maps, volumes)


def test_a_given_lambda_and_partner(make):
    images, _, saliency = batch()
    lam, partner = torch.linspace(0, 1, COUNT), torch.arange(COUNT).roll(1)
    if isinstance(make(), CoMixup):
        with fake_cuda(), pytest.raises(ValueError, match="takes no partner"):
            make().plan(images.to("cuda"), saliency=saliency.to("cuda"), partner=partner.to("cuda"))
        return

    def mix(images, saliency, lam, partner):
        mixer = make()
        saliency = saliency if mixer.saliency_kind else None
        plan = mixer.plan(images, saliency=saliency, lam=lam, partner=partner)
        return plan.weights, plan.sources, mixer.mix_images(images, plan)

    assert_same_on_gpu(mix, images, saliency, lam, partner)


@pytest.mark.parametrize("policy", ["same", "other", "balanced", "nearest"])
def test_partners_by_label(policy):
    assert_same_on_gpu(lambda labels: [choose_partner(labels, policy)], batch()[1])


def test_saliency_maps():
    images, labels, _ = batch()
    weight = torch.rand(CLASSES, 3, generator=torch.Generator().manual_seed(6))

    def maps(images, labels, weight):
        def loss(x):
            return torch.nn.functional.cross_entropy(x.square().mean((2, 3)) @ weight.T, labels, reduction="sum")

        probe = images.detach().requires_grad_()
        return static_saliency(images), gradient_saliency(loss, images), gradient_saliency_of(loss(probe), probe)

    assert_same_on_gpu(maps, images, labels, weight)


def test_boxes_are_mixed_on_the_host():
    images, labels, _ = batch(2)
    boxes = [torch.tensor([[1.0, 2.0, 8.0, 9.0]])] * 2
    with fake_cuda() as cuda:
        mixer = build_mixer("cutmix", num_classes=CLASSES)
        plan = mixer.plan(images.to("cuda"))
        assert cuda.waits == ["test: copies to the device"]
        mixed = mixer.mix_boxes([box.to("cuda") for box in boxes], [label[None].to("cuda") for label in labels], plan)
        assert {box.device.type for box in (*mixed.boxes, *mixed.labels)} == {"cuda"}
        assert "mix_boxes" in cuda.places()  # as its docstring says


def test_the_checks_see_what_a_gpu_refuses_and_waits_for():
    """Without this a broken ``fake_cuda`` would pass everything."""
    with fake_cuda() as cuda:
        values = torch.zeros(3, device="cuda")
        with pytest.raises(RuntimeError, match="tensors on cuda and on the CPU"):
            values + torch.zeros(3)
        with pytest.raises(RuntimeError, match="a generator on the CPU"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        assert cuda.waits == []
        for wait in (
            lambda: float(values.sum()),
            lambda: values[values > 0],
            lambda: values[torch.arange(2)],
            lambda: torch.tensor([1.0], device="cuda"),
            lambda: values.cpu(),
            lambda: values.nonzero(),
        ):
            before = len(cuda.waits)
            wait()
            assert len(cuda.waits) == before + 1
        leaf = torch.ones(2, device="cuda", requires_grad=True)
        leaf.square().sum().backward()
        assert leaf.grad.device.type == "cuda"
        assert leaf.grad.tolist() == [2.0, 2.0]
