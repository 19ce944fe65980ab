"""Hostile files: pictures, archives, statistics, weights and settings from elsewhere, and the commands that read them."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from setups import Case, Result, judged, pictures, pixels, spread, trained
from zygote import run

from mixgan.data.download import extract
from mixgan.data.images import read_image
from mixgan.engine.command import run_command

SIZE = (64, 32)


class Hostile(NamedTuple):
    """A file to read: what it is called, how it is made, and whether it must be refused (None: either)."""

    name: str | bytes
    make: Callable[[Path], object]
    refused: bool | None = True


# ---- Pictures.


def encoded(form: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """A good picture as a file's content."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(0)).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes | None = None) -> bytes:
    """A PNG file by hand, with any size in its header."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"\0" * 4000 if rows is None else rows
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep(channels: int) -> bytes:
    """The good picture, or its red channel as gray, with 16 bits a channel."""
    values = pixels(0).astype(">u2") * 257
    values = values if channels == 3 else values[:, :, :1]
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return png(*SIZE, depth=16, colour=2 if channels == 3 else 0, rows=rows)


def with_text(path: Path) -> None:
    """A good PNG with 1.5 MB of compressed text."""
    data = encoded()
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 1_500_000)
    path.write_bytes(data[:-12] + chunk(b"iTXt", text) + data[-12:])


def exif(orientation: int) -> bytes:
    """A JPEG file that says how to turn it; the number may be nonsense."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encoded("JPEG", quality=100, subsampling=0, exif=tags.tobytes())


def saved(array: Any, form: str = "TIFF") -> Callable[[Path], object]:
    """Pixels of a rare type as a file."""
    return lambda path: Image.fromarray(array).save(path, form)


def put(data: bytes) -> Callable[[Path], object]:
    """A file with this content."""
    return lambda path: path.write_bytes(data)


def linked(path: Path) -> None:
    """A link to a picture in a hidden file."""
    path.with_name(".good").write_bytes(encoded())
    path.symlink_to(".good")


