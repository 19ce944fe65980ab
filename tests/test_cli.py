"""The console command, as it is after ``pip install`` of the wheel: no checkout, only the packages."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mixgan.cli import COMMANDS, dispatch, main

ROOT = Path(__file__).parents[1]


def test_without_a_subcommand_all_are_listed(capsys: pytest.CaptureFixture[str]):
    dispatch([])
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)
    dispatch(["--help"])
    assert capsys.readouterr().out == printed


def test_an_unknown_subcommand_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: unknown subcommand 'train'; known: {', '.join(COMMANDS)}\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, which is built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a checkout")
    for name in files.stdout.splitlines():
        if name.startswith(("mixgan/", "classify/", "pyproject", "README", "LICENSE")) and (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    done = subprocess.run([*build, str(folder / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(
        wheel
    ) as archive:  # installing a pure wheel is unpacking it; its scripts are in entry_points.txt
        archive.extractall(folder / "site")
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "mixgan = mixgan.cli:main" in archive.read(points).decode()
    return folder / "site"


def test_every_subcommand_of_the_wheel_shows_its_help(installed: Path, tmp_path: Path):
    code = (
        "import sys, mixgan.cli as cli\n"
        f"assert cli.__file__.startswith({str(installed)!r}), cli.__file__\n"
        "for name in cli.COMMANDS:\n"
        "    try:\n"
        "        cli.dispatch([name, '--help'])\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, name\n"
        "slow = {'torchvision', 'matplotlib', 'kornia', 'sympy', 'sklearn', 'timm'} & sys.modules.keys()\n"
        "print('slow imports:', *sorted(slow))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert all(f"usage: mixgan {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("slow imports:\n"), done.stdout[-200:]  # --help must not cost much more than torch


def test_the_wheel_has_the_files_that_are_read(installed: Path):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    for folder in ("mixgan", "classify"):
        data = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        needed = {name for name in data if Path(name).suffix in (".html", ".jinja", ".yaml", ".safetensors")}
        assert needed <= files
