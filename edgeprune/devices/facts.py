"""What this machine is."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import psutil

from edgeprune.devices.base import DeviceFacts

RUNTIME_PACKAGES = {"litert": "ai-edge-litert", "executorch": "executorch", "onnxruntime": "onnxruntime"}

# Features that choose kernels in XNNPACK, oneDNN or MLAS; the others would only make fingerprints fragile.
KERNEL_FEATURES = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "gfni"),
    *("asimd", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
)


def local_facts() -> DeviceFacts:
    """Facts of the machine this runs on; what it does not tell is "unknown" (or 0 bytes of memory)."""
    cpuinfo = _read(Path("/proc/cpuinfo"))
    runtimes = _runtimes()
    return DeviceFacts(
        id="local",
        kind="local",
        model=_machine_model(),
        soc=_read(Path("/proc/device-tree/compatible")).strip("\0").replace("\0", " "),
        cpu=cpu_name(cpuinfo) or platform.processor() or "unknown",
        abi=abi_of(platform.machine()),
        os=_os_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        cpu_features=cpu_features(cpuinfo),
        runtimes=runtimes,
        runners=dict.fromkeys(runtimes, "python"),
        python=sys.executable,
    )


def _runtimes() -> dict[str, str]:
    versions = {}
    for name, package in RUNTIME_PACKAGES.items():
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _machine_model() -> str:
    for path in ("/sys/devices/virtual/dmi/id/product_name", "/proc/device-tree/model"):
        if text := _read(Path(path)).strip("\0 \n"):
            return text
    return "unknown"


def abi_of(machine: str) -> str:
    """The processor's architecture by its usual name."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The features in /proc/cpuinfo's text that choose kernels."""
    flags = set(_field(cpuinfo, "flags").split()) | set(_field(cpuinfo, "Features").split())
    return tuple(name for name in KERNEL_FEATURES if name in flags)


def cpu_name(cpuinfo: str) -> str:
    """The CPU by name, or by implementer and part as ARM Linux gives it; empty where it is not told."""
    if name := _field(cpuinfo, "model name"):
        family, model = _field(cpuinfo, "cpu family"), _field(cpuinfo, "model")
        return f"{name} (family {family}, model {model})" if family else name
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.MULTILINE)))
    if parts:
        return f"implementer {_field(cpuinfo, 'CPU implementer')}, parts {' '.join(parts)}"
    return ""


def _os_name() -> str:
    """System, release (major.minor) and C library: a patch release does not make another device."""
    release = ".".join(platform.release().split(".")[:2])
    library = " ".join(platform.libc_ver()).strip()
    return f"{platform.system()} {release} {library}".strip()


def _field(cpuinfo: str, name: str) -> str:
    match = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
