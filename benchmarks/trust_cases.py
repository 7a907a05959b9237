"""What users bring: each case is made in a folder of its own and given to the command line, as a user would.

    python benchmarks/trust_cases.py --cache .cache/trust

A case says which exit codes are right, which accuracy the exported files must have where it passes, and what else must
hold. Counted are wrong PASSes, tracebacks and wrong exit codes. A row that is in the cache is not made again;
`--only 4 9` runs the cases of these points of the issue. Writes benchmarks/results/trust_cases.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, keep_row, write_result
from trust_data import data_cases
from trust_models import model_cases, ordinary
from trust_net import PASS, Base, Case, make_base
from trust_rest import other_cases

TIMEOUT_S = 600
COMMAND = Path(sys.executable).with_name("edgeprune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "trust")
    parser.add_argument("--only", type=int, nargs="+", default=())
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    base = make_base(cache)
    finished = finished_run(base, cache)
    cases = [*data_cases(base), *model_cases(base), *other_cases(base, finished)]
    chosen = [case for case in cases if not arguments.only or case.point in arguments.only]
    with ThreadPoolExecutor(arguments.jobs, thread_name_prefix="user") as pool:
        rows = list(pool.map(lambda case: row_of(case, cache), chosen))
    wrong = [row for row in rows if row["wrong"]]
    write_result(
        "trust_cases",
        {
            "cases": len(rows),
            "wrong_passes": sum(row["exit_code"] == PASS for row in wrong),
            "tracebacks": sum(row["traceback"] for row in rows),
            "wrong": len(wrong),
            "rows": rows,
        },
    )
    for row in wrong:
        print(f"{row['point']:>2} {row['name']}: {row['wrong']}")
    print(f"{len(rows)} cases, {len(wrong)} wrong")


def finished_run(base: Base, cache: Path) -> Path:
    """A run folder that passed, for the cases that damage one."""
    folder = cache / "finished"
    if not (folder / "run" / "report" / "stage.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        done = edgeprune(ordinary(base, folder), folder, cache)
        assert done.returncode == PASS, done.stderr
    return folder / "run"


def row_of(case: Case, cache: Path) -> dict[str, Any]:
    """What became of a case, from the cache where it was made before."""
    name = f"{case.point:02d} {case.name}".replace("/", "_").replace(" ", "_")
    file = cache / "rows" / f"{name}.json"
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    folder = cache / "cases" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    done = edgeprune(case.make(folder), folder, cache)
    row = {
        "point": case.point,
        "name": case.name,
        "exit_code": done.returncode,
        "seconds": round(time.monotonic() - started, 1),
        "traceback": "Traceback" in done.stderr + done.stdout,
        "error": done.stderr.partition("error: ")[2].strip().replace(str(folder), ".").replace(f"{ROOT}/", ""),
        "wrong": judged(case, done, folder),
    }
    print(f"{case.point:>2} {case.name}: {done.returncode} {row['wrong']}", flush=True)
    keep_row(file, row)
    return row


def judged(case: Case, done: subprocess.CompletedProcess[str], folder: Path) -> str:
    """What is wrong with an end; empty if nothing is."""
    if "Traceback" in done.stderr + done.stdout:
        return "a traceback"
    if done.returncode not in case.ends:
        return f"exit code {done.returncode}, right would be {' or '.join(map(str, case.ends))}"
    if done.returncode == PASS and case.accuracy:
        verdict = json.loads((folder / "run" / "verify" / "verdict.json").read_text())
        worst = min(
            check["value"] for file in verdict["files"] for check in file["checks"] if check["name"] == "top-1 accuracy"
        )
        if worst < case.accuracy:
            return f"a PASS at an accuracy of {worst:.3f}, where {case.accuracy} is right"
    return case.wrong(folder) if case.wrong else ""


def edgeprune(arguments: Any, folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """The command, as a user of its own for each worker: two jobs of one user wait for each other's device."""
    home = str(cache / "users" / threading.current_thread().name)
    users = {"XDG_CACHE_HOME": home, "XDG_STATE_HOME": home}
    environment = os.environ | users | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    try:
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], -1, "", f"error: not ended after {TIMEOUT_S} s")


if __name__ == "__main__":
    main()
