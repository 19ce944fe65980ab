"""Faults outside the program: damaged JSON, full disks, no memory, killed workers. Oracle: the sentence that must be printed."""

import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import mixgan
from mixgan.data.images import BadImageError, read_image
from mixgan.engine.checkpoint import pointed
from mixgan.engine.command import run_command
from mixgan.engine.config import CommandLine, CommonSettings, check_same_settings, read_config
from mixgan.engine.run import Run
from mixgan.engine.run_folder import (
    MetricsLog,
    load_tensors,
    partial_file,
    read_metadata,
    read_metrics,
    write_picture,
    write_text,
)
from mixgan.evaluate.backbones import backbone_features, timm_features
from mixgan.evaluate.feature_set import read_statistics
from mixgan.evaluate.inception import inception_features
from mixgan.evaluate.sources import array_source
from mixgan.gan.weights import read_network


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "[]", r"config\.json is damaged: it must be an object of entries by name, got list"),
        ("config.json", '{"settings": {}}', r"config\.json is damaged: it has no recipe"),
        (
            "config.json",
            '{"recipe": "test", "settings": 3}',
            r"config\.json is damaged: settings takes options by name, got 3",
        ),
        (
            "config.json",
            '{"recipe": "test", "settings": {}, "data": {"train": 1}}',
            r"config\.json: data\.train is damaged",
        ),
        (
            "config.json",
            '{"recipe": "test", "settings": {}, "data": {"test": {"classes": "abc"}}}',
            r"config\.json: data\.test is damaged: classes must be a list, got 'abc'",
        ),
        (
            "config.json",
            '{"recipe": "test", "settings": {}, "threads": "all"}',
            "threads must be a whole number, got 'all'",
        ),
        ("metrics.jsonl", '{"step": 1}\n3\n{"step": 2}\n', r"metrics\.jsonl, line 2, is damaged: it must be an object"),
        ("metrics.jsonl", '{"step": 1}\n{"loss": 1}\n', r"metrics\.jsonl, line 2, is damaged: it has no step"),
        (
            "metrics.jsonl",
            '{"step":\n{"step": 2}\n',
            r"metrics\.jsonl is damaged: line 1 is not JSON; remove that line",
        ),
    ],
)
def test_json_of_another_form_is_named(tmp_path: Path, file: str, text: str, message: str):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path) if file == "config.json" else read_metrics(tmp_path / file)


def test_a_file_that_cannot_be_begun_is_named_as_the_user_knows_it():
    """Not as it is called while it is written."""
    with pytest.raises(OSError, match=r"^cannot write /proc/x\.html: "):
        write_text(Path("/proc/x.html"), "text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: " + "[" * 20_000, "x.yaml is not YAML or JSON"),
        ('output_dir: "a\\0b"', r"--output-dir must be a path, got 'a\\x00b'"),
        ("epochs: true", "--epochs must be a whole number, got True"),
    ],
)
def test_settings_files_that_settings_cannot_be(tmp_path: Path, text: str, message: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        CommandLine(CommonSettings, ["--config", str(tmp_path / "x.yaml")], prog="test").settings({})


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path: Path):
    """/dev/full is a disk without room: the log, then pictures and weights, are links to it."""
    for write, name in (
        (lambda file: MetricsLog(file).write({"step": 1}), "metrics.jsonl"),
        (lambda file: write_picture(file, Image.new("RGB", (200, 200))), "a.png"),
        (lambda file: write_text(file, "text"), "config.json"),
    ):
        (tmp_path / name).symlink_to("/dev/full")
        partial_file(tmp_path / name).symlink_to("/dev/full")
        with pytest.raises(OSError) as error:
            write(tmp_path / name)
        assert str(error.value) == (
            f"cannot write {tmp_path / name}: No space left on device; free some space or name another folder"
        )


