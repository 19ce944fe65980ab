"""AugMix against its definition: operations by Pillow as in the published code, views and loss written out by the same draws."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from classify.methods import Method, build_method
from classify.methods.augmix import OPERATIONS, jensen_shannon, operate

CLASSES = 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def augmix(**options) -> Method:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 10, CLASSES))
    return build_method("augmix", network, num_classes=CLASSES, mean=MEAN, std=STD, options=options)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    """Normalised 8-bit images (count,3,16,12) and labels."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (count, 3, 16, 12), generator=generator) / 255
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def published(image: Image.Image, name: str, level: float, mirrored: bool) -> Image.Image:
    """AugMix' augmentations.py, with the level and the coin given; its IMAGE_SIZE is the side in question."""
    width, height = image.size
    sign = -1 if mirrored else 1
    whole = lambda most: int(level * most / 10)  # noqa: E731
    moved = {
        "shear_x": (1, sign * level * 0.3 / 10, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * level * 0.3 / 10, 1, 0),
        "translate_x": (1, 0, sign * whole(width / 3), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * whole(height / 3)),
    }
    if name in moved:
        return image.transform(image.size, Image.Transform.AFFINE, moved[name], Image.Resampling.BILINEAR)
    if name == "rotate":
        return image.rotate(sign * whole(30), Image.Resampling.BILINEAR)
    if name == "posterize":
        return ImageOps.posterize(image, 4 - whole(4))
    if name == "solarize":
        return ImageOps.solarize(image, 256 - whole(256))
    return {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](image)


