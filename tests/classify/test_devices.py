"""Training and testing classifiers on a GPU, played by the CPU (tests/support/fake_cuda.py): same numbers, no waiting.

The oracle of the numbers is the same step on the CPU.
"""

import copy
import math
from importlib import import_module

import pytest
import torch
from accelerate import Accelerator
from fake_cuda import CUDA, fake_cuda, gpu_accelerator
from torch import nn

from classify.data import FolderSet, ImageSet
from classify.evaluation import confusion_matrix, evaluate, training_accuracy
from classify.loaders import TrainingLoader, eval_batches
from classify.methods import METHODS, build_method, list_methods, method, method_options
from classify.methods.method import MixSchedule
from classify.networks import _NETWORKS, build_network, list_networks
from mixgan.engine.ema import MovingAverage
from mixgan.mixing import comixup, list_mixers

CLASSES, COUNT, SIDE = 5, 6, 16
#: Options that lead to other code, for the methods that have them.
SWITCHES = [
    {},
    {"loss": "bce"},
    {"clean_weight": 1.0, "smoothing": 0.1},
    {"clean_weight": 1.0, "reuse_forward": True},
    {"mode": "hard"},
    {"layers": ("body.1",)},
    {"mask": "cutmix"},
    {"mask_norm": "l2", "lam_margin": 0.1, "momentum_schedule": "published"},
    {"pipeline": False},
    {"local_label": "average", "originals": False},
    {"heads": 1, "random_label": "first", "per_batch": True},
    {"interpolate": "samples"},
    {"transport": False},
]
SMALL = {"puzzlemix": {"blocks": (2,)}, "comixup": {"blocks": 2, "group": 3, "rounds": 2}}


def variants():
    for name in list_methods():
        known = method_options(name)
        for switch in SWITCHES:
            if name in list_mixers() and name not in ("cutmix", "puzzlemix", "saliencymix") and switch:
                continue  # these options are of all mixers alike
            if set(switch) <= set(known) and not ("reuse_forward" in switch and name != "puzzlemix"):
                yield name, switch


VARIANTS = [pytest.param(*each, id="-".join([each[0], *each[1]])) for each in variants()]
#: A saliency map that is computed in float32, and everything that is more than a mixer; mixers compute outside the network.
UNDER_AUTOCAST = [
    each
    for each in VARIANTS
    if (each.values[0] in METHODS or each.values[0] in ("fmix", "puzzlemix", "saliencymix", "comixup"))
    and "reuse_forward" not in each.values[1]
]


@pytest.fixture(autouse=True)
def traced_assignment(monkeypatch):
    """CoMixup's assignment is one operation to torch, whose inside a dispatch mode does not see: call that."""
    monkeypatch.setattr(comixup, "assign_blocks", comixup.assign_blocks._init_fn)


