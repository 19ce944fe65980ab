"""The fault campaign in miniature, and that it would notice faults: commands with known ones are its oracle."""

import json
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parent / "campaign"
#: Commands that end in every way there is, and the verdict on each.
ENDS = """
import os, signal, sys
from pathlib import Path
from zygote import run, die_at
def raises(argv): raise RuntimeError("boom")
def refuses(argv): print("error: --epochs must be at least 1, got 0", file=sys.stderr); sys.exit(2)
def usage(argv): print("usage: x\\nx: error: bad", file=sys.stderr); sys.exit(2)
def dies(argv): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(argv): signal.pause()
def works(argv): pass
here = Path(sys.argv[1])
for command in (raises, refuses, usage, dies, hangs, works):
    print(command.__name__, run([], folder=here, command=command, limit=2).verdict)
def writes(argv):
    with (here / "run/a").open("w") as file:
        file.write("0123456789")
        file.flush()
        os.fsync(file.fileno())
        file.write("abcdefghij")
        file.flush()
    (here / "run/a").rename(here / "run/b")
(here / "run").mkdir()
for power in (False, True):
    ended = run([], folder=here, command=writes, hook=lambda: die_at(2, here / "run", power=power))
    print(ended.code, ended.notes[0].split()[0], (here / "run/a").read_text())
"""


def test_the_campaign_notices_every_bad_end(tmp_path: Path):
    words = [sys.executable, "-c", ENDS, str(tmp_path)]
    printed = subprocess.run(words, cwd=CAMPAIGN, capture_output=True, text=True, check=True, timeout=300).stdout
    assert printed.splitlines() == [
        "raises traceback",
        "refuses sentence",
        "usage wrong exit code",
        "dies crash",
        "hangs crash",
        "works works",
        "-9 os.rename 0123456789abcdefghij",
        "-9 os.rename 0123456789abcde",  # the power fails: half of what was not flushed is lost
    ]


def test_a_miniature_of_every_part_finds_nothing(tmp_path: Path):
    words = [sys.executable, str(CAMPAIGN), "--number", "3", "--jobs", "1", "--output", str(tmp_path / "out")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout
    results = json.loads((tmp_path / "out" / "campaign.json").read_text())["results"]
    assert {part: len(found) for part, found in results.items()} == {"kills": 3, "folders": 3, "flags": 3, "files": 3}
    assert {result["verdict"] for found in results.values() for result in found} <= {"equal", "sentence"}
