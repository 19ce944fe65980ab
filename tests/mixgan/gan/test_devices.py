"""The GANs' steps, pictures and metrics on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, no waiting.

The oracle of the numbers is the same step on the CPU.
"""

from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from fake_cuda import CUDA, fake_cuda, gpu_accelerator

from mixgan.data.domains import Domains
from mixgan.evaluate.features import bundled_features
from mixgan.gan.data import DomainLoader, ImageLoader
from mixgan.gan.dcgan import DCGAN, Discriminator, Generator, TestImages, training_grid
from mixgan.gan.evaluation import Spikes, TestSet
from mixgan.gan.losses import GanKind, ImagePool, Mixing
from mixgan.gan.mixcyclegan import MixCycleGAN
from mixgan.gan.networks import PatchDiscriminator, ResnetGenerator, UnetGenerator, init_weights
from mixgan.gan.report import training_grid as mixcyclegan_grid
from mixgan.gan.report import translation_grid
from mixgan.gan.translate import translate_images

SIDE = 16
WAYS = {"AtoB": "a to b", "BtoA": "b to a"}
#: Everything that leads a step into other code.
OPTIONS = [
    *({"mixing": mixing} for mixing in get_args(Mixing)),
    *({"mixing": "none", "gan_loss": kind} for kind in get_args(GanKind)),
    {"mixing": "none", "gan_loss": "relativistic", "r1": 1.0, "r2": 0.5},
    {"gan_loss": "bce", "r1": 0.1, "r_every": 2, "d_term": "add"},
    {"gan_loss": "hinge", "d_layer": 1},
    {"mixing": "stitch-d", "d_layer": 2, "shared_lambda": False},
    {"mixing": "dmix-only", "d_real": "input", "pool_size": 0},
    {"unstitched": 0.5, "shared_lambda": False, "alpha": 0.5, "d_alpha": 0.3},
    {"ema": 0.9, "clip_grad": 0.5, "pool_size": 2},
]
# bf16 has fused optimizers; fp16 has a scaler, whose step reads whether all gradients were finite.
PRECISIONS = {"no": set(), "bf16": set(), "fp16": {"update"}}


def build(accelerator, options, generator="resnet", optimizer=None):
    torch.manual_seed(0)
    if generator == "unet":
        generators = [UnetGenerator(width=2, depth=3) for _ in range(2)]
    else:
        generators = [ResnetGenerator(width=2, blocks=1, skip=True) for _ in range(2)]
    networks = [*generators, *(PatchDiscriminator(width=2, layers=2) for _ in range(2))]
    for network in networks:
        init_weights(network, std=0.2)
    if optimizer:
        pairs = zip(("optimizer_g", "optimizer_d"), (networks[:2], networks[2:]), strict=True)
        parameters = {name: [p for network in pair for p in network.parameters()] for name, pair in pairs}
        options = options | {name: optimizer(values, 0.01) for name, values in parameters.items()}
    return MixCycleGAN(*networks, accelerator=accelerator, **options)


def batch(count=3, size=SIDE):
    return torch.rand(4, count, 3, size, size, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).unbind()


