"""Official archives are checked, unpacked beside everything else, and fetched once."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

import classify.data.official
from classify.data.official import Archive, locate


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive on a server that is a folder here."""
    served = tmp_path / "server" / "birds.zip"
    served.parent.mkdir()
    with zipfile.ZipFile(served, "w") as file:
        file.writestr("birds/list.txt", "one\n\n two\n")
        file.writestr("attributes.txt", "not in the set's folder")
    monkeypatch.setattr(classify.data.official, "download", lambda url, path: Path(shutil.copy(served, path)))
    return Archive("https://example.org/birds.zip", hashlib.md5(served.read_bytes()).hexdigest(), "birds")


def test_fetched_and_unpacked_once(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(ValueError, match=r"^birds not found: searched for '.*data/birds'; --download .*birds\.zip"):
        locate("birds", archive, root, fetch=False)
    assert locate("birds", archive, root, fetch=True) == root / "birds"
    assert sorted(path.name for path in root.iterdir()) == ["birds", "birds.zip"]
    assert (root / "birds" / "list.txt").read_text() == "one\n\n two\n"
    monkeypatch.setattr(classify.data.official, "download", lambda *_: pytest.fail("fetched again"))
    assert locate("birds", archive, root, fetch=True) == root / "birds"


def test_another_file_is_refused(archive: Archive, tmp_path: Path) -> None:
    wrong = Archive(archive.url, "0" * 32, archive.folder)
    with pytest.raises(ValueError, match=r"birds\.zip' is not the official archive \(md5 0{32}\): delete it"):
        locate("birds", wrong, tmp_path, fetch=True)
    assert not (tmp_path / "birds").exists()
