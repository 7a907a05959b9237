"""The ARM64 machine of tests/lab for benchmarks: booted, and reached through an adb server of its own.

Under icount a second is a count of instructions: it repeats to 0.1 %, and it is not a phone's latency.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import ROOT

sys.path.insert(0, str(ROOT / "tests" / "lab"))
from machine import AdbServer, Machine, built_image, free_port  # type: ignore[import-not-found]

from edgeprune.devices.adb import open_adb
from edgeprune.devices.remote import RemoteDevice


@dataclass(frozen=True)
class Lab:
    """The machine over adb, and how ssh finds it (as the host `labarm`)."""

    device: RemoteDevice
    ssh_config: Path


@contextmanager
def lab(*, icount: bool = True, cpu: str = "cortex-a76", keep: Path | None = None) -> Iterator[Lab]:
    """Boot the machine. `keep`: a folder that remembers its adb port, which is the device's name in a run."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-lab-") as scratch:
        folder = Path(scratch)
        machine = Machine(built_image(), folder / "machine", cpu=cpu, icount=icount)
        if keep is not None:
            machine.adb_port = kept_port(keep / "adb_port")
        with machine, AdbServer(folder / "adb") as server:
            os.environ["ANDROID_ADB_SERVER_PORT"] = str(server.port)
            server.connect(machine.adb_serial)
            yield Lab(open_adb(machine.adb_serial), machine.write_ssh_files(folder / "ssh"))


def kept_port(file: Path) -> int:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(free_port()))
    return int(file.read_text())