def two_steps(model, images):
    torch.manual_seed(2)
    first = model.step(*images)
    return first, model.step(*images[:2])  # stitched with the batch itself


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_mixcyclegan_takes_the_same_steps_without_waiting(options):
    expected = two_steps(build(Accelerator(cpu=True), options, optimizer=torch.optim.SGD), batch())
    with fake_cuda() as cuda, gpu_accelerator() as accelerator:
        model = build(accelerator, options, optimizer=torch.optim.SGD)
        images = [image.to("cuda") for image in batch()]
        cuda.waits.clear()
        found = two_steps(model, images)
        assert cuda.waits == []
        networks = model.generators, model.discriminators, *([model.average.network] if model.average else [])
        assert {tensor.device for network in networks for tensor in network.state_dict().values()} == {CUDA}
        for one, other in zip(found, expected, strict=True):
            assert {value.device for value in one.values()} == {CUDA}
            torch.testing.assert_close({k: v.cpu() for k, v in one.items()}, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mixed_precision_waits_only_for_the_gradient_scaler(precision, monkeypatch):
    with (
        fake_cuda() as cuda,
        gpu_accelerator(mixed_precision=precision if precision == "bf16" else "no") as accelerator,
    ):
        if precision == "fp16":
            monkeypatch.setattr(accelerator, "scaler", torch.amp.GradScaler("cuda"))
            monkeypatch.setattr(accelerator, "native_amp", True)
            monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
        model = build(accelerator, {"clip_grad": 1.0}, "unet")
        images = [image.to("cuda") for image in batch()]
        two_steps(model, images)
        cuda.waits.clear()
        logs = two_steps(model, images)
        assert cuda.places() == PRECISIONS[precision]
        assert all(value.isfinite().item() for value in logs[1].values())


def test_in_float32_torch_chooses_how_adam_updates():
    """On a GPU it takes all tensors at once, unless a caller names a way."""
    model = build(Accelerator(cpu=True), {})
    groups = [*model.optimizer_g.param_groups, *model.optimizer_d.param_groups]
    assert {(group["fused"], group["foreach"]) for group in groups} == {(None, None)}


def test_the_pool_of_a_resumed_run_moves_with_its_images():
    pool = ImagePool(2)
    pool.query(batch()[0])
    with fake_cuda() as cuda:
        resumed = ImagePool(2)
        resumed.load_state_dict(pool.state_dict())
        images = batch()[1].to("cuda")
        assert resumed.query(images).device == CUDA
        cuda.waits.clear()
        assert resumed.query(images).device == CUDA
        assert cuda.waits == []


@pytest.mark.parametrize(
    ("mixing", "gan_loss"), [("none", "relativistic"), ("mixup", "bce"), ("cutmix", "hinge"), ("mixup-hv", "lsgan")]
)
def test_dcgan_takes_the_same_steps_without_waiting(mixing, gan_loss):
    def model(accelerator):
        torch.manual_seed(0)
        networks = Generator(size=16, width=4, latent=8), Discriminator(size=16, width=4)
        return DCGAN(*networks, accelerator=accelerator, mixing=mixing, gan_loss=gan_loss, d_term="add", ema=0.9)

    def steps(model, images):
        torch.manual_seed(3)
        return [model.step(images) for _ in range(2)]

    images = batch(size=16)[0]
    expected = steps(model(Accelerator(cpu=True)), images)
    with fake_cuda() as cuda, gpu_accelerator() as accelerator:
        on_gpu, images = model(accelerator), images.to("cuda")
        cuda.waits.clear()
        found = steps(on_gpu, images)
        assert cuda.waits == []
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close({k: v.cpu() for k, v in one.items()}, other, rtol=1e-4, atol=1e-5)
        training_grid(on_gpu, images, torch.randn(3, 8))  # a picture: it ends on the host
        tests = TestImages(torch.zeros(8, 3, 32, 32).byte(), torch.randn(8, 8), [bundled_features()], accelerator)
        del tests


def domains(count=4):
    a, b = (torch.randint(256, (count, 3, SIDE + 4, SIDE + 4), dtype=torch.uint8) for _ in range(2))
    return Domains(a, b, paired=True)


def test_batches_of_domains_and_of_images_come_without_waiting():
    sets = domains()
    several = Domains([*sets.a, sets.a[0, :, 2:]], [*sets.b], paired=False)
    with fake_cuda() as cuda:
        for each in (sets, several):
            epoch = DomainLoader(each, size=SIDE, batch_size=2, seed=0, device=CUDA).epoch(0)
            next(epoch)
            cuda.waits.clear()
            assert {images.device for images in next(epoch)} == {CUDA}
            assert cuda.waits == []
        epoch = ImageLoader(sets.a, batch_size=2, seed=0, device=CUDA).epoch(0)
        next(epoch)
        cuda.waits.clear()
        assert next(epoch).device == CUDA
        assert cuda.waits == []


def test_the_first_spike_is_found_on_the_device():
    class Run:
        step = 0

    with fake_cuda() as cuda:
        spikes, loss = Spikes(Run(), ["G"], 10.0), torch.ones((), device="cuda")
        cuda.waits.clear()
        for _ in range(Spikes.WINDOW + 2):
            spikes.after_step({"G": loss})
        assert cuda.waits == []
        assert spikes._found.device == CUDA


@pytest.mark.parametrize("float64", [True, False])
def test_metrics_and_pictures_of_a_test_set(float64):
    """They end on the host; what counts is that nothing is on the wrong device, and the numbers."""
    torch.manual_seed(5)
    sets = domains()
    sets = Domains(*(each.repeat(1, 1, 2, 2)[..., :32, :32] for each in (sets.a, sets.b)), paired=True)
    model = build(Accelerator(cpu=True), {})
    expected = TestSet(sets, [bundled_features()], model.accelerator, batch_size=2).metrics(model.generators)
    with fake_cuda(float64=float64), gpu_accelerator() as accelerator:
        model = build(accelerator, {"ema": 0.9})
        found = TestSet(sets, [bundled_features()], accelerator, batch_size=2).metrics(model.eval_generators)
        assert found.keys() == expected.keys()
        numbers = {name for name, value in expected.items() if isinstance(value, float)}
        torch.testing.assert_close(
            {name: found[name] for name in numbers}, {name: expected[name] for name in numbers}, rtol=1e-3, atol=1e-3
        )
        translation_grid(model.eval_generators, sets, accelerator, title="", ways=WAYS)
        loader = DomainLoader(sets, size=SIDE, batch_size=2, seed=0, device=CUDA)
        mixcyclegan_grid(model, next(loader.epoch(0)), title="", ways=WAYS)


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_images_of_any_size_are_translated_where_the_generator_is(place):
    images = torch.rand(1, 3, 70, 90).mul(2).sub(1)
    torch.manual_seed(0)
    generator = ResnetGenerator(width=2, blocks=1).eval()
    expected = translate_images(generator, images, tile=64)
    with fake_cuda():
        found = translate_images(generator.to("cuda"), images.to(place), tile=64)
        assert found.device.type == place
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
