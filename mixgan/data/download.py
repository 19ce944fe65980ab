"""Fetching a file, unpacking it safely, and the official Google Maps archive by both."""

import hashlib
import http.client
import posixpath
import shutil
import ssl
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mixgan import __version__
from mixgan.data.domains import MAPS_URL, count_pairs, find_maps
from mixgan.engine.progress import Progress

MAPS_PAIRS = {"train": 1096, "val": 1098}

_NETWORK_ERRORS = (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_WORTH_ANOTHER_TRY = (408, 429)  # and every 5xx


def download(url: str, destination: Path, *, sha256: str | None = None, attempts: int = 4, pause: float = 1.0) -> Path:
    """Fetch ``url`` to the file ``destination`` and print its sha256.

    What has arrived lies in ``<destination>.part``; a later attempt, also of a later call, asks for the rest only (HTTP
    Range) and starts over where the server does not know ranges. A finished file is kept and not fetched again.

    Args:
        url: http or https address.
        destination: file to write; its folder is made.
        sha256: expected digest in hexadecimal, or None to accept any.
        attempts: how many failures in a row that bring nothing new end the download.
        pause: seconds before the second attempt, doubled before each further one.

    Raises:
        ValueError: the network failed (the message says where to put the file by hand), the digest differs, or the file
            cannot be written.
    """
    destination = Path(destination)
    part = destination.with_name(destination.name + ".part")
    try:
        finished = destination.exists()
        if not finished:
            destination.parent.mkdir(parents=True, exist_ok=True)
            _fetch_with_retries(url, part, destination, attempts=attempts, pause=pause)
        digest = file_sha256(destination if finished else part)
        if sha256 and digest != sha256.lower():
            wrong = f"sha256 {digest} instead of {sha256}"
            if finished:
                raise ValueError(f"{str(destination)!r} has {wrong}: delete it to fetch it again")
            part.unlink()
            raise ValueError(f"{url} has {wrong}: what was fetched has been deleted")
        if not finished:
            part.replace(destination)
    except OSError as error:
        raise ValueError(f"cannot read or write {str(destination)!r}: {error}") from error
    print(f"{destination}  sha256 {digest}")
    return destination


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file's contents."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extract(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar archive (gz, bz2, xz) into ``folder``; either every member is harmless or nothing is written.

    No name may be absolute or climb out by ``..``; devices and pipes are refused. Links are never made: a link becomes a copy
    of the file in the archive that it points to, and one that points anywhere else is refused. Only contents are taken,
    not owners or modes. ``tarfile``'s own filter would need Python 3.10.12, 3.11.4 or later, and zip files have none.

    Raises:
        ValueError: an unsafe member (named), a damaged archive, or a folder that cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                _write(_plan(_tar_members(opened), archive, folder), folder)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _write(_plan(_zip_members(opened), archive, folder), folder)
        else:
            raise ValueError(f"{str(archive)!r} is neither a zip nor a tar archive")
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"could not unpack {str(archive)!r} into {str(folder)!r} ({error}); a damaged archive has to be deleted and"
            " fetched again"
        ) from error
    return folder


def download_maps(data_root: Path, *, url: str = MAPS_URL) -> Path:
    """Fetch and unpack the official Google Maps pairs and check that all are there; a complete set is left as it is.

    Returns:
        The folder ``data_root/maps``. The archive stays beside it and may be deleted.

    Raises:
        ValueError: other maps are in the way, the download failed, or the archive does not hold 1096 and 1098 pairs.
    """
    data_root = Path(data_root)
    target, aside = data_root / "maps", data_root / ".maps-unpacking"
    present = find_maps(data_root)
    if present is not None:
        if count_pairs(present) != MAPS_PAIRS:
            raise ValueError(
                f"{str(present)!r} holds {_in_words(count_pairs(present))}, not the official {_in_words(MAPS_PAIRS)}: move it"
                " away to download them, or leave out --download to use it as it is"
            )
        print(f"Google Maps are in {present}: {_in_words(MAPS_PAIRS)}")
        return present
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{str(target)!r} holds no maps but something else: move it away to download Google Maps")
    archive = download(url, data_root / "maps.tar.gz")
    # Unpacked aside and moved when complete, so that a stop in the middle never leaves half a data set in place.
    shutil.rmtree(aside, ignore_errors=True)
    unpacked = find_maps(extract(archive, aside))
    pairs = count_pairs(unpacked) if unpacked else dict.fromkeys(MAPS_PAIRS, 0)
    if pairs == MAPS_PAIRS:
        if target.exists():
            target.rmdir()  # empty, as checked above; Windows does not rename onto a folder
        unpacked.rename(target)
    shutil.rmtree(aside)
    if pairs != MAPS_PAIRS:
        raise ValueError(
            f"{str(archive)!r} (from {url}) holds {_in_words(pairs)} instead of {_in_words(MAPS_PAIRS)}: delete it and try again"
        )
    print(f"Google Maps are in {target}: {_in_words(MAPS_PAIRS)}")
    return target


