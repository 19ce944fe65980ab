"""Resumable downloads with checksums, safe unpacking of archives, and the official Google Maps archive."""

import http.client
import lzma
import posixpath
import shutil
import ssl
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, Any, Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mixgan import __version__
from mixgan.data.domains import MAPS_URL, count_pairs, find_maps
from mixgan.engine.progress import Progress
from mixgan.engine.run_folder import file_sha256

MAPS_PAIRS = {"train": 1096, "val": 1098}

_NETWORK_ERRORS = (URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_RETRIED_CODES = (408, 429)  # and every 5xx

#: Limits of ``extract``: images hardly compress, so that an archive that grows by more than this is not a data set.
MAX_FILE_BYTES = 1 << 28
MAX_GROWTH, MIN_TOTAL_BYTES = 10, 1 << 26


def download(url: str, destination: Path, *, sha256: str | None = None, attempts: int = 4, pause: float = 1.0) -> Path:
    """Fetch ``url`` to the file ``destination`` and print its sha256; an existing file is not fetched again.

    An interrupted download is kept in ``<destination>.part`` and resumed by HTTP Range, also by a later call; it starts over
    where the server does not support ranges.

    Args:
        url: http or https address.
        destination: file to write; its folder is created.
        sha256: expected digest in hexadecimal, or None to accept any.
        attempts: consecutive failures without new data after which the download is given up.
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
            raise ValueError(f"{url} has {wrong}: the downloaded file was deleted")
        if not finished:
            part.replace(destination)
    except OSError as error:
        raise ValueError(f"cannot read or write {str(destination)!r}: {error}") from error
    print(f"{destination}  sha256 {digest}")
    return destination


def extract(
    archive: Path, folder: Path, *, max_file_bytes: int = MAX_FILE_BYTES, max_total_bytes: int | None = None
) -> Path:
    """Unpack a zip or tar archive (gz, bz2, xz) into ``folder``; if any member is unsafe, nothing is written.

    No name may be absolute or contain ``..``; devices and pipes are refused. A link becomes a copy of the archive's file that
    it points to; one that points anywhere else is refused. Owners, modes and times are not taken over.

    Args:
        max_file_bytes: limit of a single unpacked file.
        max_total_bytes: limit of all files together; default ten times the archive's size, and at least 64 MiB.

    Raises:
        ValueError: an unsafe member or one over a limit (named), a damaged archive, or a folder that cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        limits = max_file_bytes, max_total_bytes or max(MIN_TOTAL_BYTES, MAX_GROWTH * archive.stat().st_size)
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                _write(_checked((_tar_member(tar, info) for info in tar), archive, folder, limits), folder)
        elif zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = (_zip_member(opened, info) for info in opened.infolist())
                _write(_checked(members, archive, folder, limits), folder)
        else:
            raise ValueError(f"{str(archive)!r} is neither a zip nor a tar archive")
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(
            f"could not unpack {str(archive)!r} into {str(folder)!r} ({error}); if the archive is damaged, delete it and"
            " fetch it again"
        ) from error
    return folder


def download_maps(data_root: Path, *, url: str = MAPS_URL) -> Path:
    """Fetch and unpack the official Google Maps pairs and check that they are complete; a complete set is not fetched again.

    Returns:
        The folder ``data_root/maps``. The archive stays beside it and may be deleted.

    Raises:
        ValueError: there are other files in ``data_root/maps``, the download failed, or the archive is not 1096 and 1098 pairs.
    """
    data_root = Path(data_root)
    target, aside = data_root / "maps", data_root / ".maps-unpacking"
    present = find_maps(data_root)
    if present is not None:
        if count_pairs(present) != MAPS_PAIRS:
            raise ValueError(
                f"{str(present)!r} contains {_in_words(count_pairs(present))}, not the official {_in_words(MAPS_PAIRS)}: move"
                " it away to download them, or omit --download to use it as it is"
            )
        print(f"Google Maps are in {present}: {_in_words(MAPS_PAIRS)}")
        return present
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{str(target)!r} contains no maps but something else: move it away to download Google Maps")
    archive = download(url, data_root / "maps.tar.gz")
    # Unpacked elsewhere and moved when complete, so that an interruption never leaves half a data set in place.
    shutil.rmtree(aside, ignore_errors=True)
    unpacked = find_maps(extract(archive, aside))
    pairs = count_pairs(unpacked) if unpacked else dict.fromkeys(MAPS_PAIRS, 0)
    if unpacked is not None and pairs == MAPS_PAIRS:
        if target.exists():
            target.rmdir()  # empty, as checked above; Windows does not rename onto a folder
        unpacked.rename(target)
    shutil.rmtree(aside)
    if pairs != MAPS_PAIRS:
        raise ValueError(
            f"{str(archive)!r} (from {url}) contains {_in_words(pairs)} instead of {_in_words(MAPS_PAIRS)}: delete it and retry"
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
                code = error.code if isinstance(error, HTTPError) else None
                if failures >= attempts or (code is not None and code < 500 and code not in _RETRIED_CODES):
                    reason = error.reason if isinstance(error, URLError) else error
                    raise ValueError(
                        f"could not download {url} ({reason if code is None else f'HTTP {code} {reason}'}): try again, or"
                        f" fetch it by hand and put it at {str(destination)!r}"
                    ) from error
                time.sleep(pause * 2 ** (failures - 1))


def _fetch(url: str, part: Path, show: Callable[..., None]) -> None:
    """Request what is missing from ``part``; returns when the file is complete, else raises a network error."""
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


class _Member(NamedTuple):
    """One entry of an archive of either format; ``target`` is the path inside the archive that a link points to."""

    name: str
    kind: Literal["file", "folder", "link", "special"]
    target: str
    size: int
    open: Callable[[], IO[bytes] | None]


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kind: Any = "file" if info.isreg() else "folder" if info.isdir() else "link"
    kind = kind if kind != "link" or info.issym() or info.islnk() else "special"
    base = posixpath.dirname(info.name) if info.issym() else ""  # hard links name their target from the top
    return _Member(info.name, kind, posixpath.join(base, info.linkname), info.size, lambda: tar.extractfile(info))


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode, target = info.external_attr >> 16, ""
    kind: Any = "folder" if info.is_dir() else "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "special"
    if kind == "special" and stat.S_ISLNK(mode):
        with archive.open(info) as file:  # no more than a path can have: limits are checked later
            kind, target = "link", file.read(4096).decode(errors="replace")
    base = posixpath.dirname(info.filename)
    return _Member(info.filename, kind, posixpath.join(base, target), info.file_size, lambda: archive.open(info))


def _checked(
    members: Iterable[_Member], archive: Path, folder: Path, limits: tuple[int, int]
) -> list[tuple[str, _Member]]:
    """The names to write and the members that hold their contents; ValueError for one that is not safe to unpack."""

    def unsafe(member: _Member, why: str) -> ValueError:
        return ValueError(f"{str(archive)!r} is unsafe: its member {member.name!r} {why}")

    def within(members: Iterable[_Member]) -> Iterator[_Member]:
        """The same members, an error at the first that is over a limit, before a tar archive is read on behind it."""
        total = 0
        for member in members:
            total += member.size
            if member.size > limits[0]:
                raise unsafe(member, f"has {member.size:,} bytes, more than the limit of {limits[0]:,} for one file")
            if total > limits[1]:
                raise unsafe(member, f"makes {total:,} bytes in all, more than the limit of {limits[1]:,}")
            yield member

    listed = list(within(members))
    files = {posixpath.normpath(member.name): member for member in listed if member.kind == "file"}
    chosen = []
    for member in listed:
        source = files.get(posixpath.normpath(member.target)) if member.kind == "link" else member
        if not _stays_inside(member.name, folder):
            raise unsafe(member, "would be written outside the folder")
        if member.kind == "special":
            raise unsafe(member, "is a device or a pipe")
        if source is None:
            raise unsafe(member, f"is a link to {member.target!r}, which is not a file of the archive")
        chosen.append((member.name, source))
    list(within(source for _, source in chosen))  # again: every link has become a copy
    return chosen


def _write(chosen: list[tuple[str, _Member]], folder: Path) -> None:
    for name, member in chosen:
        place = folder / name
        (place if member.kind == "folder" else place.parent).mkdir(parents=True, exist_ok=True)
        if member.kind == "file" and (content := member.open()):
            with content, place.open("wb") as file:
                shutil.copyfileobj(content, file)


def _stays_inside(name: str, folder: Path) -> bool:
    path = PureWindowsPath(name)  # knows / and \\ and drive letters, so that the answer is the same on every system
    if path.drive or path.root or ".." in path.parts:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve())  # the folder may already contain a link
