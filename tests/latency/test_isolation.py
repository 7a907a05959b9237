"""Measuring with care: the cores of the profile, never while too hot, watched all the while, warmed up until steady."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from listening import Listening

from edgeprune.devices.base import DeviceFacts
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.jobs import Case, Job, Timing
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DeviceError, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency import isolation
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.presets import PROTOCOLS
from edgeprune.latency.protocol import measure
from edgeprune.latency.tflite_writer import write_operation

PROFILE = """
version = 1
name = "the user's own"
channel_multiple = 8
channel_multiple_int8 = 8
minimum_width = 8
preferred_runtime = "litert"
{facts}
[match]
kind = "local"
[sources]
channel_multiple = "not measured"
channel_multiple_int8 = "not measured"
clusters = "not measured"
minimum_width = "not measured"
preferred_runtime = "not measured"
cpu_affinity = "the test"
thermal_limit_c = "the test"
"""
TIMING = Timing("interleaved", 3, True, warm_up_runs=2, warm_up_s=0.0, min_runs=3, min_s=0.002, max_samples=20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    write_operation(OpSignature("conv2d", 16, 16, 16, 16, (3, 3), padding=(1, 1)), path)
    return path


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the user's own profile of this machine."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "edgeprune" / "device_profiles"
    folder.mkdir(parents=True)
    return lambda facts: (folder / "own.toml").write_text(PROFILE.format(facts=facts)) and None


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the temperature of a thermal zone, in a tree of sysfs of the test's own."""
    monkeypatch.setenv("SYSFS_PATH", str(tmp_path / "sys"))
    folder = tmp_path / "sys" / "class" / "thermal" / "thermal_zone0"
    folder.mkdir(parents=True)
    (folder / "type").write_text("cpu-thermal\n")

    def heat(degrees: float) -> None:
        part = folder / "temp.part"
        part.write_text(f"{degrees * 1e3:.0f}\n")
        part.replace(folder / "temp")

    return heat


def job(file: Path, **settings: Any) -> Job:
    return Job("litert", (Case("a", file),), timing=replace(TIMING, **settings))