def _in_words(pairs: dict[str, int]) -> str:
    return f"{pairs['train']} training and {pairs['val']} validation pairs"


def _fetch_with_retries(url: str, part: Path, destination: Path, *, attempts: int, pause: float) -> None:
    most, failures = _size(part), 0
    with Progress(destination.name, total=None, unit="bytes", stderr=True) as bar:
        while True:
            try:
                return _fetch(url, part, bar.update)
            except _NETWORK_ERRORS as error:
                failures = 1 if _size(part) > most else failures + 1
                most = max(most, _size(part))
                if failures >= attempts or _is_final(error):
                    raise ValueError(
                        f"could not download {url} ({_why(error)}): try again, or fetch it by hand and put it at"
                        f" {str(destination)!r}"
                    ) from error
                time.sleep(pause * 2 ** (failures - 1))


def _fetch(url: str, part: Path, show: Callable[..., None]) -> None:
    """One request for what is missing from ``part``; returns when the file is complete, raises a network error if not."""
    start = _size(part)
    headers = {"User-Agent": f"mixgan/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=30)
    except HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # nothing is missing
        part.unlink()
        raise ConnectionError("the partial file does not belong to the file on the server") from error
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise ConnectionError("the server sent another range than the one asked for")
        length = response.headers.get("Content-Length")
        done = start if resumed else 0
        total = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(1 << 16):
                file.write(block)
                done += len(block)
                show(done, total=total)
    if total is not None and done < total:  # some Python versions end a cut response without an error
        raise ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_final(error: Exception) -> bool:
    return isinstance(error, HTTPError) and error.code < 500 and error.code not in _WORTH_ANOTHER_TRY


def _why(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(error.reason if isinstance(error, URLError) else error)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, whichever its format."""

    name: str
    kind: Literal["file", "folder", "link", "special"]
    points_to: str  # of a link: path inside the archive
    open: Callable[[], IO[bytes]]


def _tar_members(archive: tarfile.TarFile) -> list[_Member]:
    members = []
    for info in archive.getmembers():
        is_link = info.issym() or info.islnk()
        kind = "file" if info.isreg() else "folder" if info.isdir() else "link" if is_link else "special"
        base = posixpath.dirname(info.name) if info.issym() else ""  # hard links name their target from the top
        points_to = posixpath.join(base, info.linkname)
        members.append(_Member(info.name, kind, points_to, partial(archive.extractfile, info)))
    return members


def _zip_members(archive: zipfile.ZipFile) -> list[_Member]:
    members = []
    for info in archive.infolist():
        mode, points_to = info.external_attr >> 16, ""
        if info.is_dir():
            kind = "folder"
        elif stat.S_ISLNK(mode):
            kind, points_to = "link", posixpath.join(posixpath.dirname(info.filename), archive.read(info).decode())
        else:
            kind = "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "special"
        members.append(_Member(info.filename, kind, points_to, partial(archive.open, info)))
    return members


def _stays_inside(name: str, folder: Path) -> bool:
    path = PureWindowsPath(name)  # knows / and \ and drive letters, so that the answer is the same on every system
    if path.drive or path.root or ".." in path.parts:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())  # a link that lay in the folder before


def _plan(members: list[_Member], archive: Path, folder: Path) -> list[tuple[str, _Member]]:
    """Where to write which member; a link is replaced by the file that it points to.

    Raises:
        ValueError: a member that is not safe to unpack.
    """
    files = {posixpath.normpath(member.name): member for member in members if member.kind == "file"}
    plan = []
    for member in members:
        source = member
        if not _stays_inside(member.name, folder):
            raise ValueError(
                f"{str(archive)!r} is unsafe: its member {member.name!r} would be written outside the folder"
            )
        if member.kind == "special":
            raise ValueError(f"{str(archive)!r} is unsafe: its member {member.name!r} is a device or a pipe")
        if member.kind == "link":
            source = files.get(posixpath.normpath(member.points_to))
            if source is None:
                raise ValueError(
                    f"{str(archive)!r} is unsafe: its member {member.name!r} is a link to {member.points_to!r}, which is no"
                    " file of the archive"
                )
        plan.append((member.name, source))
    return plan


def _write(plan: list[tuple[str, _Member]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in plan:
        target = folder / name
        if source.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open() as contents, target.open("wb") as file:
            shutil.copyfileobj(contents, file, 1 << 20)
