"""How many of timm's families can be pruned, rightly: EdgePrune beside Torch-Pruning, in one run.

    python benchmarks/coverage.py --families ../shared/bench/timm_families.json --cache .cache/coverage

One model of each family with random weights (`coverage_models`) loses half of its units; asked is whether the result
runs, whether 30 % of the parameters are gone, and whether it computes what the masked model computes
(`coverage_property`). Each family and side runs in a process of its own: a crash, a hang or too little memory is an
outcome. Everything resumes: what is in --cache is not done again (delete its file to do it again).
Writes benchmarks/results/coverage.json and docs/coverage.md, and prints a table.

Outcomes: ok (the property holds, enough is gone), little (it holds, less is gone), refused (EdgePrune says why),
wrong (the property does not hold), crash, timeout; of Torch-Pruning also broken (it raises, or the pruned model does)
and unasked (`coverage_torch_pruning`).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from coverage_models import FINDING, Family, read_families

TABLE = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"
SIDES = ("edgeprune", "torch_pruning")
OUTCOMES = ("ok", "unasked", "little", "refused", "broken", "wrong", "crash", "timeout")


def main() -> None:
    arguments = _arguments()
    families = read_families(arguments.families)
    unknown = sorted(set(arguments.only or []) - {f.name for f in families})
    if unknown:
        sys.exit(f"no such families in {arguments.families}: {', '.join(unknown)}")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        _child(next(f for f in families if f.name == arguments.only[0]), arguments)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that a running child is ended, too
    sides = [arguments.side] if arguments.side else list(SIDES)
    for family in families:
        for side in sides:
            if not arguments.only or family.name in arguments.only:
                _measure(family, side, arguments)
    figures = collect(families, arguments.cache)
    if not arguments.only:  # a part of the families is for looking at, not a result
        from common import write_result

        figures = {"settings": _settings(arguments), **figures}
        path = write_result("coverage", figures)
        print(f"wrote {path}")
        arguments.table.write_text(markdown(figures))
    print(table(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=Path, required=True, help="timm_families.json")
    parser.add_argument("--cache", type=Path, required=True, help="where finished families lie (made)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families; no result file is written")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--timeout", type=float, default=900, help="seconds of processor time for one family and side")
    parser.add_argument("--memory", type=float, default=16, help="GB that one process may take")
    parser.add_argument("--table", type=Path, default=TABLE, help="where the families' table is written")
    parser.add_argument("--stop-after", type=float, help="start no new family after so many minutes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    parsed.begun = time.monotonic()
    return parsed


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "removed": "half of the units of every group",
        "enough": 0.30,
        "timeout_s": arguments.timeout,
        "memory_gb": arguments.memory,
        "limits": {"float32": 1e-5, "float64": 1e-12, "gradients_float64": 1e-9},
        "torch_pruning": importlib.metadata.version("torch-pruning"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "note": "find_s is wall time and find_cpu_s processor time of one run each; other work may have run beside it",
    }


def _file(cache: Path, family: str, side: str) -> Path:
    return cache / f"{family}.{side}.json"


def _measure(family: Family, side: str, arguments: argparse.Namespace) -> None:
    """Run a child for a family and side, unless that is done; whatever happens to it ends up in the cache."""
    done = _file(arguments.cache, family.name, side)
    late = arguments.stop_after is not None and time.monotonic() - arguments.begun > 60 * arguments.stop_after
    if done.exists() or late:
        return
    part, log = done.with_suffix(".part"), done.with_suffix(".log")
    part.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", "--only", family.name, "--side", side]
    command += ["--families", str(arguments.families), "--cache", str(arguments.cache)]
    command += ["--memory", str(arguments.memory)]
    environment = dict(os.environ)
    if side == "torch_pruning":
        environment["TIMM_FUSED_ATTN"] = "0"  # as its examples do
    begin = time.monotonic()
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            code = _wait(child, arguments.timeout)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    record = json.loads(part.read_text()) if part.exists() else {}
    if code is None and not record.get("outcome"):
        why = f"not done after {arguments.timeout:.0f} s of processor time: {record.get('at', 'starting')}"
        record |= {"outcome": "timeout", "why": why, "limit_s": arguments.timeout}
    elif code is None:
        record["note"] = f"stopped after {arguments.timeout:.0f} s, before all settings were tried"
    elif code != 0 and not record.get("outcome"):
        lines = log.read_text(errors="replace").strip().splitlines()[-12:]
        record |= {"outcome": "crash", "why": f"exit code {code}", "log": lines}
    record["wall_s"] = round(time.monotonic() - begin, 1)
    _write(done, {"family": family.name, "model": family.model, "side": side, **record})
    part.unlink(missing_ok=True)
    share = record.get("share_removed")
    shown = f"{share:.0%}" if share is not None else ""
    print(
        f"{time.strftime('%H:%M:%S')} {family.name:26} {side:14} {record['outcome']:8} {shown:5} "
        f"{record['wall_s']:6.1f} s  {(record.get('why') or '').splitlines()[0][:110] if record.get('why') else ''}",
        flush=True,
    )


def _wait(child: subprocess.Popen[bytes], timeout: float) -> int | None:
    """The child's exit code; None when it has used so much processor time (or ten times that on the clock)."""
    begin = time.monotonic()
    while True:
        try:
            return child.wait(1.0)
        except subprocess.TimeoutExpired:
            if processor_seconds(child.pid) > timeout or time.monotonic() - begin > 10 * timeout:
                return None


