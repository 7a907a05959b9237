"""Measuring a device the way it has to be: on the cores that its profile names, and never while it is too hot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from device_profiles import DeviceProfile, ProfileError, match_profile, user_folder
from edgeprune.devices.base import Device
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.jobs import Job, JobResult, run_job
from edgeprune.errors import DeviceError, UsageError
from edgeprune.latency.tflite_check import read_whole

MODERATE = 2  # from this thermal status on Android slows processors down
POLL_S = 2.0
PATIENCE_S = 300.0  # MLPerf Mobile's app pauses this long between two tests


def timed_job(
    device: Device,
    job: Job,
    *,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> JobResult:
    """Run a latency job once the device is cool enough, on the cores of its profile.

    A damaged .tflite file is found here: on the device it would crash the runtime, or take all memory.

    Raises:
        DeviceError: the device stays hotter than its profile's limit for `patience_s`, is in use, or was lost.
        UsageError, ToolkitMissing: as `run_job`.
    """
    if job.runtime == "litert":
        for file in {case.model for case in job.cases if case.model.is_file()}:
            read_whole(file)
    profile = profile_of(device)
    wait_until_cool(device, profile, patience_s=patience_s)
    cores = profile.cpu_affinity if job.threads <= len(profile.cpu_affinity) else ()  # one core each, or the system's
    return run_job(device, replace(job, cores=cores), on_event=on_event)


def profile_of(device: Device) -> DeviceProfile:
    """The profile that fits a device best, the user's own first.

    Raises:
        UsageError: a profile's file is not valid; names it.
    """
    try:
        return match_profile(device.facts())
    except ProfileError as error:
        raise UsageError(
            str(error), hint=f"mend it or take it away; your own profiles are in {user_folder()}"
        ) from error


def wait_until_cool(device: Device, profile: DeviceProfile, *, patience_s: float = PATIENCE_S) -> Conditions | None:
    """Wait until no temperature is above the profile's limit and the phone does not throttle; None where the profile
    names no limit and the device is no phone (nor a Mac, which tells nothing).

    Raises:
        DeviceError: it does not cool down in time (says how hot which part is), or is in low power mode.
    """
    limit = profile.thermal_limit_c
    if limit is None and device.facts().kind not in ("adb", "apple"):
        return None
    deadline = time.monotonic() + patience_s
    while True:
        now = device.conditions()
        if now.low_power:
            raise DeviceError(
                "low power mode is on, which lowers its clock",
                where=device.id,
                hint="switch it off in Settings, Battery",
            )
        hot = {n: f"{value:.0f} C" for n, value in now.temperature_c.items() if limit is not None and value > limit}
        if (now.thermal_status or 0) >= MODERATE:
            hot["thermal status"] = str(now.thermal_status)
        if not hot:
            return now
        if time.monotonic() >= deadline:
            shown = ", ".join(f"{name} {value}" for name, value in sorted(hot.items()))
            raise DeviceError(
                f"the device is still too hot to measure after {patience_s:.0f} s: {shown}",
                where=device.id,
                hint=f"let it cool{'' if limit is None else f' below {limit:.0f} C'} (its profile is {profile.name})",
            )
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
