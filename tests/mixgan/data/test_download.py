import gzip
import hashlib
import io
import socket
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mixgan.data.download import download, download_maps, extract

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class LocalServer(ThreadingHTTPServer):
    """Serves ``content`` at every path; what goes wrong is set by the fields."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.knows_ranges = True
        self.cut_after: list[int] = []  # bytes of the body that the next answers bring before the connection dies
        self.status: list[int] = []  # error codes of the next answers
        self.shift_range = False
        self.ranges: list[str | None] = []  # Range header of every request
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.server.status:
            self.send_error(self.server.status.pop(0))
            return
        total, start = len(self.server.content), 0
        if asked and self.server.knows_ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            start -= 1 if self.server.shift_range else 0
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after.pop(0)] if self.server.cut_after else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[LocalServer]:
    server = LocalServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_once_and_its_digest_printed(server, tmp_path, capsys):
    target = tmp_path / "new" / "file.bin"
    assert download(server.url, target, sha256=DIGEST.upper()) == target
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]  # no partial file is left
    assert DIGEST in capsys.readouterr().out
    download(server.url, target)
    assert len(server.ranges) == 1
    assert DIGEST in capsys.readouterr().out


def test_a_partial_file_of_an_earlier_call_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_connections_cut_in_the_middle_are_taken_up_where_they_ended(server, tmp_path):
    server.cut_after = [100_000, 60_000, 70_000, 20_000]  # more failures than attempts, but each brings something new
    download(server.url, tmp_path / "file.bin", sha256=DIGEST, attempts=2, pause=0)
    assert server.ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.ranges[1:]]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= 100_000
    assert len(starts) == 4


def test_a_server_without_ranges_makes_it_start_over(server, tmp_path):
    server.knows_ranges = False
    server.cut_after = [200_000]
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    download(server.url, tmp_path / "file.bin", sha256=DIGEST, pause=0)
    assert len(server.ranges) == 2


def test_a_complete_partial_file_is_only_renamed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file.bin", sha256=DIGEST)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_does_not_fit_is_dropped(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "file.bin", sha256=DIGEST, pause=0)
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_an_answer_with_another_range_is_not_appended(server, tmp_path):
    server.shift_range = True
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    download(server.url, tmp_path / "file.bin", sha256=DIGEST, pause=0)
    assert server.ranges == ["bytes=1000-", None]


def test_a_busy_server_is_asked_again_and_a_missing_page_is_not(server, tmp_path):
    server.status = [503, 429]
    download(server.url, tmp_path / "file.bin", sha256=DIGEST, pause=0)
    server.status = [404, 404]
    with pytest.raises(ValueError, match="HTTP 404"):
        download(server.url, tmp_path / "other.bin", pause=0)
    assert len(server.ranges) == 4
    server.status = [503] * 10
    with pytest.raises(ValueError, match="HTTP 503"):
        download(server.url, tmp_path / "other.bin", attempts=3, pause=0)
    assert len(server.ranges) == 7


def test_a_wrong_digest_is_an_error_and_leaves_nothing(server, tmp_path):
    with pytest.raises(ValueError, match=f"sha256 {DIGEST} instead of 0000"):
        download(server.url, tmp_path / "file.bin", sha256="0000")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file.bin").write_bytes(b"something else")
    with pytest.raises(ValueError, match="delete it to fetch it again"):
        download(server.url, tmp_path / "file.bin", sha256=DIGEST)


def test_without_network_one_sentence_says_what_to_do(tmp_path):
    with socket.socket() as probe:  # a port that was free a moment ago: nobody answers
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/file.bin"
    with pytest.raises(ValueError, match="could not download") as caught:
        download(url, tmp_path / "file.bin", attempts=2, pause=0)
    assert url in str(caught.value)
    assert str(tmp_path / "file.bin") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot read or write .*file/file\.bin"):
        download(server.url, tmp_path / "file" / "file.bin")


def tar_of(path: Path, members: list[tarfile.TarInfo], mode: str = "w:gz") -> Path:
    """Every regular member holds its own name."""
    with tarfile.open(path, mode) as archive:
        for info in members:
            contents = info.name.encode() if info.isreg() else b""
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, points_to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, points_to
    return info


def zip_of(path: Path, members: list[tarfile.TarInfo]) -> Path:
    """The same members as a zip file, with Unix file types in the attributes as the zip command writes them."""
    types = {
        tarfile.REGTYPE: 0o100644,
        tarfile.SYMTYPE: 0o120777,
        tarfile.FIFOTYPE: 0o010644,
        tarfile.DIRTYPE: 0o040755,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for info in members:
            entry = zipfile.ZipInfo(info.name)
            entry.external_attr = types[info.type] << 16
            archive.writestr(entry, info.linkname if info.type == tarfile.SYMTYPE else info.name)
    return path


UNSAFE = {
    "absolute": member("/tmp/evil"),
    "climbs": member("maps/../../evil"),
    "windows": member("..\\evil"),
    "drive": member("C:\\evil"),
    "link out": member("maps/evil", tarfile.SYMTYPE, "../../evil"),
    "link to absolute": member("maps/evil", tarfile.SYMTYPE, "/etc/passwd"),
    "link to folder": member("maps/evil", tarfile.SYMTYPE, "."),
    "pipe": member("maps/evil", tarfile.FIFOTYPE),
}
TAR_ONLY = {
    "hard link out": member("maps/evil", tarfile.LNKTYPE, "../evil"),
    "device": member("maps/evil", tarfile.CHRTYPE),
}


@pytest.mark.parametrize(
    ("write", "kind"), [(tar_of, kind) for kind in UNSAFE | TAR_ONLY] + [(zip_of, kind) for kind in UNSAFE]
)
def test_an_unsafe_member_is_named_and_nothing_is_written(tmp_path, write, kind):
    bad = (UNSAFE | TAR_ONLY)[kind]
    archive = write(tmp_path / "archive", [member("maps/1.jpg"), bad])
    with pytest.raises(ValueError, match="is unsafe: its member") as caught:
        extract(archive, tmp_path / "a" / "folder")
    assert repr(bad.name) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("write", [tar_of, zip_of])
def test_a_link_that_lay_in_the_folder_does_not_lead_out_either(tmp_path, write):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "maps").symlink_to(outside)
    with pytest.raises(ValueError, match=r"'maps/1\.jpg' would be written outside"):
        extract(write(tmp_path / "archive", [member("maps/1.jpg")]), folder)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_unpack_with_links_inside_as_copies(tmp_path, mode):
    members = [
        member("./maps/", tarfile.DIRTYPE),
        member("maps/train/1.jpg"),
        member("maps/val/soft.jpg", tarfile.SYMTYPE, "../train/1.jpg"),
    ]
    if mode == "zip":
        archive = zip_of(tmp_path / "archive", members)
    else:
        hard = member("maps/val/hard.jpg", tarfile.LNKTYPE, "maps/train/1.jpg")
        archive = tar_of(tmp_path / "archive", [*members, hard], mode)
    folder = extract(archive, tmp_path / "folder")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert files.keys() >= {"maps/train/1.jpg", "maps/val/soft.jpg"}
    assert len(files) == (2 if mode == "zip" else 3)
    assert {path.read_bytes() for path in files.values()} == {b"maps/train/1.jpg"}
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in files.values())


def test_file_modes_of_the_archive_are_not_taken_over(tmp_path):
    info = member("run.sh")
    info.mode = 0o4777
    extract(tar_of(tmp_path / "archive", [info]), tmp_path)
    assert (tmp_path / "run.sh").stat().st_mode & 0o7111 == 0


def test_damaged_and_foreign_archives_are_one_sentence(tmp_path):
    (tmp_path / "page.tar.gz").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"page\.tar\.gz' is neither a zip nor a tar archive"):
        extract(tmp_path / "page.tar.gz", tmp_path)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        info = tarfile.TarInfo("file.bin")
        info.size = len(CONTENT)
        archive.addfile(info, io.BytesIO(CONTENT))
    packed = gzip.compress(plain.getvalue())
    (tmp_path / "cut.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"could not unpack .*cut\.tar\.gz'.*fetch it again"):
        extract(tmp_path / "cut.tar.gz", tmp_path)
    with pytest.raises(ValueError, match=r"could not unpack .*none\.zip"):
        extract(tmp_path / "none.zip", tmp_path)


def bomb(path: Path, size: int, count: int = 1) -> Path:
    """``count`` files of ``size`` zeros, which compress to almost nothing."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"{number}.png", bytes(size))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for number in range(count):
                info = tarfile.TarInfo(f"{number}.png")
                info.size = size
                archive.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_archives_over_a_size_limit_are_refused_and_nothing_is_written(tmp_path, name):
    archive = bomb(tmp_path / name, 40 << 20, 2)
    assert archive.stat().st_size < 1 << 20
    for limits, reason in (
        ({}, r"'1\.png' makes 83,886,080 bytes in all, more than the limit of 67,108,864"),
        ({"max_total_bytes": 100 << 20, "max_file_bytes": 1 << 20}, r"'0\.png' has 41,943,040 bytes, .* for one file"),
    ):
        with pytest.raises(ValueError, match=f"is unsafe: its member {reason}"):
            extract(archive, tmp_path / "folder", **limits)
        assert not (tmp_path / "folder").exists()
    assert len(list(extract(archive, tmp_path / "folder", max_total_bytes=100 << 20).iterdir())) == 2