def build(name, options, *, schedule=None):
    torch.manual_seed(0)
    network, moments = build_network("bundled", num_classes=CLASSES), {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    more = {"mixer": SMALL.get(name), "options": options, "schedule": schedule}
    return build_method(name, network, num_classes=CLASSES, **moments, **more)


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(COUNT, 3, SIDE, SIDE, generator=generator), torch.randint(CLASSES, (COUNT,), generator=generator)


def steps(trained, optimizer, average, images, labels, *, count=2):
    """Steps as the loop takes them; their logs and logits."""
    found = []
    torch.manual_seed(2)
    for step in range(count):
        trained.before_step(0, step / 2)
        output = trained(images, labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trained.after_step()
        average.update(trained.network)
        found.append({**output.logs, "logits": output.logits.detach()})
    return found


def ready(trained):
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    return trained, torch.optim.SGD(parameters, 0.01, momentum=0.9), MovingAverage(trained.network, 0.9)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_method_takes_the_same_steps_without_waiting(name, options):
    count = 1 if name in list_mixers() else 2  # the others change from step to step
    expected = steps(*ready(build(name, options)), *batch(), count=count)
    with fake_cuda() as cuda:
        trained = build(name, options)
        parts = ready(trained.to("cuda"))
        images, labels = (tensor.to("cuda") for tensor in batch())
        cuda.waits.clear()
        found = steps(*parts, images, labels, count=count)
        assert cuda.waits == []
        state = trained.state_dict().values()
        assert {value.device for value in state if isinstance(value, torch.Tensor) and value.ndim != 1} <= {CUDA}
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close({k: v.cpu() for k, v in one.items()}, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("partner", ["same", "balanced"])
def test_schedules_choose_on_the_host(partner):
    trained = build("cutmix", {}, schedule=MixSchedule(prob=0.5, partner=partner))
    with fake_cuda() as cuda:
        parts = ready(trained.to("cuda"))
        images, labels = (tensor.to("cuda") for tensor in batch())
        cuda.waits.clear()
        steps(*parts, images, labels)
        assert cuda.waits == []


@pytest.mark.parametrize(("name", "options"), UNDER_AUTOCAST)
def test_the_forward_pass_under_autocast_of_a_gpu(name, options, monkeypatch):
    """A GPU casts other operations than a CPU does, and refuses some in 16 bits."""
    monkeypatch.setattr(method, "gradient_saliency", lambda loss, images: images.abs().mean(1) + 0 * loss(images))
    trained = build(name, options)
    with fake_cuda(autocast=True), torch.no_grad():
        trained.to("cuda")
        images, labels = (tensor.to("cuda") for tensor in batch())
        with torch.autocast("cuda", torch.float16):
            assert (images.flatten(1) @ images.flatten(1).T).dtype == torch.float16
            output = trained(images, labels)
        assert output.loss.dtype == torch.float32
        assert math.isfinite(output.loss)


def test_pictures_draw_from_a_generator_of_the_device():
    for name in list_methods():
        trained = build(name, {})
        with fake_cuda():
            images, labels = (tensor.to("cuda") for tensor in batch())
            columns = trained.to("cuda").pictures(images, labels, generator=torch.Generator("cuda").manual_seed(0))
            assert {column.device for column in columns.values()} == {CUDA}, name


SMALLER = {
    "depth": {28: 16, 9: 1, 3: 1},
    "widening": {10: 1},
    "growth_rate": {32: 8, 40: 8},
    "groups": {8: 2, 32: 2, 64: 2},
}


def kinds():
    """One network of each class and form in the registry, with few layers and channels."""
    found = {}
    for name in list_networks():
        place, options = _NETWORKS[name]
        small = {key: SMALLER.get(key, {}).get(value, value) for key, value in options.items()}
        if "depths" in small:
            small["depths"] = (1,) * len(small["depths"])
        if "width_per_group" in small:
            small["width_per_group"] = 4
        found.setdefault((place, *sorted(small.items())), pytest.param(place, small, id=name))
    return list(found.values())


@pytest.mark.parametrize(("place", "options"), kinds())
def test_every_kind_of_network_is_where_it_is_put(place, options):
    torch.manual_seed(0)
    module, _, kind = place.partition(":")
    network = getattr(import_module(module), kind)(num_classes=2, in_channels=3, **options)
    images = torch.randn(2, 3, 64 if "stem" in options else 32, 64 if "stem" in options else 32)
    with fake_cuda() as cuda, torch.no_grad():
        expected = copy.deepcopy(network)(images)
        network.to("cuda")
        images = images.to("cuda")
        cuda.waits.clear()
        found = network(images)
        assert cuda.waits == []
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


def small_set(count=8, side=12):
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return ImageSet(
        "mine", images, torch.arange(count) % 3, ("a", "b", "c"), mean=(0.5,) * 3, std=(0.2,) * 3, flip=True
    )


@pytest.mark.parametrize(
    "options", [{}, {"padding": "reflect"}, {"crop": "resized"}], ids=["padded", "reflected", "resized"]
)
def test_training_batches_are_the_same_and_come_without_waiting(options):
    def loader(device):
        return TrainingLoader(small_set(), batch_size=4, seed=0, device=device, **options)

    expected = list(loader("cpu").epoch(1))
    with fake_cuda() as cuda:
        epoch = loader(CUDA).epoch(1)
        found = [next(epoch)]  # draws of the epoch are sent over
        cuda.waits.clear()
        found += epoch
        assert cuda.waits == []
        for (images, labels), (other_images, other_labels) in zip(found, expected, strict=True):
            assert images.device == labels.device == CUDA
            torch.testing.assert_close(images.cpu(), other_images)
            assert torch.equal(labels.cpu(), other_labels)


def test_files_are_sent_to_the_device_while_it_works(tmp_path):
    from PIL import Image

    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (20, 20), (number, 0, 0)).save(paths[-1])
    files = FolderSet("mine", tuple(paths), torch.arange(4) % 2, ("a", "b"), size=16)
    with fake_cuda() as cuda:
        loader = TrainingLoader(files, batch_size=2, seed=0, device=CUDA, workers=0)
        cuda.waits.clear()
        for images, labels in loader.epoch(0):
            assert images.device == labels.device == CUDA
        assert cuda.waits == []
        assert {images.device for images, _ in eval_batches(files, batch_size=2, device=CUDA, workers=0)} == {CUDA}


@pytest.mark.parametrize("float64", [True, False])
def test_test_metrics_are_the_same(float64):
    """The host reads sums at the end, and sends the batches of the test set over."""
    dataset, network = small_set(), build_network("bundled", num_classes=3)
    twice = torch.stack((dataset.labels, dataset.labels), 1)

    def metrics(network, accelerator, cuda=None):
        def batches():
            return eval_batches(dataset, batch_size=4, device=accelerator.device)

        def both():
            return ((images, twice[:4].to(images.device)) for images, _ in batches())

        found = [evaluate(network, batches(), accelerator=accelerator)]
        found.append(confusion_matrix(network, batches(), classes=3, accelerator=accelerator))
        found.append(training_accuracy(network, both(), accelerator=accelerator))
        return found

    expected = metrics(network, Accelerator(cpu=True))
    with fake_cuda(float64=float64) as cuda, gpu_accelerator() as accelerator:
        network.to("cuda")
        cuda.waits.clear()
        found = metrics(network, accelerator)
        sums = set() if float64 else {"bin_sums", "to_float64"}  # which are on the host
        where = sums | {
            "eval_batches",
            "to",
            "both",
            "evaluate",
            "calibration_error",
            "confusion_matrix",
            "counts",
            "summed",
        }
        assert cuda.places() <= {*where, "training_accuracy", "forward", "normalize", "test"}
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert torch.equal(found[1], expected[1])
    assert found[2] == expected[2]


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("name", ["automix", "multi-sample"])
def test_further_metrics_of_a_method(name, float64):
    def found(device, accelerator):
        return trained.test_metrics(list(eval_batches(small_set(), batch_size=4, device=device)), accelerator)

    trained = build(name, {})
    expected = found("cpu", Accelerator(cpu=True))
    with fake_cuda(float64=float64), gpu_accelerator() as accelerator:
        trained.to("cuda")
        assert found(CUDA, accelerator) == pytest.approx(expected)


def test_a_network_that_makes_tensors_on_the_cpu_is_found_out():
    class Careless(nn.Linear):
        def forward(self, x):
            return super().forward(x.mean((2, 3))) + torch.ones(CLASSES)

    with fake_cuda() as cuda, gpu_accelerator():
        with pytest.raises(RuntimeError, match="tensors on cuda and on the CPU"):
            Careless(3, CLASSES).to("cuda")(batch()[0].to("cuda"))
        assert cuda.places() == {"test"}
