"""The fault campaign: kills, damaged run folders, bad flags and hostile files, against every command. See docs/reliability.md.

python tests/campaign [--part kills|folders|flags|files] [--number N] [--jobs N] [--output FOLDER] [--only TEXT]
"""

import argparse
import gc
import json
import os
import platform
import shlex
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import files
import flags
import folders
import kills
import torch
from forked import import_everything
from setups import Case, Result, only_for_speed

from mixgan.engine.accelerator import available_cores
from mixgan.engine.run_folder import git_commit

PARTS = {"kills": kills.cases, "folders": folders.cases, "flags": flags.cases, "files": files.cases}
GOOD = ("equal", "sentence")
BAD = ("unclear", "traceback", "wrong exit code", "crash", "dead end", "differing")
HEAD = (
    "part",
    "tried",
    "equal",
    "sentences",
    "unclear",
    "tracebacks",
    "wrong exit codes",
    "crashes",
    "dead ends",
    "differing",
)
MEANING = """equal: the result is that of an undisturbed command; sentence: refused with one sentence and exit code 2; unclear: \
the sentence names neither flag nor file; crash: killed by a signal, or over the time limit; dead end: neither --resume nor a \
new start works."""


def main() -> int:
    """Run the campaign; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Fault campaign of mixgan; prints a table.")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--number", type=int, help="at most this many cases of a part, evenly spread")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="processes (default: one for each core)")
    parser.add_argument("--output", type=Path, default=Path("campaign-out"), help="folder for table and results")
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    options = parser.parse_args()
    began = time.monotonic()
    import_everything()
    only_for_speed()
    gc.freeze()
    output = options.output.resolve()
    shutil.rmtree(output / "work", ignore_errors=True)
    (output / "work").mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(output / "work/cache")
    results: dict[str, list[dict[str, Any]]] = {}
    for part in options.part or PARTS:
        cases = [case for case in PARTS[part](output / "work", options.number) if options.only in case.name]
        results[part] = run_cases(cases, output / "work", jobs=options.jobs, title=part)
    table = [row(part, found) for part, found in results.items()]
    write(output, results, table, seconds=time.monotonic() - began)
    shutil.rmtree(output / "work", ignore_errors=True)
    print((output / "campaign.md").read_text())
    return int(any(result["verdict"] in BAD for found in results.values() for result in found))


def run_cases(cases: list[Case], work: Path, *, jobs: int, title: str) -> list[dict[str, Any]]:
    """Every case's result; with several jobs, each job is a fork that takes every so manyth case."""
    files = [work / f"{title}-{job}.jsonl" for job in range(jobs)]
    children = []
    for job, file in enumerate(files):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                with file.open("w") as out:
                    for number in range(job, len(cases), jobs):
                        out.write(
                            json.dumps({"number": number, **result_of(cases[number], work / f"{title}-{number}")})
                            + "\n"
                        )
                        out.flush()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0, "a worker of the campaign died"
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(found) == len(cases)
    return sorted(found, key=lambda result: result["number"])


def result_of(case: Case, folder: Path) -> dict[str, Any]:
    """Run a case in a folder of its own, and print it if it is a bad one."""
    folder.mkdir()
    began = time.monotonic()
    try:
        result = case.run(folder)
    except Exception:  # a result that cannot be read is wrong too
        result = Result("differing", traceback.format_exc())
    if result.verdict not in GOOD:
        print(f"{result.verdict.upper()}  {case.name}\n    {result.detail}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "case": case.name,
        "verdict": result.verdict,
        "detail": result.detail,
        "seconds": round(time.monotonic() - began, 2),
    }


def row(part: str, found: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    verdicts = [result["verdict"] for result in found]
    assert set(verdicts) <= {*GOOD, *BAD}, set(verdicts)
    return [part, str(len(found)), *(str(verdicts.count(verdict)) for verdict in (*GOOD, *BAD))]


def write(output: Path, results: dict[str, Any], table: list[list[str]], *, seconds: float) -> None:
    """campaign.json with every case, campaign.md with the table."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    facts = {
        "command": f"python {shlex.join(sys.argv)}",
        "machine": f"{platform.machine()}, {available_cores()} cores, {versions}",
        "commit": git_commit(),
        "minutes": round(seconds / 60, 1),
    }
    (output / "campaign.json").write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")
    lines = [HEAD, ["---"] * len(HEAD), *table]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    (output / "campaign.md").write_text(f"{text}\n\n{MEANING}\n\n{told}\n")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # compilers' libraries, imported for their speed alone, complain at a usual exit
