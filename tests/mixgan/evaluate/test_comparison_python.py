"""The public functions as other code calls them: ``compare`` on everything it takes, ``FrechetDistance`` in a loop."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mixgan.evaluate import Comparison, FrechetDistance, compare, comparison, module_features
from mixgan.evaluate.distances import frechet_distance_from_features
from mixgan.evaluate.features import bundled_features

pytestmark = pytest.mark.usefixtures("fresh_process")


@pytest.fixture
def expected(tiles) -> float:
    extractor = bundled_features()
    return frechet_distance_from_features(extractor(tiles.maps), extractor(tiles.photos[:20]))


@pytest.mark.parametrize("kind", ["folder", "text", "tensor", "float tensor", "loader", "npz", "arr_0"])
def test_every_kind_of_input_gives_one_distance(kind, tiles, save, tmp_path, expected):
    folder = save("real", tiles.maps)
    kinds = {
        "folder": folder,
        "text": str(folder),
        "tensor": tiles.maps,
        "float tensor": tiles.maps / 255,
        "loader": DataLoader(TensorDataset(tiles.maps, tiles.labels), batch_size=7),
        "npz": tmp_path / "real.npz",
        "arr_0": tmp_path / "adm.npz",
    }
    np.savez(kinds["arr_0"], arr_0=tiles.maps.permute(0, 2, 3, 1).numpy(), mu=np.zeros(2048))
    if kind == "npz":
        compare(folder, folder, features="bundled", metrics=["fd"], bootstrap=0, save_statistics=kinds["npz"])
    found = compare(kinds[kind], tiles.photos[:20], features="bundled", bootstrap=2)
    assert isinstance(found, Comparison)
    assert found.fd == pytest.approx(expected, rel=1e-5)
    assert (found.n_real, found.n_fake, found.features, found.fid) == (24, 20, "bundled", None)
    assert (found.kid is None) == (kind == "npz")
    assert "rmse" not in found.to_dict()
    if kind == "arr_0":
        assert (
            found.real_from
            == f"the images arr_0 of {kinds[kind]}, not its mu and sigma, which are of TensorFlow's features"
        )
    if kind == "npz":
        assert found.real_from.startswith(f"the statistics mu and sigma of {kinds[kind]}, sha256 ")


def test_several_generated_sets_find_what_each_finds_alone(tiles, save, tmp_path, monkeypatch):
    """The real images are measured once; names, order and every number are those of single comparisons."""
    real = save("real", tiles.maps)
    sets = {"first": save("a", tiles.photos), "second": tiles.maps // 2, "third": tiles.photos[:9]}
    measured, measure = [], comparison.measure
    monkeypatch.setattr(
        comparison, "measure", lambda source, *a, **k: measured.append(source.name) or measure(source, *a, **k)
    )
    found = compare(real, sets, features="bundled")
    assert measured.count(str(real)) == 1
    assert (len(measured), [*found.fakes]) == (4, ["first", "second", "third"])
    for name, images in sets.items():
        alone, together = compare(real, images, features="bundled").to_dict(), found.fakes[name].to_dict()
        del alone["seconds"], together["seconds"], alone["fake"], together["fake"]
        assert together == alone
    written = found.to_dict()
    assert (written["fd"], written["fake"]) == (written["fakes"]["first"]["fd"], "first")


def test_memorisation_with_training_images(tiles, save):
    train, real = save("train", tiles.maps[:16]), save("real", tiles.maps[16:])
    copied = compare(real, save("copies", tiles.maps[:10]), features="bundled", train=train)
    assert (copied.authpct, copied.n_train) == (0, 16)
    assert copied.nearer_to_train > 0.9
    assert copied.ct_p < 0.01
    assert not any("training images too" in text for text in copied.warnings)
    seen = compare(torch.cat((tiles.maps[:3], tiles.maps[16:])), tiles.maps[:10], features="bundled", train=train)
    assert f"3 of {len(tiles.maps) - 13} real images are training images too: C_T needs unseen ones" in seen.warnings
    assert "authpct" not in compare(real, tiles.maps[:10], features="bundled").to_dict()
    few = compare(real, tiles.maps[:10], features="bundled", train=train, sample=12)
    assert any("among 12 of 16 training images; --sample 16 searches all" in text for text in few.warnings)
    compare(real, real, features="bundled", save_statistics=train / "known.npz", metrics=["fd"])
    with pytest.raises(ValueError, match=r"--train needs images, but .*known\.npz contains only statistics"):
        compare(real, real, features="bundled", train=train / "known.npz")


def test_only_the_metrics_asked_for(tiles, save):
    real, fake = save("real", tiles.maps), save("fake", tiles.maps // 2)
    found = compare(real, fake, features="bundled", metrics=["kid", "ssim"], pairs="yes")
    assert (found.fd, found.precision, found.inception_score) == (None, None, None)
    assert found.kid is not None
    assert (found.n_pairs, found.resize) == (24, None)
    assert found.ssim < 1
    undeclared = compare(real, fake, features="bundled", metrics=["kid", "ssim"])
    assert undeclared.ssim is None
    assert any("--pairs yes" in text for text in undeclared.warnings)
    assert compare(real, fake, features="bundled", metrics=["fd"], bootstrap=0, resize=16).resize == 16


def test_any_network(tiles):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = compare(tiles.maps, tiles.photos, features=module_features("mean colour", network, dims=3), bootstrap=0)
    expected = frechet_distance_from_features(*((x / 255).mean(dim=(2, 3)) for x in (tiles.maps, tiles.photos)))
    assert found.fd == pytest.approx(expected, rel=1e-4)
    assert found.features == "mean colour"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["fd", "fud"]}, "names among fd, kid, .*; got 'fud'"),
        ({"metrics": "fd"}, "a list of names .*; got 'fd'"),
        ({"features": "vgg"}, "clip and timm:NAME, got 'vgg'"),
        ({"real": 7}, "real must be a folder, an .npz file, a tensor or a DataLoader, got 7"),
        ({"fake": torch.zeros(2, 1, 4, 4)}, r"\(2, 1, 4, 4\)"),
        ({"fake": torch.zeros(1, 3, 32, 32)}, "fake images contains 1"),
        ({"fake": torch.full((4, 3, 32, 32), -1.0)}, "0..1, got values from -1 to -1"),
        ({"resize": 9}, "--resize 9 needs folders of images, but fake is a Tensor"),
    ],
)
def test_mistakes_are_quoted(change, message, tiles):
    settings = {"real": tiles.maps, "fake": tiles.photos, "features": "bundled", **change}
    with pytest.raises(ValueError, match=message):
        compare(**settings)


def test_a_distance_in_a_loop(tiles, expected):
    distance = FrechetDistance("bundled")
    assert distance.name == "FD (bundled)"
    for epoch in range(2):
        for batch in tiles.photos[:20].split(6):
            distance.update(batch, real=False)
            if epoch == 0:
                distance.update(tiles.maps[:6], real=True)
        if epoch == 0:
            distance.reset(real=True)
            for batch in (tiles.maps / 255).split(5):
                distance.update(batch, real=True)
        assert distance.compute() == pytest.approx(expected, rel=1e-5)
        distance.reset(real=False)
    with pytest.raises(ValueError, match="at least 2 samples are needed, got 0"):
        distance.compute()
    distance.reset()
    assert distance.real.n == distance.fake.n == 0


def test_a_diverged_generator_is_named(tiles):
    class Diverged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(2, 3)) * torch.nan

    distance = FrechetDistance(module_features("mine", Diverged(), dims=3))
    with pytest.raises(ValueError, match=r"generated images: the mine features of 4 out of 4 images .* NaN"):
        distance.update(tiles.maps[:4], real=False)


def test_equals_torchmetrics_on_the_same_features(tiles):
    """Oracle: torchmetrics' FrechetInceptionDistance, where it is installed, with our features as its own."""
    peer = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance(feature=bundled_features())
    distance = FrechetDistance("bundled")
    for images, real in ((tiles.maps, True), (tiles.photos, False)):
        for batch in images.split(7):
            peer.update(batch, real=real)
            distance.update(batch, real=real)
    assert distance.compute() == pytest.approx(float(peer.compute()), rel=1e-4)


def test_importing_the_package_imports_little():
    code = (
        "import sys, mixgan.evaluate; from mixgan.evaluate import compare, FrechetDistance; "
        "print([m for m in ('accelerate', 'matplotlib', 'torchvision', 'pytorch_fid', 'kornia') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