GRAY = pixels(0)[:, :, 0]
PICTURES = {
    "zero bytes": Hostile("x.png", put(b"")),
    "one byte": Hostile("x.png", put(b"\x89")),
    "a text": Hostile("x.jpg", put(b"<html>404 not found</html>")),
    "a ZIP file": Hostile("x.png", put(b"PK\3\4" + bytes(100))),
    "PNG cut in its header": Hostile("x.png", put(encoded()[:20])),
    "PNG cut in half": Hostile("x.png", put(encoded()[: len(encoded()) // 2])),
    "JPEG cut in half": Hostile("x.jpg", put(encoded("JPEG")[: len(encoded("JPEG")) // 2])),
    "JPEG cut in its header": Hostile("x.jpg", put(encoded("JPEG")[:100])),
    "WebP cut in half": Hostile("x.webp", put(encoded("WEBP")[:200])),
    "TIFF cut in half": Hostile("x.tif", put(encoded("TIFF")[:3000])),
    "GIF cut in half": Hostile("x.gif", put(encoded("GIF")[:900]), None),
    "BMP cut in half": Hostile("x.bmp", put(encoded("BMP")[:3000])),
    "PPM without pixels": Hostile("x.ppm", put(b"P6 64 32 255\n")),
    "PPM of negative size": Hostile("x.ppm", put(b"P6 -64 32 255\n" + bytes(6144))),
    "PNG with a wrong checksum": Hostile("x.png", put(encoded()[:29] + b"\0\0\0\0" + encoded()[33:])),
    "PNG with broken data": Hostile("x.png", put(encoded()[:60] + bytes(40) + encoded()[100:])),
    "PNG of 100000 x 100000 pixels": Hostile("x.png", put(png(100_000, 100_000))),
    "PNG of 2**31 x 2**31 pixels": Hostile("x.png", put(png(2**31 - 1, 2**31 - 1))),
    "PNG of 13000 x 13000 pixels, cut": Hostile("x.png", put(png(13_000, 13_000))),
    "PNG without pixels": Hostile("x.png", put(png(0, 0))),
    "PNG of one bit, unpacked large": Hostile("x.png", put(png(1500, 1500, depth=1, colour=0, rows=bytes(189 * 1500))), None),
    "PNG with 1.5 MB of text": Hostile("x.png", with_text, None),
    "TIFF whose directory is a loop": Hostile("x.tif", put(b"II*\0\x08\0\0\0\0\0\x08\0\0\0" * 4)),
    "TIFF with float pixels": Hostile("x.tif", saved(GRAY.astype(np.float32))),
    "TIFF with large 32-bit integers": Hostile("x.tif", saved(GRAY.astype(np.int32) * 70_000)),
    "a FIFO": Hostile("x.png", os.mkfifo),
    "a folder called x.png": Hostile("x.png", Path.mkdir, None),
    "a link to itself": Hostile("x.png", lambda path: path.symlink_to(path.name)),
    "a link to nothing": Hostile("x.png", lambda path: path.symlink_to("gone.png")),
    "a link to a device": Hostile("x.png", lambda path: path.symlink_to("/dev/zero")),
    "a link to the folder above": Hostile("x.png", lambda path: path.symlink_to(".."), None),
    "1 x 1 pixels": Hostile("x.png", lambda path: Image.new("RGB", (1, 1)).save(path), None),
    "1 x 3000 pixels": Hostile("x.png", lambda path: Image.new("RGB", (1, 3000)).save(path), None),
}  # fmt: skip
#: Rare but right files, with the pixels that they must be read as: of the good picture, or of its gray.
RIGHT = {
    "JPEG called PNG": Hostile("x.png", put(encoded("JPEG", quality=100, subsampling=0)), False),
    "PNG with a name in capitals": Hostile("X.PNG", put(encoded()), False),
    "16-bit colours": Hostile("x.png", put(deep(3)), False),
    "16-bit gray": Hostile("x.png", put(deep(1)), False),
    "16-bit gray TIFF": Hostile("x.tif", saved(GRAY.astype(np.uint16) * 257), False),
    # Of 8 bits where images are; a GAN, which keeps their depth, asks for their range.
    "32-bit integers up to 255": Hostile("x.tif", saved(GRAY.astype(np.int32)), None),
    "EXIF: upright": Hostile("x.jpg", put(exif(1)), False),
    "EXIF: nonsense": Hostile("x.jpg", put(exif(77)), False),
    "gray": Hostile("x.png", put(encoded(mode="L")), False),
    "RGBA": Hostile("x.png", put(encoded(mode="RGBA")), False),
    "CMYK JPEG": Hostile("x.jpg", put(encoded("JPEG", "CMYK", quality=100)), False),
    "TIFF": Hostile("x.tif", put(encoded("TIFF")), False),
    "BMP": Hostile("x.bmp", put(encoded("BMP")), False),
    "lossless WebP": Hostile("x.webp", put(encoded("WEBP", lossless=True)), False),
    "a broken colour profile": Hostile("x.png", put(encoded(icc_profile=b"nonsense")), False),
    "a name that is not UTF-8": Hostile(b"caf\xe9.png", put(encoded()), False),
    "a name of 255 bytes": Hostile("x" * 251 + ".png", put(encoded()), False),
    "a name with markup": Hostile("[bold]x[red] $(x) %s.png", put(encoded()), False),
    "a name with a line break": Hostile("a\nb.png", put(encoded()), False),
    "a name like a flag": Hostile("--x.png", put(encoded()), False),
    "a link to a picture": Hostile("x.png", linked, False),
}  # fmt: skip


#: Commands that read pictures, with a folder for the picture among good ones; flags to leave bad ones out.
COMMANDS = {
    "translate": ("in", "translate {run} in out --threads 1", 2),
    "fid": ("in", "fid {good} in --features bundled --threads 1 --bootstrap 0 --no-use-cache", 3),
    "classify": (
        "data/imagefolder/train/cat",
        "classify --dataset imagefolder --data-root data --image-size 32 --network lenet --batch-size 2 --epochs 1 --threads 1"
        " --output-dir out --method erm",
        3,
    ),
    "train-gan": (
        "data/maps/train",
        "train-gan --dataset maps --data-root data --image-size 32 --width 4 --blocks 1 --batch-size 1 --epochs 1 --threads 1"
        " --output-dir out --features bundled",
        1,
    ),
}


def picture(command: str, hostile: Hostile, skip: bool, work: Path, folder: Path) -> Result:
    """A command finds the picture among good ones."""
    place, words, good = COMMANDS[command]
    if command == "classify":
        for other in ("train/dog", "test/cat", "test/dog"):
            pictures(folder / "data/imagefolder" / other, 2)
    if command == "train-gan":
        pictures(folder / "data/maps/val", 2)
    hostile.make(pictures(folder / place, good) / os.fsdecode(hostile.name))
    argv = words.format(run=trained("train-gan", work), good=work / "pictures").split()
    outcome = run([*argv, *(["--on-bad-image", "skip"] if skip else [])], folder=folder)
    return judged(outcome, names=[os.fsdecode(hostile.name)], refused=None if skip else hostile.refused)


def right_pixels(hostile: Hostile, folder: Path) -> Result:
    """A rare but right picture is read as the good picture or, where it has no colours, as its gray."""

    def read(argv: Sequence[str]) -> None:
        found = read_image(folder / os.fsdecode(hostile.name)).permute(1, 2, 0).numpy().astype(int)
        gray = np.asarray(Image.fromarray(pixels(0)).convert("L"))
        wanted = [pixels(0), np.stack([gray] * 3, 2), np.stack([GRAY] * 3, 2)]
        print(min(np.abs(found - one).mean() for one in wanted))

    hostile.make(folder / os.fsdecode(hostile.name))
    outcome = run([], folder=folder, command=read)
    lossy = os.fsdecode(hostile.name).endswith("jpg") or (
        hostile.name == "x.png" and hostile is RIGHT["JPEG called PNG"]
    )
    if outcome.code != 0:
        return judged(outcome, refused=False)
    return Result("equal" if float(outcome.text) <= (4 if lossy else 0) else "differing", outcome.text)


# ---- Archives.


def tar(*members: tuple[str, bytes | None, dict[str, Any]], mode: str = "w") -> Callable[[Path], object]:
    """A tar archive of (name, content, attributes of the entry)."""

    def make(path: Path) -> None:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for name, data, attributes in members:
                info = tarfile.TarInfo(name)
                info.size = len(data or b"")
                for key, value in attributes.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(data or b""))

    return make


def zipped(name: str, data: bytes = b"x", mode: int = 0o100644) -> Callable[[Path], object]:
    """A zip archive of one file."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)

    return make


def cut(make: Callable[[Path], object], share: float) -> Callable[[Path], object]:
    """The same file, cut."""

    def shorter(path: Path) -> None:
        make(path)
        os.truncate(path, int(path.stat().st_size * share))

    return shorter


LINK = {"type": tarfile.SYMTYPE, "linkname": "a"}
NOISE = np.random.default_rng(0).bytes(30_000)
ARCHIVES = {
    "zero bytes": Hostile("x.tar.gz", put(b"")),
    "a text": Hostile("x.zip", put(b"<html>404</html>")),
    "a good archive": Hostile("x.tar", tar(("a/b.txt", b"x", {})), False),
    "tar: above the folder": Hostile("x.tar", tar(("../evil", b"x", {}))),
    "tar: an absolute name": Hostile("x.tar", tar(("/tmp/evil", b"x", {}))),
    "tar: a FIFO": Hostile("x.tar", tar(("a", None, {"type": tarfile.FIFOTYPE}))),
    "tar: a device": Hostile("x.tar", tar(("a", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}))),
    "tar: a link to itself": Hostile("x.tar", tar(("a", None, LINK))),
    "tar: a link outside": Hostile("x.tar", tar(("a", None, LINK | {"linkname": "/etc/passwd"}))),
    "tar: through a link": Hostile("x.tar", tar(("d", None, LINK | {"linkname": "/tmp"}), ("d/evil", b"x", {}))),
    "tar: cut": Hostile("x.tar.gz", cut(tar(("a", NOISE, {}), mode="w:gz"), 0.5)),
    "tar: cut at the end": Hostile("x.tar", cut(tar(("a", NOISE, {})), 0.5)),
    "tar: 300 MB of zeros": Hostile("x.tar.gz", tar(("a", bytes(300 << 20), {}), mode="w:gz")),
    "tar: an empty name": Hostile("x.tar", tar(("", b"x", {})), None),
    "tar: a name that is not UTF-8": Hostile("x.tar", tar(("caf\udce9", b"x", {})), None),
    "tar: a name of 300 bytes": Hostile("x.tar", tar(("x" * 300, b"x", {}))),
    "tar: a file where a folder is": Hostile("x.tar", tar(("a", b"x", {}), ("a/b", b"x", {}))),
    "gz: not a tar archive": Hostile("x.tar.gz", put(gzip.compress(b"x" * 5000))),
    "zip: above the folder": Hostile("x.zip", zipped("../evil")),
    "zip: an absolute name": Hostile("x.zip", zipped("/tmp/evil")),
    "zip: a drive": Hostile("x.zip", zipped("C:\\evil")),
    "zip: a link outside": Hostile("x.zip", zipped("a", b"/etc/passwd", 0o120777)),
    "zip: cut": Hostile("x.zip", cut(zipped("a", NOISE), 0.5)),
    "zip: 300 MB of zeros": Hostile("x.zip", zipped("a", bytes(300 << 20))),
    "zip: broken data": Hostile("x.zip", lambda path: (zipped("a", NOISE)(path), flip(path))),
}


def flip(path: Path) -> object:
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    return path.write_bytes(data)


def archive(hostile: Hostile, folder: Path) -> Result:
    """Unpack it; nothing may be written elsewhere, and nothing at all of what is refused for its members."""
    path = folder / os.fsdecode(hostile.name)
    hostile.make(path)
    outcome = run(
        [], folder=folder, command=lambda argv: run_command(lambda _: print(extract(path, folder / "out")), argv)
    )
    escaped = [name for name in ("/tmp/evil", folder / "evil", folder.parent / "evil") if os.path.lexists(name)]
    if escaped:
        return Result("differing", f"wrote {escaped}")
    return judged(outcome, names=[path.name], refused=hostile.refused)


# ---- Statistics for fid.


def npz(**entries: Any) -> Callable[[Path], object]:
    """A file of arrays."""
    return lambda path: np.savez(path, **entries)


D = 64  # of the bundled features
STATISTICS = {
    "zero bytes": Hostile("x.npz", put(b"")),
    "a text": Hostile("x.npz", put(b"hello")),
    "an npy file": Hostile("x.npz", lambda path: np.save(path.open("wb"), np.zeros(3))),
    "cut": Hostile("x.npz", cut(npz(mu=np.zeros(D), sigma=np.eye(D)), 0.5)),
    "a flipped byte": Hostile("x.npz", lambda path: (npz(mu=np.zeros(D), sigma=np.eye(D))(path), flip(path))),
    "other keys": Hostile("x.npz", npz(m=np.zeros(D), s=np.eye(D))),
    "no sigma": Hostile("x.npz", npz(mu=np.zeros(D))),
    "no entries": Hostile("x.npz", npz()),
    "objects": Hostile("x.npz", npz(mu=np.array([{}], dtype=object), sigma=np.eye(D))),
    "texts": Hostile("x.npz", npz(mu=np.array(["a"] * D), sigma=np.eye(D))),
    "complex numbers": Hostile("x.npz", npz(mu=np.zeros(D, complex), sigma=np.eye(D))),
    "NaN": Hostile("x.npz", npz(mu=np.full(D, np.nan), sigma=np.eye(D))),
    "infinity": Hostile("x.npz", npz(mu=np.zeros(D), sigma=np.full((D, D), np.inf))),
    "other lengths": Hostile("x.npz", npz(mu=np.zeros(D), sigma=np.eye(D + 1))),
    "not square": Hostile("x.npz", npz(mu=np.zeros(D), sigma=np.zeros((D, 2)))),
    "a mean without axes": Hostile("x.npz", npz(mu=np.float64(0), sigma=np.eye(D))),
    "of length 0": Hostile("x.npz", npz(mu=np.zeros(0), sigma=np.zeros((0, 0)))),
    "other features": Hostile("x.npz", npz(mu=np.zeros(2048), sigma=np.eye(2048))),
    "negative variances": Hostile("x.npz", npz(mu=np.zeros(D), sigma=-np.eye(D)), None),
    "not symmetric": Hostile("x.npz", npz(mu=np.zeros(D), sigma=np.triu(np.ones((D, D)))), None),
    "a negative number of images": Hostile("x.npz", npz(mu=np.zeros(D), sigma=np.eye(D), n=-5)),
    "a FIFO": Hostile("x.npz", os.mkfifo),
}


def statistics(hostile: Hostile, work: Path, folder: Path) -> Result:
    """fid with the file in place of a folder."""
    hostile.make(folder / os.fsdecode(hostile.name))
    words = f"fid x.npz {work}/pictures --features bundled --threads 1 --bootstrap 0 --no-use-cache"
    return judged(run(words.split(), folder=folder), names=["x.npz"], refused=hostile.refused)


# ---- Weights and settings.


def weights(source: Path, change: Callable[[dict[str, Any], dict[str, str]], object]) -> Callable[[Path], object]:
    """A weights file with other tensors or metadata."""

    def make(path: Path) -> None:
        tensors = load_file(source)
        with safe_open(source, framework="pt") as file:
            metadata = dict(file.metadata())
        change(tensors, metadata)
        save_file(tensors, path, metadata={key: value for key, value in metadata.items() if value is not None})

    return make


def described(text: str | None) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    """Other metadata."""
    return lambda tensors, metadata: metadata.update(mixgan=text)


def every_tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    """Other tensors."""
    return lambda tensors, metadata: tensors.update({key: change(value).contiguous() for key, value in tensors.items()})


def not_a_number(tensor: torch.Tensor) -> torch.Tensor:
    """NaN where the type has it."""
    return tensor * torch.nan if tensor.is_floating_point() else tensor


def header(data: bytes, *, length: int | None = None) -> Callable[[Path], object]:
    """A safetensors file with this header."""
    return put(struct.pack("<Q", len(data) if length is None else length) + data)


def weight_files(source: Path) -> Iterator[tuple[str, Hostile]]:
    """What is wrong, and the file."""
    whole = source.read_bytes()
    yield from {
        "zero bytes": Hostile("x.safetensors", put(b"")),
        "cut": Hostile("x.safetensors", put(whole[: len(whole) // 2])),
        "a pickle": Hostile("x.safetensors", lambda path: torch.save({"a": torch.ones(1)}, path)),
        "a header of 2**60 bytes": Hostile("x.safetensors", header(b"{}", length=2**60)),
        "a header that is not JSON": Hostile("x.safetensors", header(b"{{{")),
        "a header that is a list": Hostile("x.safetensors", header(b"[1]")),
        "no tensors": Hostile("x.safetensors", header(b"{}")),
        "a header nested too deep": Hostile("x.safetensors", header(b"[" * 100_000)),
        "a tensor beyond the end": Hostile(
            "x.safetensors", header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')
        ),
        "a FIFO": Hostile("x.safetensors", os.mkfifo),
        "whole numbers": Hostile("x.safetensors", weights(source, every_tensor(lambda tensor: tensor.to(torch.int64)))),
        "NaN": Hostile(
            "x.safetensors", weights(source, every_tensor(lambda tensor: (tensor.float() * torch.nan).to(tensor.dtype)))
        ),
        "other shapes": Hostile("x.safetensors", weights(source, every_tensor(lambda tensor: tensor[None]))),
        "other names": Hostile(
            "x.safetensors",
            weights(source, lambda tensors, _: [tensors.update({f"x{k}": tensors.pop(k)}) for k in [*tensors]]),
        ),
        "a tensor missing": Hostile("x.safetensors", weights(source, lambda tensors, _: tensors.popitem())),
        "a tensor too many": Hostile(
            "x.safetensors", weights(source, lambda tensors, _: tensors.update(z=torch.ones(1)))
        ),
    }.items()
    texts = [
        "{",
        "[]",
        "3",
        "null",
        '"x"',
        "{}",
        "[" * 100_000,
        '{"role": 3, "network": 3}',
        '{"role": null, "direction": 5}',
    ]
    texts += [
        '{"network": "nope", "num_classes": "ten", "direction": "up"}',
        '{"num_classes": -1, "image_size": [], "mean": 3}',
    ]
    for text in texts:
        yield f"metadata {text[:60]}", Hostile("x.safetensors", weights(source, described(text)), None)


USERS = {
    "translate": ("train-gan", "G_A", "translate x.safetensors {work}/pictures out --threads 1"),
    "fine-tune": (
        "classify",
        "network",
        "classify --finetune-from x.safetensors --dataset tiles --image-size 32 --train-count 16 --batch-size 4 --epochs 1"
        " --threads 1 --output-dir out --dry-run --allow-data-change",
    ),
    "fid": (
        "classify",
        "network",
        "fid {work}/pictures {work}/pictures --features x.safetensors --threads 1 --bootstrap 0 --no-use-cache",
    ),
}


def weights_of_others(user: str, hostile: Hostile, work: Path, folder: Path) -> Result:
    """A command reads the weights."""
    hostile.make(folder / os.fsdecode(hostile.name))
    words = USERS[user][2].format(work=work).split()
    # What a GAN's metadata says is not needed, what a classifier's says is.
    refused = True if hostile.refused or user != "translate" else None
    return judged(run(words, folder=folder), names=["x.safetensors"], refused=refused)


SETTINGS = {
    "a list": b"- a\n- b\n", "a number": b"3", "a text": b"hello", "empty": b"", "a colon too many": b"a: b: c",
    "tabs": b"a:\n\t- b", "not UTF-8": b"lr: \xff\xfe", "a NUL": b"lr: \0", "an unknown name": b"learning_rate: 1",
    "a wrong type": b"lr: [1, 2]", "a text for a number": b"lr: fast", "NaN": b"lr: .nan", "infinity": b"lr: .inf",
    "out of range": b"lr: -1", "true for a number": b"epochs: true", "a date": b"lr: 2020-01-01",
    "a choice of none": b"schedule: x",
    "a Python object": b"lr: !!python/object/apply:os.system [echo evil]", "an unknown anchor": b"lr: *nope",
    "an anchor in itself": b"lr: &a [*a]", "nested too deep": b"lr: " + b"[" * 20_000, "a number as name": b"1: 2",
    "a NUL in a path": b'data_root: "a\\0b"', "settings that are a list": b'{"settings": [1]}',
    "two documents": b"lr: 1\n---\nlr: 2",
    "a mixer that is a number": b"mixer: 3", "an option that is a list": b"mixer: {alpha: [1]}",
    "a billion laughs": b"\n".join([b"a: &a [x,x]"] + [b"%c: &%c [*%c,*%c]" % (c + 1, c + 1, c, c) for c in range(97, 121)]),
}  # fmt: skip


def settings(data: bytes, folder: Path) -> Result:
    """A --config file."""
    (folder / "x.yaml").write_bytes(data)
    words = f"{'classify'} --config x.yaml --dataset tiles --image-size 32 --train-count 8 --batch-size 4 --dry-run --threads 1"
    refused = None if data == b"" else True
    return judged(run(words.split(), folder=folder), names=["x.yaml", "--"], refused=refused)


def cases(work: Path, number: int | None) -> list[Case]:
    """All hostile files and the commands that read them."""
    pictures(work / "pictures")
    found = [Case(f"pixels: {what}", partial(right_pixels, hostile)) for what, hostile in RIGHT.items()]
    for command in COMMANDS:
        for what, hostile in (PICTURES | RIGHT).items():
            found.append(Case(f"{command}: {what}", partial(picture, command, hostile, False, work)))
            if hostile.refused and command in ("translate", "fid"):
                found.append(Case(f"{command}, skipping: {what}", partial(picture, command, hostile, True, work)))
    found += [Case(f"archive: {what}", partial(archive, hostile)) for what, hostile in ARCHIVES.items()]
    found += [Case(f"statistics: {what}", partial(statistics, hostile, work)) for what, hostile in STATISTICS.items()]
    trained("train-gan", work)
    for user, (name, network, _) in USERS.items():
        source = trained(name, work) / f"weights/last/{network}.safetensors"
        for what, hostile in weight_files(source):
            found.append(Case(f"weights, {user}: {what}", partial(weights_of_others, user, hostile, work)))
    found += [Case(f"settings: {what}", partial(settings, data)) for what, data in SETTINGS.items()]
    return spread(found, number)
