"""An iPhone that is none: what `xcrun devicectl` and `pymobiledevice3` do, on a folder of this machine.

Only because no real one can be had where the tests run. The words and the JSON are as they are documented: devicectl's
by Flutter's and Qt Creator's recorded answers (flutter_tools' core_devices.dart and its test, tst_devicectlutils.cpp),
pymobiledevice3's by its own source, version 11.45. What it shows is that edgeprune speaks with tools that behave so,
not that a phone does.

    fake_phone.py TOOL ARGUMENTS...     with EDGEPRUNE_FAKE_PHONE: a folder with `container/`, `app` (the command of the
                                        app's stand-in, as JSON), `state.json`
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from fake_phone_state import BUNDLE, UDID

PROGRAM = "/private/var/containers/Bundle/Application/FAEC04B7/EdgePruneRunner.app/EdgePruneRunner"
HOME = Path(os.environ["EDGEPRUNE_FAKE_PHONE"])
STATE: dict[str, Any] = json.loads((HOME / "state.json").read_text(encoding="utf-8"))
PID = HOME / "pid"


def fail(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(1)


def running() -> list[int]:
    try:
        number = int(PID.read_text(encoding="utf-8"))
        os.kill(number, 0)
    except (OSError, ValueError):
        return []
    return [number]


def kill(number: int) -> None:
    os.killpg(number, signal.SIGKILL)


def inside(path: str) -> Path:
    return HOME / "container" / path


def launch(arguments: list[str], *, shown: bool) -> int:
    """Start the app, show its console (through a terminal: lines end in CR LF), wait for its end."""
    for number in running():
        kill(number)
    process = subprocess.Popen(
        [*json.loads((HOME / "app").read_text(encoding="utf-8")), *arguments],
        cwd=HOME / "container",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    PID.write_text(str(process.pid), encoding="utf-8")
    assert process.stdout is not None
    for count, line in enumerate(process.stdout):
        if count == STATE.get("unplugged_after"):
            fail("ERROR: The connection was interrupted. (com.apple.dt.CoreDeviceError error 4)")
        if count % 4 == 1:
            say(b"2026-09-16 12:15:47.939171-0500 EdgePruneRunner[1230:133819] [CoreML] something it says\n", shown)
        lost = STATE.get("loses") and count % 3 == 2  # mixed up with another
        say(line[: len(line) // 2] if lost else line, shown)
    return process.wait()


def say(line: bytes, shown: bool) -> None:
    if shown and not STATE.get("silent"):
        sys.stdout.buffer.write(line.rstrip(b"\n") + b"\r\n")
        sys.stdout.buffer.flush()


def devicectl(words: list[str]) -> int:
    options = dict(pairwise(words))
    result: dict[str, Any] = {}
    if words[:2] != ["list", "devices"] and STATE.get("unplugged"):
        fail("ERROR: The specified device was not found. (com.apple.dt.CoreDeviceError error 1000)")
    match words[:3]:
        case ["list", "devices", *_]:
            result = {"devices": STATE["devices"]}
        case ["device", "info", "apps"]:
            apps = STATE["apps"].items()
            result = {"apps": [{"bundleIdentifier": name, "bundleVersion": version} for name, version in apps]}
        case ["device", "info", "processes"]:
            app = [{"executable": f"file://{PROGRAM}", "processIdentifier": number} for number in running()]
            result = {"runningProcesses": [{"executable": "file:///sbin/launchd", "processIdentifier": 1}, *app]}
        case ["device", "process", "terminate"]:
            assert "--kill" in words
            kill(int(options["--pid"]))
        case ["device", "copy", "to"]:
            assert options["--domain-type"] == "appDataContainer"
            assert options["--domain-identifier"] == BUNDLE
            place = inside(options["--destination"])
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options["--source"], place)
            if STATE.get("damages") and place.name.endswith(STATE["damages"]):
                place.write_bytes(place.read_bytes()[:-1])
        case ["device", "copy", "from"]:
            if not inside(options["--source"]).is_file():
                fail("ERROR: Failed to retrieve the file node. (com.apple.dt.CoreDeviceError error 7000)")
            shutil.copyfile(inside(options["--source"]), options["--destination"])
        case ["device", "process", "launch"]:
            if STATE.get("locked"):
                fail('ERROR: Unable to launch it because the device was not, or could not be, unlocked. ("Locked")')
            print(f"Launched application with {BUNDLE} bundle identifier.", flush=True)
            print("Waiting for the application to terminate…", flush=True)
            assert words[3:7] == ["--device", UDID, "--console", "--terminate-existing"]
            assert words[7] == BUNDLE
            code = launch(words[8:], shown=sys.stdout.isatty())
            print("App terminated due to signal 11." if code < 0 else "The app exited.", flush=True)
            return 0 if code == 0 else 1
        case _:
            fail(f"error: unexpected {words}")
    answer = {"info": {"outcome": "success", "jsonVersion": 2}, "result": result}
    Path(options["--json-output"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


def push(source: Path, target: Path) -> None:
    """A folder makes the folders that are missing; a file does not."""
    if source.is_dir():
        shutil.copytree(source, target / source.name, dirs_exist_ok=True)
    elif target.parent.is_dir():
        shutil.copyfile(source, target)
    else:
        fail("ERROR No such file on the device")


def pymobiledevice3(words: list[str]) -> int:
    if words == ["usbmux", "list"]:
        print(json.dumps(STATE["usbmux"], indent=4))
        return 0
    assert os.environ["PYMOBILEDEVICE3_UDID"] == UDID
    match words:
        case ["amfi", "developer-mode-status"]:
            print(json.dumps(STATE["developer_mode"]))
        case ["apps", "list", "--type", "User"]:
            print(json.dumps({name: {"CFBundleVersion": version} for name, version in STATE["apps"].items()}))
        case ["apps", "push", "--documents", bundle, local, remote]:
            assert bundle == BUNDLE
            push(Path(local), inside(remote))
        case ["apps", "pull", "--documents", bundle, remote, local]:
            assert bundle == BUNDLE
            if not inside(remote).is_file():
                fail(f"ERROR No such file on the device: {remote}")
            shutil.copyfile(inside(remote), local)
        case ["developer", "core-device", "launch-application", "--console", bundle, *arguments]:
            assert bundle == BUNDLE
            launch(arguments, shown=True)
        case ["developer", "core-device", "list-processes"]:
            app = [{"executableURL": {"relative": f"file://{PROGRAM}"}, "processIdentifier": n} for n in running()]
            print(json.dumps([{"executableURL": {"relative": "file:///sbin/launchd"}, "processIdentifier": 1}, *app]))
        case ["developer", "core-device", "send-signal-to-process", number, "9"]:
            kill(int(number))
        case _:
            fail(f"Error: no such command {words}")
    return 0


if __name__ == "__main__":
    tool, *given = sys.argv[1:]
    with (HOME / "asked.jsonl").open("a", encoding="utf-8") as record:
        record.write(json.dumps([tool, *given]) + "\n")
    if tool == "xcrun":
        assert given[0] == "devicectl"
        sys.exit(devicectl(given[1:]))
    sys.exit(pymobiledevice3(given))
