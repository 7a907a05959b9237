"""What runs a job on a device: the Python runner where the runtime is installed there, else the native one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.devices.base import Device, DeviceFacts
from edgeprune.devices.conditions import RuntimeName
from edgeprune.devices.facts import RUNTIME_PACKAGES
from edgeprune.devices.phone_app import EXECUTABLE
from edgeprune.errors import DeviceError, ToolkitMissing


@dataclass(frozen=True)
class Runner:
    """A runner as it is put on a device and started there."""

    files: Mapping[str, Path]  # path in the work folder -> file here
    argv: tuple[str, ...]  # what comes before the job's path
    job: Mapping[str, object] = field(default_factory=dict)  # what its jobs say besides


def runner_for(device: Device, runtime: RuntimeName) -> Runner:
    """The runner of a runtime on a device.

    Raises:
        ToolkitMissing: the runtime is not on the device, or what the native runner is made of is not here.
        DeviceError: the device is an iPhone that is not ready; says why.
    """
    facts = device.facts()
    kind = facts.runners.get(runtime)
    if kind is None:
        if facts.kind == "apple" and not facts.ready and not facts.python:
            raise DeviceError(facts.reason, where=device.id, hint=facts.fix or None)
        raise ToolkitMissing(
            f"the runtime {runtime} is not on the device", where=device.id, hint=_how_to_get(runtime, facts)
        )
    if kind == "app":
        return Runner(files={}, argv=(EXECUTABLE,))
    return _python(device, facts.python) if kind == "python" else native_runner(device, facts.abi)


def _how_to_get(runtime: RuntimeName, facts: DeviceFacts) -> str:
    if facts.kind == "adb" and runtime == "litert" and not facts.runtimes:
        return f"{facts.abi} is not of 64 bits, as the native runner is: take a phone whose system is"
    if facts.kind == "adb":
        return "phones run .tflite files only, so far"
    if "app" in facts.runners.values():
        return "iPhones and iPads run Core ML packages only"
    if runtime == "coreml" and facts.kind != "apple":
        return "Core ML runs on Macs, iPhones and iPads: name one with --device"
    package = {**RUNTIME_PACKAGES, "coreml": "coremltools"}.get(runtime, runtime)
    return f"pip install {package}" + (f" with {facts.python}" if facts.python else "")


def native_runner(device: Device, abi: str) -> Runner:
    """The native runner, in a folder named by its content: it goes over once."""
    from edgeprune.devices.bundle import native_bundle

    bundle = native_bundle(abi)
    folder = f"native/{bundle.key}"
    library = {
        "path": device.path(f"{folder}/{bundle.library}"),
        "version": bundle.version,
        "sha256": bundle.library_sha256,
    }
    return Runner(
        files={f"{folder}/{name}": file for name, file in bundle.files.items()},
        argv=tuple(_placed(word, device.path(folder)) for word in bundle.command),
        job={"library": library},
    )


def _placed(word: str, folder: str) -> str:
    """A word of the bundle's command, which is relative to its folder."""
    if word == ".":
        return folder
    return f"{folder}/{word.removeprefix('./')}" if word.startswith("./") else word


PYTHON_RUNNER = ("python_runner", "runner_conditions", "runner_runtimes", "runner_tensors", "litert_profile")


def _python(device: Device, python: str) -> Runner:
    files = {f"runner/{name}.py": _script(name) for name in PYTHON_RUNNER}
    files["runner/python_runner.py"] = runner_script()
    return Runner(files=files, argv=(python, "-u", device.path("runner/python_runner.py")))


def runner_script() -> Path:
    """The program of the Python runner."""
    return _script("python_runner")


def _script(name: str) -> Path:
    spec = importlib.util.find_spec(f"apps.runner.{name}")
    if spec is None or spec.origin is None:
        raise DeviceError("the Python runner is not installed", hint="install edgeprune with its `apps` package")
    return Path(spec.origin)
