"""Run by test_two_processes.py under torchrun: many cases of two processes in one launch. Each is checked on both ranks."""

import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from accelerate.utils import gather_object, set_seed
from PIL import Image
from torch import nn

from mixgan.engine.accelerator import make_accelerator, on_main, synchronise_buffers
from mixgan.engine.config import CommonSettings
from mixgan.engine.interrupt import Interrupt
from mixgan.engine.run import Run
from mixgan.evaluate import FrechetDistance, compare
from mixgan.evaluate.comparison import measure
from mixgan.evaluate.distances import frechet_distance, frechet_distance_from_features
from mixgan.evaluate.feature_set import FeatureStatistics, KeptFeatures
from mixgan.evaluate.features import bundled_features, module_features
from mixgan.evaluate.sources import FolderSource
from mixgan.gan import MixCycleGAN, PatchDiscriminator, ResnetGenerator
from mixgan.gan.config import GanSettings
from mixgan.gan.data import DomainLoader, training_domains
from mixgan.mixing import build_mixer, list_mixers
from mixgan.mixing.registry import mixer_options

accelerator = make_accelerator(CommonSettings(threads=1))
rank, world = accelerator.process_index, accelerator.num_processes
assert world == 2


def mixing_differs_by_rank():
    images, labels = torch.rand(16, 3, 8, 8), torch.arange(16)
    saliency = torch.rand(16, 8, 8)
    for name in list_mixers():
        if "alpha" not in mixer_options(name):
            continue
        mixer = build_mixer(name, num_classes=16)
        set_seed(0, device_specific=True)
        drawn = mixer.mix(images, labels, saliency=saliency if mixer.saliency_kind else None).plan.drawn
        first, second = gather_object([drawn])
        assert not torch.equal(first, second), name


def an_error_on_the_main_process_reaches_all():
    def fail():
        raise ValueError("said once")

    with pytest.raises(ValueError, match="said once"):
        on_main(accelerator, fail)
    assert on_main(accelerator, lambda: 7) == 7


