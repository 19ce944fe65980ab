"""Fetching the official archive of a data set and unpacking it below the data root."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import check_integrity

from mixgan.data.download import download, extract


@dataclass(frozen=True)
class Archive:
    """Where a set comes from.

    Attributes:
        url: of the official archive.
        md5: its published digest.
        folder: what it unpacks to below the data root.
    """

    url: str
    md5: str
    folder: str


def locate(name: str, archive: Archive, root: Path, *, fetch: bool) -> Path:
    """The set's folder below the data root, fetched and unpacked first if it is missing and ``fetch`` is set.

    Raises:
        ValueError: it is missing, or could not be fetched.
    """
    folder = root / archive.folder
    if fetch and not folder.is_dir():
        _fetch(archive, root)
    if not folder.is_dir():
        raise ValueError(
            f"{name} is not there: looked for {str(folder)!r}; --download fetches it, or unpack {archive.url} in"
            f" {str(root)!r}, or name another place by --data-root"
        )
    return folder


def read_lines(name: str, path: Path) -> list[str]:
    """The lines of a list that comes with a set, without empty ones.

    Raises:
        ValueError: it is missing, empty, or no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{name} is incomplete or damaged: {str(path)!r} cannot be read ({error}); unpack it again"
        ) from error
    if not lines:
        raise ValueError(f"{name} is damaged: {str(path)!r} is empty; unpack it again")
    return lines


def damaged_line(name: str, path: Path, line: str) -> ValueError:
    """What to raise at a line that does not fit its list."""
    return ValueError(f"{name} is damaged: {str(path)!r} has the line {line!r}; unpack it again")


def _fetch(archive: Archive, root: Path) -> None:
    file = download(archive.url, root / archive.url.rsplit("/", 1)[1])
    if not check_integrity(file, archive.md5):
        raise ValueError(f"{str(file)!r} is not the official archive (md5 {archive.md5}): delete it to fetch it again")
    # Unpacked aside and moved when complete, so that a stop in the middle never leaves half a data set in place.
    aside = root / f".{archive.folder}-unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    extract(file, aside)
    (aside / archive.folder).rename(root / archive.folder)
    shutil.rmtree(aside)
