"""The networks against the published parameter counts, the paper's layer list, and the receptive field by gradients."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixgan.gan import networks
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, init_weights, patch_shares


@pytest.fixture(params=[ResnetGenerator, PatchDiscriminator], ids=["G", "D"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param(width=4)


def instance_norm(x: Tensor) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def generator_by_hand(x: Tensor, parameters: list[Tensor], blocks: int) -> Tensor:
    """c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-3, tanh (Zhu et al. 2017, 7.2), weights taken in that order."""
    pairs = iter(zip(parameters[::2], parameters[1::2], strict=True))

    def reflect(x: Tensor, pad: int) -> Tensor:
        return F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), *next(pairs))

    x = F.relu(instance_norm(reflect(x, 3)))
    for _ in range(2):
        x = F.relu(instance_norm(F.conv2d(x, *next(pairs), stride=2, padding=1)))
    for _ in range(blocks):
        x = x + instance_norm(reflect(F.relu(instance_norm(reflect(x, 1))), 1))
    for _ in range(2):
        x = F.relu(instance_norm(F.conv_transpose2d(x, *next(pairs), stride=2, padding=1, output_padding=1)))
    return torch.tanh(reflect(x, 3))


def discriminator_by_hand(x: Tensor, parameters: list[Tensor]) -> Tensor:
    """C64, C128, C256 with stride 2, C512 with stride 1, then one channel; no norm in C64 (same appendix)."""
    (first, *middle, last) = zip(parameters[::2], parameters[1::2], strict=True)
    x = F.leaky_relu(F.conv2d(x, *first, stride=2, padding=1), 0.2)
    for pair, stride in zip(middle, (2, 2, 1), strict=True):
        x = F.leaky_relu(instance_norm(F.conv2d(x, *pair, stride=stride, padding=1)), 0.2)
    return F.conv2d(x, *last, padding=1)


def test_generator_follows_the_papers_layer_list():
    network = ResnetGenerator(1, 2, width=4, blocks=3)
    images = torch.randn(2, 1, 20, 36)
    torch.testing.assert_close(network(images), generator_by_hand(images, list(network.parameters()), blocks=3))


def test_discriminator_follows_the_papers_layer_list():
    network = PatchDiscriminator(2, width=4)
    images = torch.randn(2, 2, 40, 57)
    torch.testing.assert_close(network(images), discriminator_by_hand(images, list(network.parameters())))


@pytest.mark.parametrize(
    ("build", "published"), [(ResnetGenerator, 11_378_179), (PatchDiscriminator, 2_764_737)], ids=["G", "D"]
)
def test_parameter_counts_are_the_published_ones(build: type[nn.Module], published: int):
    # CycleGAN's code prints 11.378 M and 2.765 M for its default networks.
    assert sum(p.numel() for p in build().parameters()) == published


@pytest.mark.parametrize("size", [(8, 8), (12, 40), (64, 32)])
def test_generator_keeps_the_size(size: tuple[int, int]):
    assert ResnetGenerator(width=2, blocks=1)(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("size", [(66, 64), (64, 65), (4, 64)])
def test_generator_names_a_size_it_cannot_keep(size: tuple[int, int]):
    with pytest.raises(ValueError, match=f"got {size[0]} x {size[1]} pixels"):
        ResnetGenerator(width=2, blocks=1)(torch.zeros(1, 3, *size))


def test_discriminator_gives_30_by_30_logits_at_256_px():
    assert PatchDiscriminator(width=2)(torch.zeros(2, 3, 256, 256)).shape == (2, 1, 30, 30)


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_discriminator_takes_images_down_to_one_logit_and_no_smaller(layers: int):
    network = PatchDiscriminator(width=2, layers=layers)
    smallest = 3 * 2**layers
    assert network(torch.zeros(1, 3, smallest, smallest)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels, got 256 x {smallest - 1}"):
        network(torch.zeros(1, 3, 256, smallest - 1))


def test_discriminator_channels_double_up_to_eight_times_the_width():
    convolutions = [m for m in PatchDiscriminator(width=2, layers=5).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [2, 4, 8, 16, 16, 16, 1]


def test_discriminator_without_layers_is_refused():
    with pytest.raises(ValueError, match="layers=0"):
        PatchDiscriminator(layers=0)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field_is_the_patch(layers: int, patch: int):
    gradient = pixels_behind(layers, size=256, logit=(lambda h, w: (h // 2, w // 2)))
    rows, columns = gradient.nonzero(as_tuple=True)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (patch, patch)
    assert len(rows) == patch**2


def pixels_behind(layers: int, *, size: int, logit: Callable[[int, int], tuple[int, int]]) -> Tensor:
    """(size,size): how much each pixel weighs in one logit."""
    network = PatchDiscriminator(1, width=2, layers=layers).double()
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.1)  # of one sign, so that no path to a pixel cancels another
    # Instance norm ties every logit to the whole image through its mean; the patch is what the convolutions see.
    network.layers = nn.Sequential(*(layer for layer in network.layers if not isinstance(layer, nn.InstanceNorm2d)))
    images = torch.ones(1, 1, size, size, dtype=torch.double, requires_grad=True)
    logits = network(images)
    logits[0, 0][logit(*logits.shape[2:])].backward()
    return images.grad[0, 0]


@pytest.mark.parametrize(("layers", "size"), [(3, 256), (3, 36), (2, 32), (4, 128)])
def test_masks_are_pooled_to_the_logits(layers: int, size: int):
    masks = torch.rand(2, 1, size, size)
    logits = PatchDiscriminator(1, width=1, layers=layers)(masks)
    pooled = patch_shares(masks, logits.shape[2:])
    assert pooled.shape == logits.shape
    assert torch.equal(patch_shares(torch.ones_like(masks), logits.shape[2:]), torch.ones_like(logits))


@pytest.mark.parametrize("layers", [2, 3])
def test_a_pooled_mask_is_centred_where_its_logit_looks(layers: int):
    size, place = 256, (7, 12) if layers == 3 else (20, 33)
    behind = pixels_behind(layers, size=size, logit=lambda *_: place)
    mask = torch.zeros(1, 1, size, size, dtype=torch.double, requires_grad=True)
    patch_shares(mask, (size // 2**layers - 2,) * 2)[0, 0][place].backward()
    positions = torch.arange(size, dtype=torch.double)
    for axis in (0, 1):
        centres = [(x.sum(1 - axis) * positions).sum() / x.sum() for x in (behind, mask.grad[0, 0])]
        torch.testing.assert_close(*centres)


def test_a_mask_is_shared_evenly_among_any_other_number_of_logits():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :8] = 1  # the left quarter
    assert patch_shares(mask, (4, 4)).flatten(1).tolist() == [[1, 0, 0, 0] * 4]
    assert patch_shares(torch.nn.functional.pad(mask, (0, 16, 0, 16)), (1, 1)).item() == pytest.approx(8 * 32 / 48**2)
    assert patch_shares(mask, ()).tolist() == [0.25]


class TestWaysToRun:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def test_channels_last_changes_nothing(self, network: nn.Module):
        expected = network(self.images)
        network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(self.images.contiguous(memory_format=torch.channels_last)), expected)

    def test_bfloat16_autocast_stays_close(self, network: nn.Module):
        with torch.autocast("cpu", torch.bfloat16):
            output = network(self.images)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), network(self.images), atol=0.05, rtol=0.05)

    def test_compiles_to_one_graph(self, network: nn.Module):
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(self.images), network(self.images))


def test_init_weights_draws_reproducibly_from_the_normal_distribution(network: nn.Module):
    def drawn(seed: int, **settings: float) -> Tensor:
        init_weights(network, generator=torch.Generator().manual_seed(seed), **settings)
        convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        assert all(not m.bias.any() for m in convolutions)
        return torch.cat([m.weight.detach().flatten() for m in convolutions])

    first = drawn(0)
    # Mean and deviation of n draws scatter by std / sqrt(n) and std / sqrt(2 n); four times that is allowed.
    scatter = 4 * 0.02 / len(first) ** 0.5
    assert abs(first.mean()) < scatter
    assert abs(first.std() - 0.02) < scatter
    assert torch.equal(first, drawn(0))
    assert not torch.equal(first, drawn(1))
    torch.testing.assert_close(drawn(0, std=0.1), first * 5)


def test_a_resize_convolution_is_nearest_enlargement_and_a_reflected_convolution_and_the_skip_adds_half_resolution():
    torch.manual_seed(0)
    network = ResnetGenerator(1, 2, width=4, blocks=1, upsample="resize", skip=True)
    with torch.no_grad():
        network.skip.fill_(0.7)
    images = torch.randn(2, 1, 16, 24)
    named = dict(network.named_parameters())
    pairs = iter(
        [(named[name], named[name.removesuffix("weight") + "bias"]) for name in named if name.endswith("weight")]
    )

    def reflect(x: Tensor, pad: int) -> Tensor:
        return F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), *next(pairs))

    x = F.relu(instance_norm(reflect(images, 3)))
    x = half = F.relu(instance_norm(F.conv2d(x, *next(pairs), stride=2, padding=1)))
    x = F.relu(instance_norm(F.conv2d(x, *next(pairs), stride=2, padding=1)))
    x = x + instance_norm(reflect(F.relu(instance_norm(reflect(x, 1))), 1))
    for size in (2, 1):
        x = F.relu(instance_norm(reflect(x.repeat_interleave(2, 2).repeat_interleave(2, 3), 1)))
        x = x + 0.7 * half if size == 2 else x
    torch.testing.assert_close(network(images), torch.tanh(reflect(x, 3)))


def test_an_unknown_way_to_enlarge_is_quoted():
    with pytest.raises(ValueError, match="unknown upsample 'bicubic'; choose one of transposed, resize"):
        ResnetGenerator(upsample="bicubic")


@pytest.mark.parametrize("shape", [(2, 2, 12, 20), (1, 2, 9, 7)], ids=["even", "odd"])
def test_the_fast_ways_on_cpus_are_the_layers_by_hand(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(networks, "in_bf16_on_cpu", lambda x: True)  # in float64 both sides agree to the last digits
    images = torch.randn(shape, dtype=torch.double, requires_grad=True)
    layer = networks.ReflectedConv2d(2, 3, 7).double()
    by_hand = F.conv2d(F.pad(images, (3,) * 4, mode="reflect"), layer.weight, layer.bias)
    found = layer(images)
    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-10)
    weigh, inputs = torch.randn_like(found), [images, layer.weight, layer.bias]
    gradients = (torch.autograd.grad((output * weigh).sum(), inputs) for output in (found, by_hand))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(networks.InstanceNorm2d(2)(images), instance_norm(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_bfloat16_on_a_cpu_is_float32_but_for_rounding(norm: str):
    network = ResnetGenerator(width=8, blocks=2, norm=norm)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        fast = network(images)
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - network(images)).abs().mean() < 0.01  # of a range of 2; rounding alone is 0.004 a layer
