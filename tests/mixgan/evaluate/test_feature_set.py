"""Measured sets against numpy's mean and covariance of features computed one by one."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mixgan.evaluate.comparison import compare_sets, measure
from mixgan.evaluate.distances import frechet_distance_from_features
from mixgan.evaluate.features import bundled_features, module_features
from mixgan.evaluate.sources import BatchSource, FolderSource

pytestmark = pytest.mark.usefixtures("fresh_process")


@pytest.fixture
def accelerator(fresh_process: None) -> Accelerator:
    return Accelerator(cpu=True)


@pytest.mark.parametrize("kind", ["tensor", "loader", "folder"])
def test_statistics_are_of_all_images_and_the_sample_is_of_some(kind, tiles, save, accelerator):
    images = tiles.maps
    sources = {
        "tensor": lambda: BatchSource(images, name="mine"),
        "loader": lambda: BatchSource(DataLoader(TensorDataset(images, tiles.labels), batch_size=9)),
        "folder": lambda: FolderSource(save("maps", images)),
    }
    extractor = bundled_features()
    (found,) = measure(sources[kind](), [extractor], accelerator=accelerator, batch_size=7, sample=10, seed=3)
    expected = torch.cat([extractor(image[None]) for image in images]).double().numpy()
    np.testing.assert_allclose(found.statistics.mean, expected.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.statistics.covariance, np.cov(expected, rowvar=False), rtol=1e-4, atol=1e-6)
    assert found.n == len(images)
    assert len(found.indices.unique()) == len(found.features) == 10
    np.testing.assert_allclose(found.features, expected[found.indices], rtol=1e-5, atol=1e-6)
    assert found.warnings == ()
    assert found.to(torch.device("meta")).features.is_meta


def test_tensors_and_loaders_can_be_compared_from_python(tiles, accelerator):
    """The lines at the head of the module. Oracle: the distance of features computed one by one."""
    extractor = bundled_features()
    loader = DataLoader(TensorDataset(tiles.photos / 255), batch_size=5)
    real = measure(BatchSource(tiles.maps), [extractor], accelerator=accelerator)[0]
    fake = measure(BatchSource(loader), [extractor], accelerator=accelerator)[0]
    found = compare_sets(real, fake, extractor, bootstrap=0)
    alone = [torch.cat([extractor(image[None]) for image in images]) for images in (tiles.maps, tiles.photos)]
    assert found.fd == pytest.approx(frechet_distance_from_features(*alone), rel=1e-4)
    assert (found.n_real, found.n_fake) == (24, 24)


def test_unreadable_files_are_left_out_and_named(tiles, save, accelerator):
    folder = save("maps", tiles.maps)
    for number in range(2, 9):
        (folder / f"{number}.png").write_bytes(b"no image")
    source = FolderSource(folder, on_bad_image="skip")
    with pytest.warns(UserWarning, match="skipped 7 of 24 image files"):
        (found,) = measure(source, [bundled_features()], accelerator=accelerator)
    assert found.n == 17
    (warning,) = found.warnings
    names = ", ".join(str(folder / f"{number}.png") for number in range(2, 7))
    assert warning == f"{folder}: 7 of 24 files skipped as unreadable: {names} and 2 more"


def test_features_that_are_not_numbers_are_told_with_their_source(tiles, accelerator):
    class Spoilt(nn.Module):
        def forward(self, x):
            features = x.mean(dim=(2, 3))
            features[1] = torch.nan
            return features

    source = BatchSource(tiles.maps, name="samples")
    with pytest.raises(
        ValueError, match="samples: the spoilt features of 1 out of 12 images in a batch are NaN or infin"
    ):
        measure(source, [module_features("spoilt", Spoilt(), dims=3)], accelerator=accelerator, batch_size=12)
