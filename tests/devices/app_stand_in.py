"""The app's place on a fake phone, where there is no Swift: its mode "files" and its console, and for models the Python
runner, to which Core ML stands for LiteRT (a job's models are .tflite files)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def files(job: dict[str, Any]) -> list[dict[str, Any]]:
    for path in [path for name in job["remove"] for path in Path().glob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    there = [name for name in job["sums"] if Path(name).is_file()]
    sums = [{"event": "sum", "path": name, "sha256": digest(name)} for name in there]
    conditions = {"event": "conditions", "when": "before", "time": 1.0, "thermal_status": 1, "low_power": False}
    return [conditions, *sums, {"event": "free", "bytes": shutil.disk_usage(".").free}, {"event": "end"}]


def main(place: str, runner: str) -> int:
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    count, code, message = 0, 0, ""
    with Path(f"{place}.lines").open("w", encoding="utf-8") as record:

        def send(event: dict[str, Any]) -> None:
            nonlocal count
            if event["event"] == "outputs":
                event["sha256"] = digest(event["file"])
                event["more_sha256"] = [digest(file) for file in event.get("more_files", [])]
            line = json.dumps(event)
            record.write(line + "\n")
            record.flush()
            print(f"@edgeprune {count} {line}", flush=True)
            count += 1

        if job["mode"] == "files":
            for event in files(job):
                send(event)
        else:
            assert job["runtime"] == "coreml"
            Path("rewritten.json").write_text(json.dumps({**job, "runtime": "litert"}), encoding="utf-8")
            process = subprocess.Popen([sys.executable, runner, "rewritten.json"], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                told = {"runtime": "coreml", "compute_units": job["compute_units"]}
                send({**event, **told} if event["event"] == "start" else event)
            code = process.wait()
            if code < 0:
                os.kill(os.getpid(), -code)
        send({"event": "exit", "code": code, "message": message})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], sys.argv[1]))