def test_a_link_of_a_zip_archive_is_not_read_further_than_a_path_can_be(tmp_path):
    """64 MB of zeros in 64 KB: before any limit is checked, no more than 4,096 of them are in memory."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("link.jpg")
        entry.external_attr, entry.compress_type = 0o120777 << 16, zipfile.ZIP_DEFLATED
        archive.writestr(entry, bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"is unsafe: its member .link\.jpg"):
            extract(tmp_path / "bomb.zip", tmp_path / "folder")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", [tar_of, zip_of])
def test_links_count_as_the_copies_that_they_become(tmp_path, write):
    links = [member(f"{number}.jpg", tarfile.SYMTYPE, "x" * 30 + ".jpg") for number in range(20)]
    archive = write(tmp_path / "archive", [member("x" * 30 + ".jpg"), *links])
    with pytest.raises(ValueError, match="more than the limit of 600"):
        extract(archive, tmp_path / "folder", max_total_bytes=600)
    assert len(list(extract(archive, tmp_path / "folder", max_total_bytes=800).iterdir())) == 21


def maps_archive(train: int, val: int) -> bytes:
    """maps.tar.gz in the official layout; the counts go by file names, so the files may be empty."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for split, count in (("train", train), ("val", val)):
            for number in range(1, count + 1):
                archive.addfile(tarfile.TarInfo(f"maps/{split}/{number}.jpg"))
    return buffer.getvalue()


