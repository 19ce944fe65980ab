"""Files of pytorch-CycleGAN-and-pix2pix, in and out.

The oracle is a plain re-writing of its ``models/networks.py``: the same modules in the same order, so with its keys.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mixgan
from mixgan.engine.run_folder import save_weights
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator
from mixgan.gan.weights import build_network, read_pth, to_published


def norm_layer(kind: str, channels: int, *, track: bool = False) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=True, track_running_stats=True)
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=track)


class TheirBlock(nn.Module):
    def __init__(self, dim: int, kind: str, dropout: bool, track: bool) -> None:
        super().__init__()
        bias, block = kind == "instance", []
        block += [nn.ReflectionPad2d(1)]
        block += [
            nn.Conv2d(dim, dim, kernel_size=3, padding=0, bias=bias),
            norm_layer(kind, dim, track=track),
            nn.ReLU(True),
        ]
        if dropout:
            block += [nn.Dropout(0.5)]
        block += [nn.ReflectionPad2d(1)]
        block += [nn.Conv2d(dim, dim, kernel_size=3, padding=0, bias=bias), norm_layer(kind, dim, track=track)]
        self.conv_block = nn.Sequential(*block)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class TheirResnet(nn.Module):
    def __init__(self, inp=3, out=3, ngf=8, n_blocks=9, kind="instance", dropout=False, track=False) -> None:
        super().__init__()
        bias = kind == "instance"
        model = [
            nn.ReflectionPad2d(3), nn.Conv2d(inp, ngf, kernel_size=7, padding=0, bias=bias),
            norm_layer(kind, ngf, track=track), nn.ReLU(True),
        ]  # fmt: skip
        for i in range(2):
            mult = 2**i
            model += [
                nn.Conv2d(ngf * mult, ngf * mult * 2, kernel_size=3, stride=2, padding=1, bias=bias),
                norm_layer(kind, ngf * mult * 2, track=track), nn.ReLU(True),
            ]  # fmt: skip
        for _ in range(n_blocks):
            model += [TheirBlock(ngf * 4, kind, dropout, track)]
        for i in range(2):
            mult = 2 ** (2 - i)
            model += [
                nn.ConvTranspose2d(
                    ngf * mult, ngf * mult // 2, kernel_size=3, stride=2, padding=1, output_padding=1, bias=bias
                ),
                norm_layer(kind, ngf * mult // 2, track=track), nn.ReLU(True),
            ]  # fmt: skip
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out, kernel_size=7, padding=0), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class TheirUnetBlock(nn.Module):
    def __init__(
        self, outer, inner, input_nc=None, submodule=None, outermost=False, innermost=False, kind="batch"
    ) -> None:
        super().__init__()
        self.outermost = outermost
        bias = kind == "instance"
        input_nc = outer if input_nc is None else input_nc
        downconv = nn.Conv2d(input_nc, inner, kernel_size=4, stride=2, padding=1, bias=bias)
        downrelu, downnorm = nn.LeakyReLU(0.2, True), norm_layer(kind, inner)
        uprelu, upnorm = nn.ReLU(True), norm_layer(kind, outer)
        if outermost:
            upconv = nn.ConvTranspose2d(inner * 2, outer, kernel_size=4, stride=2, padding=1)
            model = [downconv, submodule, uprelu, upconv, nn.Tanh()]
        elif innermost:
            upconv = nn.ConvTranspose2d(inner, outer, kernel_size=4, stride=2, padding=1, bias=bias)
            model = [downrelu, downconv, uprelu, upconv, upnorm]
        else:
            upconv = nn.ConvTranspose2d(inner * 2, outer, kernel_size=4, stride=2, padding=1, bias=bias)
            model = [downrelu, downconv, downnorm, submodule, uprelu, upconv, upnorm]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class TheirUnet(nn.Module):
    def __init__(self, inp=3, out=3, num_downs=7, ngf=4, kind="batch") -> None:
        super().__init__()
        block = TheirUnetBlock(ngf * 8, ngf * 8, innermost=True, kind=kind)
        for _ in range(num_downs - 5):
            block = TheirUnetBlock(ngf * 8, ngf * 8, submodule=block, kind=kind)
        for k in (4, 2, 1):
            block = TheirUnetBlock(ngf * k, ngf * k * 2, submodule=block, kind=kind)
        self.model = TheirUnetBlock(out, ngf, input_nc=inp, submodule=block, outermost=True, kind=kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class TheirDiscriminator(nn.Module):
    def __init__(self, inp=3, ndf=4, n_layers=3, kind="instance") -> None:
        super().__init__()
        bias, mult = kind == "instance", 1
        sequence = [nn.Conv2d(inp, ndf, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for n in range(1, n_layers + 1):
            before, mult = mult, min(2**n, 8)
            sequence += [
                nn.Conv2d(ndf * before, ndf * mult, 4, stride=2 if n < n_layers else 1, padding=1, bias=bias),
                norm_layer(kind, ndf * mult), nn.LeakyReLU(0.2, True),
            ]  # fmt: skip
        self.model = nn.Sequential(*sequence, nn.Conv2d(ndf * mult, 1, kernel_size=4, stride=1, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def filled(network: nn.Module) -> nn.Module:
    """Random weights that matter, and batch statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            scale = 0.5 if name.endswith("running_var") else 0.2 if tensor.ndim > 1 else 0.1
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return network.eval()


