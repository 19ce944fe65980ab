"""Statistics files: exchanged with pytorch-fid's own reader and with files written the way it writes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import compute_statistics_of_path

from mixgan.evaluate.distances import frechet_distance, frechet_distance_from_features
from mixgan.evaluate.feature_set import FeatureStatistics, MadeWith, read_made_with, read_statistics, write_statistics


def features(n: int, dims: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()


def statistics(x: torch.Tensor) -> FeatureStatistics:
    result = FeatureStatistics(x.shape[1])
    result.update(x)
    return result


def save_as_pytorch_fid(path, x: torch.Tensor) -> None:
    """The last lines of its ``save_fid_stats`` and ``calculate_activation_statistics``."""
    np.savez_compressed(path, mu=np.mean(x.numpy(), axis=0), sigma=np.cov(x.numpy(), rowvar=False))


def test_round_trip_is_exact(tmp_path):
    written = statistics(features(30, 8, seed=0))
    about = MadeWith("inception", "6726825d", "resized to 256 x 256 px")
    write_statistics(tmp_path / "a.npz", written, about)
    read = read_statistics(tmp_path / "a.npz", dims=8)
    assert read.n == 30
    assert torch.equal(read.mean, written.mean)
    assert torch.equal(read.covariance, written.covariance)
    assert read_made_with(tmp_path / "a.npz") == about
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_pytorch_fid_reads_ours(tmp_path):
    x = features(30, 8, seed=0)
    write_statistics(tmp_path / "a.npz", statistics(x), MadeWith("inception", "6726825d", "none"))
    mean, covariance = compute_statistics_of_path(str(tmp_path / "a.npz"), None, 50, 8, "cpu")
    np.testing.assert_allclose(mean, x.numpy().mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-10)


@pytest.mark.parametrize(("n1", "n2"), [(200, 300), (10, 300), (300, 10), (12, 10)])
def test_pytorch_fids_files_give_the_distance_of_the_features(tmp_path, n1, n2):
    """The ranks have to be found out: the files do not tell the numbers of samples, here more or fewer than dimensions."""
    x1, x2 = features(n1, 16, seed=1), features(n2, 16, seed=2)
    for name, x in (("1", x1), ("2", x2)):
        save_as_pytorch_fid(tmp_path / f"{name}.npz", x)
    read1, read2 = (read_statistics(tmp_path / f"{name}.npz") for name in "12")
    assert read1.n is None
    assert read_made_with(tmp_path / "1.npz") == MadeWith()
    expected = pytest.approx(frechet_distance_from_features(x1, x2), rel=1e-9)
    assert frechet_distance(read1, read2) == expected
    assert frechet_distance(read1, statistics(x2)) == expected
    assert frechet_distance(statistics(x1), read2) == expected
    assert frechet_distance(read1, read1) == 0
    assert frechet_distance(read1, statistics(x1)) < 1e-25  # only the means' last bits differ


def test_statistics_without_a_number_of_samples_can_be_written_again(tmp_path):
    save_as_pytorch_fid(tmp_path / "theirs.npz", features(30, 8, seed=0))
    write_statistics(tmp_path / "ours.npz", read_statistics(tmp_path / "theirs.npz"))
    assert read_statistics(tmp_path / "ours.npz").n is None


def test_float32_files_are_read(tmp_path):
    x = features(10, 16, seed=0)  # of rank 9: rounding makes eigenvalues a little negative
    mean, covariance = x.mean(dim=0).float(), torch.cov(x.T).float()
    np.savez(tmp_path / "a.npz", mu=mean.numpy(), sigma=covariance.numpy())
    assert torch.linalg.eigvalsh(covariance.double()).min() < 0
    assert frechet_distance(read_statistics(tmp_path / "a.npz"), statistics(x)) == pytest.approx(
        0, abs=1e-4 * float(covariance.trace())
    )


EYE = np.eye(3)
WRONG = {
    "no entry 'sigma'": {"mu": np.zeros(3)},
    "no entry 'mu' and no entry 'sigma'": {"images": np.zeros(3)},
    r"got \(3,\) and \(4, 4\)": {"mu": np.zeros(3), "sigma": np.eye(4)},
    r"got \(3, 1\) and \(3, 3\)": {"mu": np.zeros((3, 1)), "sigma": EYE},
    "NaN or infinite": {"mu": np.array([0, 0, np.nan]), "sigma": EYE},
    "NaN or infinite values": {"mu": np.zeros(3), "sigma": np.full((3, 3), np.inf)},
    "not symmetric": {"mu": np.zeros(3), "sigma": EYE + np.triu(np.full((3, 3), 1e-3), 1)},
    "negative eigenvalues": {"mu": np.zeros(3), "sigma": EYE - 2e-1 * np.ones((3, 3)) * 2},
    "at least 2 samples, got n = 1": {"mu": np.zeros(3), "sigma": EYE, "n": 1},
    "got complex128": {"mu": np.zeros(3), "sigma": EYE * 1j},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_content_is_named_with_the_file(tmp_path, message):
    np.savez(tmp_path / "a.npz", **WRONG[message])
    with pytest.raises(ValueError, match=rf"a\.npz' .*{message}"):
        read_statistics(tmp_path / "a.npz")


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match=r"no statistics file at '.*a\.npz'"):
        read_statistics(path)
    path.write_text("mu sigma")
    with pytest.raises(ValueError, match=r"a\.npz' is not an \.npz file"):
        read_statistics(path)
    np.savez(path, mu=np.zeros(3, dtype=object), sigma=EYE)  # only pickle could read it
    with pytest.raises(ValueError, match=r"a\.npz' is damaged, or not a file of numbers"):
        read_statistics(path)
    save_as_pytorch_fid(path, features(30, 8, seed=0))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz' is damaged"):
        read_statistics(path)


def test_other_dimensions_are_named(tmp_path):
    write_statistics(tmp_path / "a.npz", statistics(features(30, 8, seed=0)))
    with pytest.raises(ValueError, match=r"a\.npz' has statistics of 8 dimensions, but the features .* have 64"):
        read_statistics(tmp_path / "a.npz", dims=64)


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    whole = statistics(features(30, 8, seed=0))
    with pytest.raises(ValueError, match=r"ends in \.npz, got 'a\.npy'"):
        write_statistics(Path("a.npy"), whole)
    with pytest.raises(ValueError, match=r"missing/a\.npz': No such file"):
        write_statistics(tmp_path / "missing" / "a.npz", whole)
    with pytest.raises(ValueError, match="at least 2 samples are needed, got 1"):
        write_statistics(tmp_path / "a.npz", statistics(features(1, 8, seed=0)))

    def full_disk(file, **entries):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    write_statistics(tmp_path / "a.npz", whole)
    before = (tmp_path / "a.npz").read_bytes()
    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(ValueError, match=r"a\.npz': No space left"):
        write_statistics(tmp_path / "a.npz", whole)
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
