"""Checks of what a file costs: latency against the target, memory, size, and what runs outside the accelerator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgeprune.artifacts.manifest import Delegation, Manifest, file_size
from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeName
from edgeprune.devices.runtimes import runtime_of as runtime_of_file
from edgeprune.errors import UsageError
from edgeprune.latency.measurement import Measurement, Quality, Ratio
from edgeprune.latency.pairs import SPREAD_SEEN, measure_ratios
from edgeprune.latency.presets import find_protocol
from edgeprune.latency.profile import Profile, profile
from edgeprune.latency.protocol import measure, measure_peak_memory
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Runtime, Target, TargetFile, VerdictLimits
from edgeprune.verify.execute import runtime_of, runtime_on
from edgeprune.verify.limits import at_most, info
from edgeprune.verify.verdict import SIZE, Check

Protocol = Literal["quick", "standard", "mlperf"]

PROFILE_RUNS = 60  # seconds on a slow device; `edgeprune profile` takes more
SIDE_BY_SIDE = 3  # files in one process beside the original's
_SECONDS = {"ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Speed:
    """Latencies by file name, and their ratios to the original's, measured in turns with it."""

    latencies: Mapping[str, Measurement] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)


def measure_speed(
    manifests: Sequence[Manifest],
    folder: Path,
    device: Device,
    *,
    target: Target | None,
    original_file: Path | None,
    runtime: Runtime,
    threads: int,
    protocol: Protocol,
    target_file: TargetFile | None = None,
    progress: Progress = SILENT,
) -> Speed:
    """Measure every file that runs on the device: in turns with the original where that is given.

    All have one denominator, so that their ratios can be held against one another (`shipping.ratio_of`), whatever the
    load was when each was measured.

    Raises:
        UsageError: the target is a share of the original, and the original's file is not given.
        DeviceError: the device was lost.
    """
    if target is not None and target.unit == "x" and original_file is None:
        raise UsageError(
            f"the target {target} is a share of the original's latency, and the original's file is missing",
            hint="run the probe stage first: it exports and measures the original",
        )
    found = find_protocol(protocol)
    least = max(found.least_processes, SPREAD_SEEN)  # files are compared, and processes differ
    whole = replace(found, least_processes=least, most_processes=max(found.most_processes, least))
    short = replace(whole, most_processes=least)  # of a file that is only told no half width has to be reached
    ratios: dict[str, Ratio] = {}
    if original_file is not None:
        judged = [m for m in manifests if is_judged(m, runtime, target_file)]
        told = [m for m in manifests if m not in judged]
        for settings, some in ((whole, judged), (short, told)):
            for name, group in _side_by_side(device, some):
                measured = measure_ratios(
                    device,
                    [folder / m.file for m in group],
                    original_file,
                    runtime=name,
                    against=runtime_of_file(original_file),
                    threads=threads,
                    protocol=settings,
                    progress=progress,
                )
                ratios |= {m.file: one for m, one in zip(group, measured, strict=True)}
    latencies = _told_by(ratios, manifests, target=target, runtime=runtime, protocol=protocol, target_file=target_file)
    for name, group in _by_runtime(device, [m for m in manifests if m.file not in latencies]).items():
        files = [folder / m.file for m in group]
        alone = measure(device, files, runtime=name, threads=threads, protocol=protocol, progress=progress)
        latencies |= {m.file: one for m, one in zip(group, alone, strict=True)}
    return Speed(latencies, ratios)


def _told_by(
    ratios: Mapping[str, Ratio],
    manifests: Sequence[Manifest],
    *,
    target: Target | None,
    runtime: Runtime,
    protocol: Protocol,
    target_file: TargetFile | None,
) -> dict[str, Measurement]:
    """The latencies that are known with the ratios: none where the target is an absolute time, and of files that are
    not judged none where the protocol wants them measured apart."""
    if target is not None and target.unit in _SECONDS:
        return {}
    apart = find_protocol(protocol).apart
    told = {m.file for m in manifests if not apart or is_judged(m, runtime, target_file)}
    return {name: ratio.numerator for name, ratio in ratios.items() if name in told}


def is_judged(manifest: Manifest, runtime: Runtime, target_file: TargetFile | None = None) -> bool:
    """Whether this is the file that the latency target is about: the one that is named, or where none is, fp32, in the
    runtime that was pruned for."""
    if target_file is not None:
        return (manifest.format, manifest.precision) == (target_file.format, target_file.precision)
    return manifest.precision == "fp32" and runtime_of(manifest) == runtime