def test_operations_are_the_published_ones():
    # Every operation at three strengths, in both directions, all in one batch.
    cases = [(name, level, coin) for name in OPERATIONS for level in (0.4, 2.9, 9.3) for coin in (False, True)]
    images = torch.randint(256, (len(cases), 3, 20, 26), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[::2] = images[::2] // 2 + 40
    expected = []
    for image, case in zip(images, cases, strict=True):
        done = published(Image.fromarray(image.permute(1, 2, 0).numpy()), *case)
        expected.append(torch.from_numpy(np.array(done)).permute(2, 0, 1))
    names, levels, coins = zip(*cases, strict=True)
    operation = torch.tensor([OPERATIONS.index(name) for name in names])
    result = operate(images.long(), operation, torch.tensor(levels) / 10, torch.tensor(coins))
    assert (result - torch.stack(expected)).abs().max() <= 1  # Pillow cuts off where this rounds
    assert (result == torch.stack(expected)).float().mean() > 0.7


@pytest.mark.parametrize(("width", "depth", "alpha"), [(3, (1, 3), 1.0), (2, (2, 2), 0.5), (1, (1, 4), 1.0)])
def test_views_mix_chains_of_operations(width: int, depth: tuple[int, int], alpha: float):
    # Oracle: the published loops over views, chains, images and steps, with the operation as tested above.
    images, _ = batch()
    method = augmix(width=width, depth=depth, alpha=alpha, severity=5.0)
    torch.manual_seed(3)
    views = method.views(images)
    torch.manual_seed(3)
    shape = (2, width, len(images))
    total = 2 * width * len(images)
    lengths = (depth[0] + torch.randint(depth[1] - depth[0] + 1, (total,))).view(shape)
    steps = []
    for _ in range(depth[1]):
        operation, level, coin = torch.randint(9, (total,)), 0.1 + 4.9 * torch.rand(total), torch.rand(total) < 0.5
        steps.append([drawn.view(shape) for drawn in (operation, level, coin)])
    gammas = gamma_draws(total, alpha).view(shape)
    amounts = (torch.rand(2 * len(images)) if alpha == 1 else beta_draws(2 * len(images), alpha)).view(2, -1)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for view in range(2):
        for i, image in enumerate(images * std + mean):
            mixed = torch.zeros_like(image)
            for k in range(width):
                chain = (image[None] * 255).round().long()
                for operation, level, coin in steps[: lengths[view, k, i]]:
                    at = (view, k, slice(i, i + 1))
                    chain = operate(chain, operation[at], level[at] / 10, coin[at])
                mixed += gammas[view, k, i] / gammas[view, :, i].sum() * chain[0] / 255
            amount = amounts[view, i]
            expected = ((1 - amount) * image + amount * mixed - mean) / std
            torch.testing.assert_close(views[view, i], expected, atol=1e-5, rtol=1e-5)


def gamma_draws(count: int, alpha: float) -> Tensor:
    """Gamma(alpha) as X * U^(1/alpha) with X ~ Gamma(alpha + 1), the draws of ``Draws.log_gamma``."""
    return torch._standard_gamma(torch.full((count,), alpha + 1)) * (1 - torch.rand(count)) ** (1 / alpha)


def beta_draws(count: int, alpha: float) -> Tensor:
    first, second = gamma_draws(count, alpha), gamma_draws(count, alpha)
    return first / (first + second)


def test_the_loss_is_cross_entropy_and_the_published_divergence():
    images, labels = batch()
    method = augmix()
    torch.manual_seed(3)
    output = method(images, labels)
    torch.manual_seed(3)
    views = method.views(images)
    clean, first, second = (method.network(x).softmax(1) for x in (images, *views))
    mean = (clean + first + second) / 3
    divergence = sum((p * (p / mean).log()).sum() for p in (clean, first, second)) / 3 / len(images)
    cross_entropy = -clean[torch.arange(len(labels)), labels].log().mean()
    torch.testing.assert_close(output.loss, cross_entropy + 12 * divergence)
    torch.testing.assert_close(output.logs["divergence"], divergence.detach())
    torch.testing.assert_close(output.logits.softmax(1), clean)
    assert output.logs["accuracy"] == (clean.argmax(1) == labels).float().mean()


def test_divergence_of_equal_and_of_opposite_answers():
    torch.testing.assert_close(jensen_shannon(torch.randn(1, 4, 5).expand(3, 4, 5)), torch.tensor(0.0))
    sure = torch.eye(3)[:, None] * 1000  # three answers, each certain of another class: log 3, without overflow
    torch.testing.assert_close(jensen_shannon(sure), torch.tensor(3.0).log())


def test_the_views_shape_the_gradient_by_their_weight():
    images, labels = batch()

    def gradient(consistency: float) -> Tensor:
        method = augmix(consistency=consistency)
        torch.manual_seed(3)
        method(images, labels).loss.backward()
        return method.network[0].weight.grad

    plain, one, two = gradient(0.0), gradient(1.0), gradient(2.0)
    assert not torch.allclose(one, plain, rtol=1e-3)
    torch.testing.assert_close(two - plain, 2 * (one - plain), rtol=1e-4, atol=1e-6)
    method = augmix()
    nn.functional.cross_entropy(method.network(images), labels).backward()
    torch.testing.assert_close(plain, method.network[0].weight.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "--method.width must be at least 1, got 0"),
        ({"depth": (0, 3)}, "--method.depth must be at least 1, got 0"),
        ({"depth": (3, 2)}, r"--method.depth must be .* least <= most, got \(3, 2\)"),
        ({"severity": 11.0}, "--method.severity must be at least 1 and at most 10, got 11.0"),
        ({"consistency": -1.0}, "--method.consistency must be at least 0, got -1.0"),
        ({"alpha": 0.0}, "--method.alpha must be above 0, got 0.0"),
    ],
)
def test_options_are_checked(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        augmix(**options)


def test_it_learns_a_few_images():
    images, labels = batch(8)
    method = augmix()
    optimizer = torch.optim.SGD(method.parameters(), 0.02, momentum=0.9)
    losses = []
    for _ in range(40):
        output = method(images, labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_checkpoint_brings_the_same_next_step():
    images, labels = batch()
    method = augmix()
    torch.manual_seed(4)
    method(images, labels)
    weights, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    expected = method(images, labels).loss
    resumed = augmix()
    resumed.load_state_dict(weights)
    torch.set_rng_state(random)
    assert torch.equal(resumed(images, labels).loss, expected)


def test_pictures_are_the_clean_image_and_two_views_in_the_unit_range():
    images, labels = batch(3)
    method = augmix()
    first, again, other = (
        method.pictures(images, labels, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert list(first) == ["clean", "view 1", "view 2"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["view 1"], other["view 1"])
    assert not torch.equal(first["view 1"], first["view 2"])
    assert all(column.min() >= -1e-6 and column.max() <= 1 + 1e-6 for column in first.values())
    torch.testing.assert_close(first["clean"] * 255, (first["clean"] * 255).round(), atol=1e-3, rtol=0)
