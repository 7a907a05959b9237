"""What a device behind a shell says of itself: one script each for facts and conditions, and how its answer is read.

Every part begins with a line `@@name`; a part that the device does not have is empty. The scripts run in any POSIX
shell (Android's mksh and toybox, busybox, bash, macOS).
"""

from __future__ import annotations

import json
import re
import shlex
from importlib import metadata
from typing import Any

from edgeprune.devices.base import DeviceFacts, RunnerKind
from edgeprune.devices.bundle import TARGETS
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.facts import RUNTIME_PACKAGES, abi_of, cpu_features, cpu_name

ANY_PYTHON = "python3"  # the interpreter that is asked for where the user names none
_PYTHON_PROBE = (
    "import json,sys;from importlib import metadata as m;f={};"
    "n=[d.metadata['Name'].lower() for d in m.distributions() if d.metadata['Name']];"
    "[f.update({p:m.version(p)}) for p in ('ai-edge-litert','tflite-runtime','executorch','onnxruntime','coremltools',"
    "'numpy') if p in n];print(json.dumps([sys.executable,f,sys.version_info[:2]]))"
)

_FACTS = "; ".join(
    (
        "echo @@system; uname -s; uname -r; uname -m",
        "echo @@cpuinfo; cat /proc/cpuinfo 2>/dev/null",
        "echo @@memory; head -n 1 /proc/meminfo 2>/dev/null; sysctl -n hw.memsize 2>/dev/null",
        "echo @@cores; getconf _NPROCESSORS_ONLN 2>/dev/null || nproc",
        "echo @@model; for f in /proc/device-tree/model /sys/devices/virtual/dmi/id/product_name; do "
        "[ -r $f ] && tr '\\0' '\\n' <$f; done; echo",
        "sysctl -n hw.model 2>/dev/null",
        "echo @@soc; cat /proc/device-tree/compatible 2>/dev/null | tr '\\0' ' '; echo",
        "sysctl -n machdep.cpu.brand_string 2>/dev/null",
        "echo @@properties; command -v getprop >/dev/null && getprop",
        "echo @@libc; ldd --version 2>/dev/null | head -n 1",
        "echo @@temperature; cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null",
        "echo @@python",
    )
)

CONDITIONS_SCRIPT = "; ".join(  # the shell reads what it can itself: a process would warm what it asks about
    (
        'get() { l=; { IFS= read -r l <"$1"; } 2>/dev/null; }',
        'first() { get "$1"; [ -z "$l" ] || echo "$l"; }',
        "echo @@load; first /proc/loadavg",
        "echo @@stat; first /proc/stat; getconf CLK_TCK 2>/dev/null",
        "echo @@uptime; first /proc/uptime",
        "echo @@cpus; set -- /sys/devices/system/cpu/cpu[0-9]*; "
        "if [ -e $1 ]; then echo $#; else getconf _NPROCESSORS_CONF 2>/dev/null || nproc; fi",
        "echo @@frequency; for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; do first $f; done",
        "echo @@thermal; for z in /sys/class/thermal/thermal_zone*; do [ -r $z/temp ] || continue; "
        'get $z/type; n=$l; get $z/temp; echo "${z##*/}:$n $l"; done',
        "echo @@battery; command -v dumpsys >/dev/null && dumpsys battery",
        "echo @@thermalservice; command -v dumpsys >/dev/null && dumpsys thermalservice",
        "echo @@power; command -v dumpsys >/dev/null && dumpsys power | grep mWakefulness=",
        "echo @@end",
    )
)


def facts_script(python: str) -> str:
    """The script that asks for facts; `python`: the interpreter to ask for runtimes, empty for none."""
    if not python:
        return _FACTS
    word = shlex.quote(python)
    return f'{_FACTS}; command -v {word} >/dev/null && {word} -c "{_PYTHON_PROBE}"'


def parts(text: str) -> dict[str, str]:
    """The parts of an answer by name."""
    found: dict[str, str] = {}
    for piece in re.split(r"^@@", text, flags=re.MULTILINE)[1:]:
        name, _, body = piece.partition("\n")
        found[name.strip()] = body.strip("\r\n")
    return found


def properties(text: str) -> dict[str, str]:
    """Android's properties from getprop's `[name]: [value]` lines."""
    return dict(re.findall(r"^\[([^\]]+)\]: \[([^\]]*)\]\s*$", text, re.MULTILINE))