def test_download_maps_fetches_checks_and_then_leaves_it_alone(server, tmp_path, capsys):
    server.content = maps_archive(1096, 1098)
    server.cut_after = [len(server.content) // 2]
    folder = download_maps(tmp_path, url=server.url)
    assert folder == tmp_path / "maps"
    assert [len(list((folder / split).iterdir())) for split in ("train", "val")] == [1096, 1098]
    assert {path.name for path in tmp_path.iterdir()} == {"maps", "maps.tar.gz"}
    printed = capsys.readouterr().out
    assert hashlib.sha256(server.content).hexdigest() in printed
    assert "1096 training and 1098 validation pairs" in printed
    asked = len(server.ranges)
    assert download_maps(tmp_path, url=server.url) == folder
    assert len(server.ranges) == asked


def test_download_maps_refuses_an_incomplete_archive(server, tmp_path):
    server.content = maps_archive(1096, 3)
    with pytest.raises(ValueError, match="1096 training and 3 validation pairs instead of 1096 training and 1098"):
        download_maps(tmp_path, url=server.url)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.tar.gz"]


def test_download_maps_does_not_overwrite_what_is_there(server, tmp_path):
    other = tmp_path / "maps" / "train" / "1.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(ValueError, match="contains 1 training and 0 validation pairs, not the official 1096"):
        download_maps(tmp_path, url=server.url)
    other.rename(tmp_path / "maps" / "notes.txt")
    with pytest.raises(ValueError, match="contains no maps but something else"):
        download_maps(tmp_path, url=server.url)
    assert (tmp_path / "maps" / "notes.txt").read_bytes() == b"mine"
    assert server.ranges == []