def latency_check(
    manifest: Manifest,
    speed: Speed,
    *,
    target: Target | None,
    limits: VerdictLimits,
    runtime: Runtime,
    target_file: TargetFile | None = None,
) -> Check | None:
    """Latency against the target: slower than target x (1 + tolerance) fails, faster passes.

    None when the file runs on no device. A miss by a measurement that is not stable is marked `uncertain`.
    """
    measurement = speed.latencies.get(manifest.file)
    if measurement is None:
        return None
    if target is None or not target.is_latency or not is_judged(manifest, runtime, target_file):
        return info("latency", measurement.median_s, unit="s", why=_said(measurement))
    tolerance = limits.latency_tolerance
    if target.unit == "x":
        ratio = speed.ratios[manifest.file]
        value, goal, unit, quality, evidence = ratio.ratio, target.value, "x", ratio.quality, ratio.evidence
        original = f"the original's {manifest.precision} latency, interleaved with it"
        said = f"{value:.3f} of {original} ({ratio.low:.3f} to {ratio.high:.3f})"
    else:
        value, goal, unit = measurement.median_s, target.value * _SECONDS[target.unit], "s"
        quality, evidence, said = measurement.quality, measurement.evidence, _said(measurement)
    limit = False if tolerance is False else goal * (1 + tolerance)
    check = at_most("latency", value, limit, unit=unit, why=f"{said}; the target is {target} of this file")
    return check if check.outcome == "info" else _judged(check, tolerance, quality, evidence)


def memory_check(device: Device, manifest: Manifest, folder: Path, limits: VerdictLimits) -> Check | None:
    """Peak memory of the file on the device; None when it runs on no device."""
    runtime = runtime_on(device, manifest)
    if runtime is None:
        return None
    value = measure_peak_memory(device, folder / manifest.file, runtime=runtime)
    if value is None:
        why = f"{device.id} does not tell it"
        untold = info("peak memory", math.nan, unit="bytes", why=why)
        return untold if limits.peak_memory_bytes is False else untold.model_copy(update={"outcome": "fail"})
    return at_most(
        "peak memory", value, limits.peak_memory_bytes, unit="bytes", why="memory the runtime took to load and run it"
    )


def profile_of_file(
    device: Device, manifest: Manifest, folder: Path, *, threads: int, progress: Progress
) -> Profile | None:
    """Time of each kernel of the file in place; None where it runs on no device or its runtime does not tell."""
    if runtime_on(device, manifest) != "litert":
        return None
    try:
        return profile(device, folder / manifest.file, threads=threads, runs=PROFILE_RUNS)
    except UsageError as error:  # it runs, as its latency shows; its profiler does not (tflite-runtime has none)
        progress.say(f"{manifest.file}: no times of its kernels: {error.what}")
        return None


def size_check(manifest: Manifest, folder: Path, limits: VerdictLimits) -> Check:
    """Size of the file (of all files in a package)."""
    return at_most(
        SIZE, file_size(folder / manifest.file), limits.size_bytes, unit="bytes", why="what has to be shipped"
    )


def delegation_check(delegation: Delegation | None) -> Check | None:
    """Share of operators that the accelerated backend does not run, with their names; None where it is not known."""
    if delegation is None:
        return None
    total = delegation.delegated + delegation.outside
    names = ", ".join(f"{name} ({count})" for name, count in sorted(delegation.outside_operators.items()))
    why = (
        f"{delegation.outside} of {total} operators run outside {delegation.backend}: {names or 'names not known'}"
        if delegation.outside
        else f"{delegation.backend} runs all {total} operators"
    )
    return info("operators outside the delegate", delegation.share_outside, unit="share", why=why)


def _judged(check: Check, tolerance: float, quality: Quality, evidence: str) -> Check:
    """Say how the figure was judged, and how far it can be trusted."""
    judgement = (
        f"not more than {100 * tolerance:g} % above it"
        if check.outcome == "pass"
        else f"more than {100 * tolerance:g} % above it: too slow"
    )
    why = f"{check.why}; {judgement}"
    if quality == "stable":
        return check.model_copy(update={"why": why})
    if check.outcome == "pass":
        return check.model_copy(update={"why": f"{why}; the measurement is {quality}: {evidence}"})
    advice = f"{why}, but the measurement is {quality} ({evidence}): measure again on a quiet device"
    return check.model_copy(update={"why": advice, "uncertain": True})


def _said(measurement: Measurement) -> str:
    build = measurement.runtime
    return (
        f"median of {len(measurement.samples_s)} samples on {build.name} {build.version},"
        f" {measurement.threads} thread{'s' if measurement.threads > 1 else ''}; {measurement.quality}"
    )


def _side_by_side(device: Device, manifests: Iterable[Manifest]) -> Iterator[tuple[RuntimeName, list[Manifest]]]:
    """The files of a runtime share processes: a few of them, since a process holds all of its models in memory."""
    for name, group in _by_runtime(device, manifests).items():
        for first in range(0, len(group), SIDE_BY_SIDE):
            yield name, group[first : first + SIDE_BY_SIDE]


def _by_runtime(device: Device, manifests: Iterable[Manifest]) -> dict[RuntimeName, list[Manifest]]:
    groups: dict[RuntimeName, list[Manifest]] = {}
    for manifest in manifests:
        runtime = runtime_on(device, manifest)
        if runtime is not None:
            groups.setdefault(runtime, []).append(manifest)
    return groups
