"""Errors under corruptions: the mean corruption error by hand, generated images, and CIFAR-C's files where they lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from classify.analysis.result import Study
from classify.analysis.robustness import as_bytes, corruption, corruption_errors, made_batches, relative_error
from classify.analysis.trained_run import TrainedRun
from mixgan.ops.corruptions import corrupt, list_corruptions

STUDY = Study(count=24, batch_size=12)


def test_relative_error_is_the_mean_over_corruptions_of_shares():
    errors, baseline = torch.tensor([[0.1, 0.3], [0.4, 0.4]]), torch.tensor([[0.2, 0.2], [0.1, 0.3]])
    assert relative_error(errors, baseline) == pytest.approx((0.4 / 0.4 + 0.8 / 0.4) / 2)


def test_generated_images_are_the_runs_own_corrupted(cutmix_run):
    images, labels = next(cutmix_run.batches(count=24, batch_size=12))
    made, made_labels = next(made_batches(as_bytes(cutmix_run, STUDY), "contrast", 3, STUDY))
    assert torch.equal(labels, made_labels)
    torch.testing.assert_close(made, corrupt(cutmix_run.as_pictures(images).clamp(0, 1), "contrast", severity=3))


def test_the_figure_of_a_run(cutmix_run, tmp_path):
    result = corruption([cutmix_run], STUDY)
    result.write(tmp_path)
    (row,) = result.tables["Mean corruption error"]
    errors = torch.tensor(list(result.numbers["cutmix"]["errors"].values()))
    assert errors.shape == (15, 5)
    assert row["images"] == "generated"
    assert row["mean corruption error"] == pytest.approx(errors.mean().item())
    assert row["relative to cutmix"] == pytest.approx(1)
    assert len(result.pictures["The corruptions"][0].getcolors(1 << 24)) > 1000


class OnCifar(TrainedRun):
    """A run on tiles that says it was one on CIFAR-10."""

    @property
    def settings(self):
        return replace(super().settings, dataset="cifar10")

    def data(self, split):
        return TrainedRun(self.path, self.label, self.device).data(split)


def test_files_of_cifar_c_are_used_where_they_lie(cutmix_run, tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    images = np.random.default_rng(0).integers(256, size=(5 * 8, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "labels.npy", np.tile(np.arange(8, dtype=np.uint8), 5))
    for name in list_corruptions():
        np.save(folder / f"{name}.npy", images)
    run = OnCifar(cutmix_run.path, "cifar", torch.device("cpu"), tmp_path)
    found = corruption_errors(run, STUDY)
    assert found.source == "CIFAR-10-C"
    with torch.no_grad():
        pixels = torch.from_numpy(images[16:24]).permute(0, 3, 1, 2) / 255  # severity 3
        wrong = cutmix_run.network(cutmix_run.normalise(pixels)).argmax(1) != torch.arange(8)
    assert found.corrupted[:, 2].tolist() == pytest.approx([wrong.float().mean().item()] * 15)
