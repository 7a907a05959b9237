"""What a machine is like at one moment: load, steal, clock and temperature. Runs on the device, beside the runner."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def first_line(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return None


def steal_s() -> float | None:
    """Seconds that the hypervisor gave to others while this machine wanted to run, summed over its cores."""
    fields = (first_line(Path("/proc/stat")) or "").split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else None


def busy_s() -> float | None:
    """Seconds that this machine's cores have worked for anybody (user, nice, system, interrupts)."""
    fields = (first_line(Path("/proc/stat")) or "").split()
    if len(fields) <= 7:
        return None
    return sum(int(fields[place]) for place in (1, 2, 3, 6, 7)) / os.sysconf("SC_CLK_TCK")


def running() -> int | None:
    """Tasks that run or want to, this one included."""
    fields = (first_line(Path("/proc/loadavg")) or "").split()
    return int(fields[3].partition("/")[0]) if len(fields) > 3 else None


def read_conditions() -> dict[str, Any]:
    """Load, steal, clock and temperature, each absent where the machine does not tell.

    The tree of sysfs is looked for where SYSFS_PATH says, as libsysfs does.
    """
    sysfs = Path(os.environ.get("SYSFS_PATH", "/sys"))
    frequencies = []
    for path in sorted(sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")):
        if (text := first_line(path)) and text.isdigit():
            frequencies.append(int(text) / 1e3)
    temperatures = {}
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        text = first_line(zone / "temp")
        if text and text.lstrip("-").isdigit():
            temperatures[f"{zone.name}:{first_line(zone / 'type') or 'unknown'}"] = int(text) / 1e3
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    return {
        "time": time.time(),
        "clock_s": time.monotonic(),
        "load_1min": load,
        "running": running(),
        "cpu_steal_s": steal_s(),
        "cpu_busy_s": busy_s(),
        "cpus": os.cpu_count(),
        "own_s": time.process_time(),
        "frequency_mhz": frequencies,
        "temperature_c": temperatures,
    }