def statistics_are_those_of_one_process():
    features = torch.randn(101, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, share = FeatureStatistics(5), FeatureStatistics(5)
    whole.update(features)
    share.update(features[rank::world])
    together = share.reduce(accelerator)
    assert together.n == 101
    torch.testing.assert_close(together.covariance, whole.covariance)
    assert frechet_distance(together, whole) < 1e-9


def kept_features_are_those_of_one_process():
    features = torch.randn(301, 5, generator=torch.Generator().manual_seed(0))
    whole, share = KeptFeatures(5, limit=40), KeptFeatures(5, limit=40)
    whole.update(features, torch.arange(301))
    own = torch.arange(301)[:290] if rank == 0 else torch.arange(285, 301)  # some come twice, as padding would
    for piece in own.split(13):
        share.update(features[piece], piece)
    together = share.reduce(accelerator)
    assert torch.equal(together.indices, whole.indices)
    assert torch.equal(together.features, whole.features)


def comparisons_and_distances_are_those_of_one_process():
    images = torch.rand(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fakes, extractor = images.square()[:9], bundled_features()
    expected = frechet_distance_from_features(extractor(images), extractor(fakes))
    found = compare(images, fakes, features=extractor, bootstrap=0, batch_size=2, accelerator=accelerator)
    assert (found.n_real, found.n_fake) == (13, 9)
    assert found.fd == pytest.approx(expected, rel=1e-5)
    distance = FrechetDistance(extractor, accelerator=accelerator)
    for one, real in ((images, True), (fakes, False)):
        for batch in one[rank::world].split(2):
            distance.update(batch, real=real)
    assert distance.compute() == pytest.approx(expected, rel=1e-5)


class Colours(nn.Module):
    """Three features: the mean of every channel."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def several_feature_sets_are_those_of_one_process():
    images = torch.rand(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fakes, extractors = images.square()[:9], [bundled_features(), module_features("colours", Colours(), dims=3)]
    found = compare(images, fakes, features=extractors, batch_size=2, accelerator=accelerator)
    for extractor, one in zip(extractors, (found, found.others["colours"]), strict=True):
        expected = frechet_distance_from_features(extractor(images), extractor(fakes))
        assert (one.features, one.n_real, one.n_fake) == (extractor.name, 13, 9)
        assert one.fd == pytest.approx(expected, rel=1e-5)


def a_broken_file_of_one_process_stops_both():
    with TemporaryDirectory() as folder:
        for broken in (0, 1):  # of the first and of the second process's share
            for number in range(4):
                Image.new("RGB", (32, 32)).save(Path(folder, f"{number}.png"))
            Path(folder, f"{broken}.png").write_bytes(b"no image")
            with pytest.raises(ValueError, match=f"{broken}.png' is not an image"):
                measure(FolderSource(Path(folder)), [bundled_features()], accelerator=accelerator)


def buffers_become_the_main_ones():
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(rank + 1.0)
    synchronise_buffers(accelerator, norm)
    assert (norm.running_mean == 1).all()


def a_signal_to_one_process_stops_both():
    with Interrupt(accelerator) as interrupt:
        assert interrupt.agree(1) == (False, False)
        if rank == 1:
            signal.raise_signal(signal.SIGTERM)
        # Both agree at the same steps, though each measures its own time, and at least every 50.
        stops = gather_object([[step for step in range(2, 152) if interrupt.agree(step)[0]]])
        assert stops[0] == stops[1]
        assert stops[0][0] <= 51


def the_best_evaluation_is_the_main_ones():
    with TemporaryDirectory() as own:
        folder = on_main(accelerator, lambda: own)
        run = Run.start(CommonSettings(output_dir=folder, epochs=2, threads=1), recipe="test")
        network = nn.Linear(2, 1)
        run.accelerator.prepare(network, torch.optim.SGD(network.parameters(), 0.1))
        run.begin(1)
        better = []
        for measured in ((0.5, 0.4), (0.4, 0.9)):  # the second process would call the second one better
            run.end_step({"loss": 1.0}, images=1)
            better.append(run.track_best("accuracy", measured[rank], higher_is_better=True))
        assert gather_object([better]) == [[True, False]] * 2
        assert run.best == {"metric": "accuracy", "value": 0.5, "step": 1}
        accelerator.wait_for_everyone()


def hidden_mixing_and_penalties_keep_the_discriminators_of_both_ranks_equal():
    torch.manual_seed(0)
    networks = [
        *(ResnetGenerator(width=2, blocks=1) for _ in range(2)),
        *(PatchDiscriminator(width=2) for _ in range(2)),
    ]
    switches = {"d_layer": 1, "r1": 1.0, "r2": 1.0, "r_every": 2}
    model = MixCycleGAN(*networks, accelerator=accelerator, mixing="mixcyclegan-plus", lr=1e-2, **switches)
    torch.manual_seed(rank)  # images and lambdas differ
    for _ in range(3):
        model.step(*(torch.rand(4, 2, 3, 32, 32) * 2 - 1))
    weights = torch.cat([p.detach().flatten() for p in model.discriminators.parameters()])
    first, second = accelerator.gather(weights[None])
    assert torch.equal(first, second)


def batches_of_files_on_disk_are_those_of_memory():
    with TemporaryDirectory() as folder:
        for side, count in (("a", 9), ("b", 4)):
            (Path(folder) / side).mkdir()
            for number in range(count):
                pixels = torch.randint(256, (40 + number, 50, 3), dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(Path(folder) / side / f"{number}.png")
        sides = {f"domain_{side}": Path(folder) / side for side in "ab"}
        settings = GanSettings(dataset="folders", image_size=32, preprocess="scale-crop", test_share=0, **sides)
        share = {"size": 32, "batch_size": 2, "seed": 0, "device": accelerator.device, "rank": rank, "world": world}
        memory = DomainLoader(training_domains(settings), **share)
        disk = DomainLoader(training_domains(settings, cache_bytes=0), workers=1, **share)
        for batch, expected in zip(disk.epoch(1, first_step=1), memory.epoch(1, first_step=1), strict=True):
            assert all(map(torch.equal, batch, expected))


for case in (
    batches_of_files_on_disk_are_those_of_memory,
    mixing_differs_by_rank,
    an_error_on_the_main_process_reaches_all,
    statistics_are_those_of_one_process,
    kept_features_are_those_of_one_process,
    comparisons_and_distances_are_those_of_one_process,
    several_feature_sets_are_those_of_one_process,
    a_broken_file_of_one_process_stops_both,
    buffers_become_the_main_ones,
    the_best_evaluation_is_the_main_ones,
    hidden_mixing_and_penalties_keep_the_discriminators_of_both_ranks_equal,
    a_signal_to_one_process_stops_both,
):
    case()
    accelerator.wait_for_everyone()
    if rank == 0:
        print(f"passed: {case.__name__}", flush=True)
accelerator.end_training()