def read_facts(
    text: str, *, id: str, kind: str, prefer: RunnerKind | None = None, asked: str = ANY_PYTHON
) -> DeviceFacts:
    """Facts from the answer to `facts_script`. `prefer`: which runner to use where a runtime has both.

    Without a word from the user a runtime that is installed there is used as it is, by the Python runner; LiteRT is
    brought along, with the native runner, where none is installed. An interpreter that the user named (`asked`) has to
    be there.
    """
    part = parts(text)
    prop = properties(part.get("properties", ""))
    system, release, machine = [*part.get("system", "").splitlines(), "", "", ""][:3]
    cpuinfo = part.get("cpuinfo", "")
    android = prop.get("ro.build.version.release", "")
    abi = abi_of(machine)
    python, packages = _python(part.get("python", ""))
    runtimes, runners = _runtimes(packages, abi, system, prefer)
    reason = ""
    if asked not in ("", ANY_PYTHON) and not python:
        reason = f"{asked} there is no Python 3.11 or newer with numpy"
    elif not runtimes:
        reason = (
            f"nothing runs models on {abi or 'this processor'} {system}: no runtime is installed in a Python 3.11 or"
            " newer there, and the native runner is for aarch64 and x86_64 Linux and Android, which are of 64 bits"
        )
    memory = re.findall(r"\d+", part.get("memory", ""))
    temperatures = [int(t) / 1000 for t in part.get("temperature", "").split() if t.lstrip("-").isdigit()]
    libc = re.search(r"glibc|gnu libc", part.get("libc", ""), re.IGNORECASE) and part["libc"].split()[-1]
    os_words = (
        f"Android {android}" if android else system,
        ".".join(release.split(".")[:2]),
        f"glibc {libc}" if libc else "",
    )
    return DeviceFacts(
        id=id,
        kind=kind,
        model=prop.get("ro.product.model") or _first_line(part.get("model", "")) or "unknown",
        soc=prop.get("ro.soc.model") or prop.get("ro.board.platform", "") or _first_line(part.get("soc", "")),
        cpu=cpu_name(cpuinfo) or _first_line(part.get("soc", "")) or "unknown",
        abi=abi,
        os=" ".join(word for word in os_words if word),
        cores=int(_first_line(part.get("cores", "")) or 1),
        memory_bytes=(int(memory[0]) * (1024 if "MemTotal" in part.get("memory", "") else 1)) if memory else 0,
        cpu_features=cpu_features(cpuinfo),
        runtimes=runtimes,
        runners=runners,
        python=python,
        temperature_c=max(temperatures, default=None),
        ready=not reason,
        reason=reason,
    )


def _python(text: str) -> tuple[str, dict[str, str]]:
    """(interpreter, versions of what interests us) there; nothing where there is no Python that the runner can use."""
    try:
        executable, packages, version = json.loads(_first_line(text))
    except (ValueError, TypeError):
        return "", {}
    return (executable, packages) if "numpy" in packages and version >= [3, 11] else ("", {})


def _runtimes(
    packages: dict[str, str], abi: str, system: str, prefer: RunnerKind | None
) -> tuple[dict[str, str], dict[str, RunnerKind]]:
    runtimes = {name: packages[package] for name, package in RUNTIME_PACKAGES.items() if package in packages}
    if system == "Darwin" and "coremltools" in packages:  # elsewhere it converts only
        runtimes["coreml"] = packages["coremltools"]
    if "litert" not in runtimes and "tflite-runtime" in packages:
        runtimes["litert"] = packages["tflite-runtime"]
    runners: dict[str, RunnerKind] = dict.fromkeys(runtimes, "python")
    native = abi in TARGETS and system == "Linux"
    if native and prefer != "python" and (prefer == "native" or "litert" not in runtimes):
        runtimes["litert"] = metadata.version(RUNTIME_PACKAGES["litert"])
        runners["litert"] = "native"
    return runtimes, runners


def read_conditions(text: str) -> Conditions:
    """Conditions from the answer to CONDITIONS_SCRIPT; what the device does not tell is None."""
    import time

    part = parts(text)
    load = part.get("load", "").split()
    stat, _, ticks = part.get("stat", "").partition("\n")
    fields, tick = stat.split(), float(ticks.strip() or 100)
    uptime = part.get("uptime", "").split()
    cpus = _first_line(part.get("cpus", ""))
    counted = len(fields) > 8
    return Conditions(
        time=time.time(),
        clock_s=float(uptime[0]) if uptime else None,
        load_1min=float(load[0]) if load else None,
        running=int(load[3].partition("/")[0]) if len(load) > 3 else None,
        cpu_steal_s=int(fields[8]) / tick if counted else None,
        cpu_busy_s=sum(int(fields[place]) for place in (1, 2, 3, 6, 7)) / tick if counted else None,
        cpus=int(cpus) if cpus.isdigit() else None,
        frequency_mhz=tuple(int(f) / 1e3 for f in part.get("frequency", "").split() if f.isdigit()),
        temperature_c={**_zones(part.get("thermal", "")), **_battery_temperature(part.get("battery", ""))},
        **_android(part),
    )


def _zones(text: str) -> dict[str, float]:
    rows = (line.rsplit(" ", 1) for line in text.splitlines())
    return {row[0]: int(row[1]) / 1e3 for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}


def _battery_temperature(text: str) -> dict[str, float]:
    found = re.search(r"^\s*temperature: (-?\d+)", text, re.MULTILINE)
    return {"battery": int(found[1]) / 10} if found else {}


def _android(part: dict[str, str]) -> dict[str, Any]:
    """Battery, charging, screen and thermal status of an Android device."""
    battery, power = part.get("battery", ""), part.get("power", "")
    level = re.search(r"^\s*level: (\d+)", battery, re.MULTILINE)
    powered = re.findall(r"^\s*(?:AC|USB|Wireless|Dock) powered: (\w+)", battery, re.MULTILINE)
    status = re.search(r"^Thermal Status: (\d)", part.get("thermalservice", ""), re.MULTILINE)
    awake = re.search(r"mWakefulness=(\w+)", power)
    return {
        "battery_percent": int(level[1]) if level else None,
        "charging": ("true" in powered) if powered else None,
        "screen_on": awake[1] == "Awake" if awake else None,
        "thermal_status": int(status[1]) if status else None,
    }


def _first_line(text: str) -> str:
    return next((line.strip(" \0\r") for line in text.splitlines() if line.strip(" \0\r")), "")
