"""What each name of features gives, and that only a name may download."""

from unittest.mock import patch

import pytest
import torch
from pytorch_fid.inception import fid_inception_v3
from torchvision.models import Inception3

from mixgan.evaluate.features import FEATURE_NAMES, choose_features

NAME = "pt_inception-2015-12-05-6726825d.pth"


class Downloaded(Exception):
    pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache on a machine where a download is noticed."""

    def noticed(*_, **__):
        raise Downloaded

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", noticed)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write_weights(path):
    """All zeros, each tensor one number expanded to its shape: a file of a few hundred kB."""
    with (
        patch("pytorch_fid.inception.load_state_dict_from_url", return_value={}),
        patch.object(Inception3, "load_state_dict"),
        torch.device("meta"),
    ):
        state = fid_inception_v3().state_dict()
    torch.save({name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in state.items()}, path)
    return path


def test_auto_without_weights_is_bundled(hub):
    features = choose_features("auto")
    assert features.name == "bundled"
    assert features.note == (
        f"features: bundled, because the Inception weights are not on this machine (expected at {hub / NAME})"
    )


def test_auto_with_weights_is_inception(hub):
    path = write_weights(hub / NAME)
    features = choose_features("auto")
    assert features.name == "inception"
    assert features.note == f"features: inception, because the weights are on this machine ({path})"
    assert choose_features("auto", dims=192, fast=True).name == "inception-192-bf16"


def test_a_given_file_counts_as_on_this_machine(hub, tmp_path):
    path = write_weights(tmp_path / "mine.pth")
    features = choose_features("auto", weights=path, dims=64)
    assert (features.name, features.dims) == ("inception-64", 64)
    assert f"({path})" in features.note
    with pytest.raises(ValueError, match="missing: no file"):
        choose_features("auto", weights=tmp_path / "typo.pth")


def test_inception_by_name_downloads_only_what_is_missing(hub):
    with pytest.raises(Downloaded):
        choose_features("inception")
    write_weights(hub / NAME)
    assert choose_features("inception", dims=64).note == "features: inception-64, as asked for"


def test_bundled_by_name_stays_bundled(hub):
    (hub / NAME).touch()
    features = choose_features("bundled")
    assert (features.name, features.note) == ("bundled", "features: bundled, as asked for")


def test_unknown_names_are_told_the_known_ones():
    assert FEATURE_NAMES[:3] == ("auto", "bundled", "inception")
    with pytest.raises(ValueError, match="bundled, inception, dinov2, dinov2-b, clip and timm:NAME, got 'vgg'"):
        choose_features("vgg")