def events(device: LocalDevice, given: Job, kind: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    timed_job(device, given, on_event=seen.append)
    return [event for event in seen if event["event"] == kind]


def test_the_runner_stays_on_the_cores_of_the_profile(
    device: LocalDevice, file: Path, profile: Callable[[str], None]
) -> None:
    last = max(os.sched_getaffinity(0))
    profile(f"cpu_affinity = [{last}]")
    (start,) = events(device, job(file), "start")
    assert start["cores"] == [last]
    (start,) = events(device, replace(job(file), threads=2), "start")
    assert len(start["cores"]) == len(os.sched_getaffinity(0))  # two threads on one core would only be in the way


def test_cores_that_are_not_there_are_an_error(device: LocalDevice, file: Path, profile: Callable[[str], None]) -> None:
    profile("cpu_affinity = [1023]")
    with refused(DeviceError, 1023, code=4):
        timed_job(device, job(file))


def test_a_device_that_never_cools_is_not_measured(
    device: LocalDevice, file: Path, profile: Callable[[str], None], zone: Callable[[float], None]
) -> None:
    profile("thermal_limit_c = 60.0")
    zone(81.5)
    with pytest.raises(DeviceError, match=r"too hot .*thermal_zone0:cpu-thermal 82 C") as caught:
        timed_job(device, job(file), patience_s=0.1)
    assert caught.value.exit_code == 4
    assert "60 C" in caught.value.hint


class HotPhone(LocalDevice):
    """This machine, were it a phone that Android slows down."""

    def facts(self) -> DeviceFacts:
        return super().facts().model_copy(update={"kind": "adb"})

    def conditions(self) -> Conditions:
        return super().conditions().model_copy(update={"thermal_status": 3})


def test_a_phone_that_android_slows_down_is_not_measured(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"too hot .*thermal status 3"):
        timed_job(HotPhone(tmp_path / "phone"), job(file), patience_s=0.1)


def test_measuring_begins_once_the_device_is_cool(
    device: LocalDevice,
    file: Path,
    profile: Callable[[str], None],
    zone: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolation, "POLL_S", 0.05)
    profile("thermal_limit_c = 60.0")
    zone(75.0)
    cooling = threading.Timer(0.5, zone, [50.0])
    cooling.start()
    begin = time.monotonic()
    result = timed_job(device, job(file))
    assert time.monotonic() - begin > 0.4
    assert result.before.temperature_c == {"thermal_zone0:cpu-thermal": 50.0}


def test_conditions_are_watched_between_visits(device: LocalDevice, file: Path, zone: Callable[[float], None]) -> None:
    zone(41.0)
    result = timed_job(device, job(file, rounds=4, min_s=0.6, max_samples=100_000))
    assert result.during
    assert [seen.clock_s for seen in result.watched] == sorted(seen.clock_s or 0 for seen in result.watched)
    assert all(seen.temperature_c == {"thermal_zone0:cpu-thermal": 41.0} for seen in result.watched)
    assert result.after.own_s is not None
    assert result.before.own_s is not None
    assert result.after.own_s - result.before.own_s > 0.5


def test_the_warm_up_goes_on_until_the_latency_is_steady(device: LocalDevice, file: Path) -> None:
    (quick,) = events(device, job(file), "warm")
    assert (quick["runs"], quick["steady"]) == (2, None)
    (steady,) = events(device, job(file, steady=0.5, warm_up_most_s=5.0), "warm")
    assert steady["steady"] is True
    assert steady["runs"] >= 16
    (never,) = events(device, job(file, steady=-1.0, warm_up_most_s=0.05), "warm")
    assert never["steady"] is False
    assert never["seconds"] >= 0.05


def test_files_are_measured_apart_where_the_protocol_says_so(device: LocalDevice, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    write_operation(OpSignature("conv2d", 8, 8, 16, 16, (3, 3), padding=(1, 1)), other)
    apart = replace(PROTOCOLS["mlperf"], timing=TIMING, pause_s=0.3)
    progress = Listening()
    begin = time.monotonic()
    first, second = measure(device, [file, other], runtime="litert", protocol=apart, progress=progress)
    assert time.monotonic() - begin > 0.3
    assert (first.file, second.file) == ("small.tflite", "other.tflite")
    assert first.after.clock_s is not None
    assert second.before.clock_s is not None
    assert second.before.clock_s - first.after.clock_s > 0.29
    assert progress.told[-1] == ("timing other.tflite", 6, 6)


def test_mlperf_asks_for_its_1024_runs_in_60_seconds() -> None:
    timing = PROTOCOLS["mlperf"].timing
    assert timing.rounds * timing.min_runs >= 1024
    assert timing.rounds * timing.min_s >= 60
    assert PROTOCOLS["mlperf"].pause_s == 300


def test_a_measurement_tells_its_least_and_its_trimmed_mean(device: LocalDevice, file: Path) -> None:
    (found,) = measure(device, [file], runtime="litert", protocol=replace(PROTOCOLS["quick"], timing=TIMING))
    assert found.least_s == min(found.samples_s)
    assert found.least_s <= found.trimmed_mean_s <= max(found.samples_s)
    dumped = found.model_dump(mode="json")
    assert dumped["trimmed_mean_s"] == found.trimmed_mean_s
    assert type(found).model_validate(dumped) == found


def test_a_profile_that_cannot_be_read_is_named(
    device: LocalDevice, file: Path, profile: Callable[[str], None], tmp_path: Path
) -> None:
    profile("thermal_limit_c = -5")
    with pytest.raises(UsageError, match=r"own\.toml.*thermal_limit_c") as caught:
        timed_job(device, job(file))
    assert caught.value.exit_code == 2
