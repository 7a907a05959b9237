"""Preparing a device: the runner goes over, and every runtime there is started once."""

from __future__ import annotations

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeBuild
from edgeprune.devices.jobs import runtime_build
from edgeprune.errors import DeviceError


def prepare_device(device: Device) -> list[RuntimeBuild]:
    """Put the runner there (skipped where the same one is) and start each runtime. An iPhone's app is the user's to
    sign and install: without it the error says how.

    Raises:
        ToolkitMissing: what the native runner is made of is not here.
        DeviceError: the device runs nothing, was lost, is full, or a runtime does not start.
    """
    facts = device.facts()
    if not facts.runtimes:
        hint = facts.fix or "see docs/devices.md"
        raise DeviceError(facts.reason or "nothing runs models there", where=device.id, hint=hint)
    return [runtime_build(device, name) for name in facts.runtimes]