def test_a_file_that_grows_too_large_is_named_by_weights_and_checkpoints(tmp_path: Path):
    """safetensors and torch report neither file nor error number; a limit on files (64 KiB) stands for a full disk."""
    code = f"""
import resource, signal
from pathlib import Path
from accelerate import Accelerator
from torch import nn
from mixgan.engine.checkpoint import Checkpoints
from mixgan.engine.command import run_command
from mixgan.engine.run_folder import save_weights
accelerator = Accelerator(cpu=True)
network = accelerator.prepare(nn.Linear(200, 200))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
folder = Path({str(tmp_path)!r})
for act in (
    lambda argv: save_weights(folder / "G_A.safetensors", network, {{}}),
    lambda argv: Checkpoints(accelerator, folder / "checkpoints").save(1, trainer={{"a": network.weight}}, process={{}}),
    lambda argv: Checkpoints(accelerator, folder / "more").save(1, trainer={{}}, process={{"a": network.weight}}),
):
    try:
        run_command(act, [])
    except SystemExit as ended:
        assert ended.code == 2
"""
    done = forked.run(["-c", code], cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    places = [tmp_path / "G_A.safetensors", tmp_path / "checkpoints/step-00000001", tmp_path / "more/step-00000001"]
    assert len(lines) == 3
    assert all(line.startswith(f"error: cannot write {place}: ") for line, place in zip(lines, places, strict=True))


def out_of_memory() -> None:
    torch.empty(10**15)  # a petabyte and more


def killed_worker() -> None:
    class Reader(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            import os

            os.kill(os.getpid(), signal.SIGKILL)
            return index

    list(torch.utils.data.DataLoader(Reader(), num_workers=1))


def no_memory_in_a_worker() -> None:
    class Reader(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            raise MemoryError

    list(torch.utils.data.DataLoader(Reader(), num_workers=1))


def raising(error: Exception):
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        (
            out_of_memory,
            "out of memory: lower --batch-size or --image-size, or close other programs ([enforce fail at ",
        ),
        (
            raising(MemoryError()),
            "out of memory: lower --batch-size or --image-size, or close other programs (MemoryError)",
        ),
        (raising(torch.OutOfMemoryError("CUDA out of memory. Tried to\nmore")), "out of memory: lower --batch-size"),
        (no_memory_in_a_worker, "out of memory: lower --batch-size"),
        (
            killed_worker,
            "a data worker was killed, probably for want of memory: lower --num-workers or --batch-size (Data",
        ),
    ],
)
def test_memory_and_workers_end_a_command_with_one_sentence(monkeypatch, capsys, fail, sentence: str):
    monkeypatch.delenv("MIXGAN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda argv: fail(), [])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sentence}")
    assert "Traceback" not in line
    monkeypatch.setenv("MIXGAN_DEBUG", "1")
    with pytest.raises(SystemExit):
        run_command(lambda argv: fail(), [])
    assert "Traceback" in capsys.readouterr().err


def test_the_largest_seed_has_room_for_every_process(tmp_path: Path, monkeypatch):
    """Processes add their number to the seed, and numpy takes seeds below 2^32: the second process begins again at 0."""
    monkeypatch.setattr(Accelerator, "process_index", 1)
    run = Run.start(CommonSettings(seed=2**32 - 1, output_dir=tmp_path / "run", threads=1), recipe="test")
    run.begin(2)
    assert torch.initial_seed() == 0
    run.finish()


READERS: dict[str, Callable[[Path], object]] = {
    "a/config.json": lambda file: read_config(file.parent),
    "metrics.jsonl": read_metrics,
    "last.json": lambda file: pointed(file.parent, "last.json"),
    "G_AtoB.safetensors": load_tensors,
    "network.safetensors": read_metadata,
    "latest_net_G.pth": read_network,
    "G.pth": mixgan.load,
    "statistics.npz": read_statistics,
    "images.npz": array_source,
    "picture.png": read_image,
    "picture.npy": read_image,
    "inception.pth": inception_features,
    "dinov2.pth": lambda file: backbone_features("dinov2-b", file),
    "timm.safetensors": lambda file: timm_features("resnet18", file),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str):
    """Oracle: nobody writes to the pipe, so that opening it would take for ever."""
    if name.startswith(("dinov2", "timm")):
        pytest.importorskip("timm")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    if name in ("metrics.jsonl", "last.json", "images.npz"):  # as if there were none
        assert not READERS[name](tmp_path / name)
    else:
        with pytest.raises((ValueError, BadImageError), match=str(tmp_path)):
            READERS[name](tmp_path / name)


def test_epochs_that_are_no_number_do_not_fit_a_run_that_resumes(tmp_path: Path):
    run = Run.start(CommonSettings(output_dir=tmp_path / "run", threads=1), recipe="test")
    run.begin(1)
    run.finish()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["settings"]["epochs"] = [3]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"other settings: --epochs is 1, was \[3\]"):
        check_same_settings(CommonSettings(output_dir=tmp_path / "run", threads=1), tmp_path / "run")


def test_weights_of_a_type_that_torch_does_not_have_are_named(tmp_path: Path):
    """A sound header, as newer programs write it; the type shows only when the tensors are read."""
    header = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    (tmp_path / "new.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))
    with pytest.raises(ValueError, match=r"new\.safetensors is not a safetensors file: "):
        load_tensors(tmp_path / "new.safetensors")