def processor_seconds(pid: int) -> float:
    """Processor time that a running process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(family: Family, arguments: argparse.Namespace) -> None:
    limit = int(arguments.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    part = _file(arguments.cache, family.name, arguments.side).with_suffix(".part")
    record: dict[str, Any] = {}

    def save() -> None:
        _write(part, record)

    try:
        if arguments.side == "edgeprune":
            import coverage_edgeprune

            coverage_edgeprune.measure(family, record)
        else:
            import coverage_torch_pruning

            coverage_torch_pruning.measure(family, record, save)
    except BaseException:
        traceback.print_exc()
        save()
        raise
    save()


def _write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


def collect(families: list[Family], cache: Path) -> dict[str, Any]:
    """The figures of all families that are done, those that are missing, and the counts."""
    found: dict[str, dict[str, Any]] = {}
    missing: dict[str, list[str]] = {side: [] for side in SIDES}
    for family in families:
        entry: dict[str, Any] = {"model": family.model, "parameters": family.parameters}
        for side in SIDES:
            file = _file(cache, family.name, side)
            if file.exists():
                record = json.loads(file.read_text())
                entry[side] = {k: v for k, v in record.items() if k not in ("family", "model", "side", "parameters")}
            else:
                missing[side].append(family.name)
        found[family.name] = entry
    return {"counts": counts(found), "missing": missing, "frozen_by": frozen_by(found), "families": found}


def counts(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Outcomes by side; `both` are the families in which both are done, with the sums of the times to find units."""
    result: dict[str, Any] = {}
    for side in SIDES:
        outcomes = Counter(entry[side]["outcome"] for entry in found.values() if side in entry)
        result[side] = {"done": outcomes.total(), **{name: outcomes[name] for name in OUTCOMES if outcomes[name]}}
    timed = [e for e in found.values() if all(e.get(side, {}).get("find_cpu_s") is not None for side in SIDES)]
    result["timed_on_both_sides"] = {"families": len(timed)} | {
        side: {key: round(sum(e[side][key] for e in timed), 1) for key in ("find_s", "find_cpu_s")} for side in SIDES
    }
    endless = {
        name: entry["torch_pruning"]["limit_s"]
        for name, entry in found.items()
        if entry.get("torch_pruning", {}).get("at") == FINDING and "edgeprune" in entry
    }
    result["torch_pruning_stopped_while_finding"] = {
        "families": len(endless),
        "torch_pruning": {"more_than_s": sum(endless.values())},
        "edgeprune": {"find_cpu_s": round(sum(found[name]["edgeprune"].get("find_cpu_s") or 0 for name in endless), 1)},
    }
    return result


def frozen_by(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Why EdgePrune leaves what it leaves: reason and operator -> families, those below ok first.

    A family's share is that of its parameters in layers whose output channels are frozen for this reason.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, entry in found.items():
        record = entry.get("edgeprune", {})
        for frozen in record.get("frozen", []):
            reason, _, place = frozen["reason"].partition(" at ")
            row = rows.setdefault(reason, {"reason": reason, "below_ok": {}, "ok": {}, "example": None})
            shares = row["ok" if record.get("outcome") == "ok" else "below_ok"]
            share = shares.get(name, 0.0) + frozen["parameters"] / entry["parameters"]
            shares[name] = round(share, 4)
            if row["example"] is None or share > row["example"]["share"]:
                row["example"] = {"model": entry["model"], "layer": frozen["example"], "share": share, "place": place}
    return sorted(rows.values(), key=lambda row: (-len(row["below_ok"]), -sum(row["below_ok"].values())))


def table(figures: dict[str, Any]) -> str:
    lines = [f"{'family':26} {'M param.':>8}  {'EdgePrune':24} Torch-Pruning"]
    for name, entry in figures["families"].items():
        if any(side in entry for side in SIDES):
            cells = [_cell(entry.get(side)) for side in SIDES]
            lines.append(f"{name:26} {entry['parameters'] / 1e6:8.1f}  {cells[0]:24} {cells[1]}")
    for side in SIDES:
        lines.append(f"{side}: {json.dumps(figures['counts'][side])}; missing {len(figures['missing'][side])}")
    lines += [
        f"{len(row['below_ok']):3} families below ok, {len(row['ok']):3} ok: {row['reason']}"
        for row in figures["frozen_by"]
    ]
    lines.append(f"time to find units: {json.dumps(figures['counts']['timed_on_both_sides'])}")
    return "\n".join(lines)


def markdown(figures: dict[str, Any]) -> str:
    """The families' table for docs/: outcome, share of the parameters removed, processor time to find units."""
    lines = [
        "# Coverage of timm's families",
        "",
        "Written by `benchmarks/coverage.py` (what is asked, and what the outcomes mean, stands there); see",
        "[results](results.md) for the sums and the goals. Shares are of the parameters, removed with half of the",
        "units; seconds are processor time to find the units. `-` is not measured.",
        "",
        "| family | model | M parameters | EdgePrune | Torch-Pruning 1.6.1 |",
        "|---|---|---|---|---|",
    ]
    for name, entry in figures["families"].items():
        cells = [_marked(entry.get(side)) for side in SIDES]
        lines.append(f"| {name} | {entry['model']} | {entry['parameters'] / 1e6:.1f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _marked(record: dict[str, Any] | None) -> str:
    if record is None:
        return "-"
    return ", ".join(_parts(record, "find_cpu_s"))


def _cell(record: dict[str, Any] | None) -> str:
    return "-" if record is None else " ".join(_parts(record, "find_s"))


def _parts(record: dict[str, Any], time_key: str) -> list[str]:
    share, seconds = record.get("share_removed"), record.get(time_key)
    parts = [record["outcome"], "" if share is None else f"{share:.0%}", "" if seconds is None else f"{seconds:.1f} s"]
    return [part for part in parts if part]


if __name__ == "__main__":
    main()
