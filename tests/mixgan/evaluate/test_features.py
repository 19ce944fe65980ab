"""Feature extractors: right values under the caller's worst settings, and mistakes named."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixgan.evaluate.features import (
    BundledNetwork,
    FeatureExtractor,
    bundled_features,
    checked_features,
    is_published_fid,
    module_features,
    plain_float32,
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    network = BundledNetwork()
    for stage in network.body:  # statistics that differ from a batch's, so that train mode would be noticed
        stage[1].running_mean.normal_()
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path, network.eval()


def test_bundled_features_are_the_embedding_of_normalised_images(weights):
    path, network = weights
    extractor = bundled_features(path)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    expected = network.embedding(images / 255 * 2 - 1)
    torch.testing.assert_close(extractor(images), expected)
    torch.testing.assert_close(extractor(images / 255), expected)
    assert (extractor.name, extractor.dims) == ("bundled", 64)
    assert extractor.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_callers_settings_change_nothing(weights):
    extractor = bundled_features(weights[0])
    images = torch.rand(4, 3, 32, 32)
    expected = extractor(images)
    nn.Sequential(extractor).train()
    with torch.autocast("cpu", torch.bfloat16):
        features = extractor(images)
    assert torch.equal(features, expected)
    assert (features.dtype, features.requires_grad) == (torch.float32, False)


def test_tf32_is_off_inside_and_restored_outside():
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        with plain_float32(torch.device("cpu")):
            # From 2.9 on torch refuses to answer through the old interface while the new one is in use.
            if hasattr(torch.backends.cudnn, "conv"):
                assert torch.backends.cudnn.conv.fp32_precision == "ieee"
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            else:
                assert torch.backends.cudnn.allow_tf32 is False
                assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.backends.cudnn.allow_tf32 is True
        assert torch.backends.cuda.matmul.allow_tf32 is True
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def test_a_module_is_copied_and_left_alone():
    network = BundledNetwork().to(torch.bfloat16).train()
    extractor = module_features("mine", network, mean=[0.1, 0.2, 0.3], std=0.25)
    images = torch.rand(2, 3, 32, 32)
    before, digest = extractor(images), extractor.weights_sha256
    with torch.no_grad():
        network.body[0][0].weight.zero_()
    assert network.training
    assert network.body[0][0].weight.dtype == torch.bfloat16
    assert torch.equal(extractor(images), before)
    assert module_features("mine", network).weights_sha256 != digest
    normalised = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.25
    torch.testing.assert_close(before, extractor.network.embedding(normalised))


def test_plain_modules_give_their_forward():
    extractor = module_features("mean colour", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), dims=3)
    images = torch.rand(5, 3, 9, 9)
    torch.testing.assert_close(extractor(images), images.mean(dim=(2, 3)))


def test_logits_are_the_networks_own_whatever_becomes_of_it(weights):
    """Oracle: the network's plain forward, which is its classifier on its embedding."""
    path, network = weights
    images = torch.rand(3, 3, 32, 32)
    expected = network(images * 2 - 1)
    bundled, module = bundled_features(path), module_features("mine", network, mean=0.5, std=0.5)
    with torch.no_grad():
        network.classifier.weight.zero_()
    for extractor in (bundled, module):
        with torch.autocast("cpu", torch.bfloat16):
            logits = extractor.logits(extractor(images).double())  # kept features may be float64
        torch.testing.assert_close(logits, expected)
        assert not logits.requires_grad


def test_features_that_a_classifier_does_not_see_have_no_logits():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(48, 2)

        def forward(self, images):
            return images.flatten(1)

    for module in (nn.Flatten(), Plain()):
        extractor = module_features("mine", module, dims=48)
        with pytest.raises(ValueError, match="the mine features have no classifier"):
            extractor.logits(torch.zeros(2, 48))


def test_a_distance_is_named_by_its_features_unless_it_has_a_published_name():
    plain, named = (
        module_features("mine", nn.Flatten(), dims=12),
        FeatureExtractor("mine", nn.Flatten(), dims=12, distance="FID"),
    )
    assert (plain.distance, named.distance) == ("FD (mine)", "FID")
    assert [is_published_fid(extractor) for extractor in (plain, named)] == [False, True]


def test_unknown_or_wrong_dims_are_named():
    with pytest.raises(ValueError, match="dims= is needed for 'mine': Flatten"):
        module_features("mine", nn.Flatten())
    with pytest.raises(ValueError, match=r"\(2, 5\), got \(2, 12\)"):
        module_features("mine", nn.Flatten(), dims=5)(torch.zeros(2, 3, 2, 2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.tensor([[-1.0, 0.5]]).expand(1, 3, 4, 2), "0..1, got values from -1 to 0.5"),
        (torch.full((1, 3, 4, 4), float("nan")), "from nan to nan"),
        (torch.zeros(1, 1, 4, 4), r"\(1, 1, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "int64"),
    ],
)
def test_wrong_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        module_features("mine", nn.Flatten(), dims=48)(images)


def test_features_that_are_not_finite_are_counted():
    features = torch.zeros(4, 2)
    features[1, 0], features[3, 1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="2 of 4 feature vectors"):
        checked_features(features)