def images(channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


THEIRS = {
    "resnet_9blocks": (lambda: TheirResnet(), 32),
    "resnet_6blocks, grey to RGB": (lambda: TheirResnet(1, 3, n_blocks=6), 32),
    "resnet, batch norm, dropout": (lambda: TheirResnet(n_blocks=2, kind="batch", dropout=True), 32),
    "unet_128": (lambda: TheirUnet(), 128),
    "unet_256, instance norm": (lambda: TheirUnet(num_downs=8, ngf=2, kind="instance"), 256),
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_generators_give_the_same_pixels(name: str, tmp_path: Path):
    make, size = THEIRS[name]
    theirs = filled(make())
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    ours = mixgan.load(tmp_path / "latest_net_G.pth")
    x = images(1 if "grey" in name else 3, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x.clone()), rtol=0, atol=1e-5)


def test_statistics_of_instance_norms_and_names_of_several_gpus_are_left_out(tmp_path: Path):
    old = filled(TheirResnet(n_blocks=1, track=True))
    assert any(key.endswith("running_mean") for key in old.state_dict())
    torch.save({f"module.{key}": tensor for key, tensor in old.state_dict().items()}, tmp_path / "latest_net_G.pth")
    plain = TheirResnet(n_blocks=1)
    plain.load_state_dict({k: v for k, v in old.state_dict().items() if "running" not in k and "num_b" not in k})
    with torch.no_grad():
        torch.testing.assert_close(
            mixgan.load(tmp_path / "latest_net_G.pth")(images()), plain(images()), rtol=0, atol=1e-5
        )


OURS = {
    "resnet": (lambda: ResnetGenerator(width=4, blocks=3), lambda: TheirResnet(ngf=4, n_blocks=3), 32),
    "resnet, batch": (
        lambda: ResnetGenerator(width=4, blocks=1, norm="batch"),
        lambda: TheirResnet(ngf=4, n_blocks=1, kind="batch"),
        32,
    ),
    "unet": (lambda: UnetGenerator(1, 3, width=2, depth=7), lambda: TheirUnet(1, 3, ngf=2, kind="instance"), 128),
    "discriminator": (lambda: PatchDiscriminator(width=4), lambda: TheirDiscriminator(), 32),
}


@pytest.mark.parametrize("name", OURS)
def test_their_code_loads_ours(name: str):
    make, make_theirs, size = OURS[name]
    ours, theirs = filled(make()), make_theirs().eval()
    theirs.load_state_dict(to_published(ours.state_dict()))  # strict: all keys and shapes
    x = images(1 if name == "unet" else 3, size)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x.clone()), ours(x), rtol=0, atol=1e-5)


def test_a_round_trip_changes_nothing(tmp_path: Path):
    for network in (
        ResnetGenerator(width=4, blocks=2),
        UnetGenerator(width=2, depth=5, norm="batch"),
        PatchDiscriminator(width=4),
    ):
        torch.save(to_published(network.state_dict()), tmp_path / "net.pth")
        back = read_pth(tmp_path / "net.pth")
        assert back.keys() == network.state_dict().keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "network",
    [
        ResnetGenerator(1, 3, width=4, blocks=2, norm="batch"),
        ResnetGenerator(width=4, blocks=0, norm="none"),
        ResnetGenerator(width=4, blocks=1, upsample="resize", skip=True),
        UnetGenerator(3, 1, width=2, depth=5, norm="none"),
        UnetGenerator(width=2, depth=2),
    ],
    ids=lambda network: type(network).__name__,
)
def test_what_a_network_is_is_read_from_its_tensors(network: nn.Module, tmp_path: Path):
    save_weights(tmp_path / "G_A.safetensors", filled(network), {"role": "generator"})
    again = mixgan.load(tmp_path / "G_A.safetensors")
    channels = 1 if "ResnetGenerator" in type(network).__name__ and network.layers[0].in_channels == 1 else 3
    with torch.no_grad():
        assert torch.equal(again(images(channels)), network(images(channels)))
    assert type(again) is type(build_network(network.state_dict()))


def test_what_cannot_be_read_or_written_is_one_sentence(tmp_path: Path):
    class Code:
        def __reduce__(self) -> tuple:
            return print, ("executed",)

    torch.save({"a": Code()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth is not a file of weights that torch reads without executing code"):
        mixgan.load(tmp_path / "code.pth")
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not contain a ResNet or U-Net generator .* linear\.weight"):
        mixgan.load(tmp_path / "other.pth")
    torch.save(filled(TheirDiscriminator()).state_dict(), tmp_path / "latest_net_D_A.pth")
    with pytest.raises(ValueError, match=r"latest_net_D_A\.pth contains a discriminator, which cannot translate"):
        mixgan.load(tmp_path / "latest_net_D_A.pth")
    with pytest.raises(ValueError, match="has no place for layers"):
        to_published(ResnetGenerator(width=4, blocks=1, upsample="resize").state_dict())
