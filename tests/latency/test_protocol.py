from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening import Listening
from test_cost import BUILD

from edgeprune.devices.events import Visit
from edgeprune.devices.jobs import CaseResult, Job, JobResult
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency import pairs, protocol
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Conditions
from edgeprune.latency.pairs import measure_ratio, measure_ratios
from edgeprune.latency.presets import PROTOCOLS
from edgeprune.latency.protocol import measure, measure_peak_memory
from edgeprune.latency.tflite_writer import write_operation

SHORT = replace(
    PROTOCOLS["probe"], timing=replace(PROTOCOLS["probe"].timing, rounds=4), least_processes=2, most_processes=2
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "small.tflite", tmp_path / "large.tflite"
    for path, channels in zip(paths, (16, 64), strict=True):
        write_operation(OpSignature("conv2d", channels, channels, 16, 16, (3, 3), padding=(1, 1)), path)
    return paths


def test_a_measurement_carries_all_that_is_needed_to_judge_it(device: LocalDevice, files: tuple[Path, Path]) -> None:
    progress = Listening()
    small, large = measure(device, files, runtime="litert", protocol=SHORT, progress=progress)
    assert (small.file, large.file) == ("small.tflite", "large.tflite")
    for m in (small, large):
        assert m.device == device.facts().fingerprint
        assert m.runtime.version == device.facts().runtimes["litert"]
        assert m.low_s <= m.median_s <= m.high_s
        assert m.median_s <= m.p90_s
        assert len(m.samples_s) >= 4 * 3
        assert m.median_s == pytest.approx(float(np.median(m.samples_s)))
        assert m.after.time >= m.before.time
        assert "interval" in m.evidence
    assert progress.told[-1] == ("timing small.tflite, large.tflite", 8, 8)


def test_a_ratio_holds_both_sides(device: LocalDevice, files: tuple[Path, Path]) -> None:
    ratio = measure_ratio(device, *files, runtime="litert", protocol=SHORT)
    assert ratio.low <= ratio.ratio <= ratio.high
    assert (ratio.numerator.file, ratio.denominator.file) == ("small.tflite", "large.tflite")
    assert "24 pairs in 2 processes" in ratio.evidence


def test_files_of_two_runtimes_take_turns_in_processes_of_their_own(
    device: LocalDevice, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds of two processes, whatever fewer the protocol asks for; the second one first in every other."""
    jobs: list[Job] = []

    def noted(on: Any, job: Job, **more: Any) -> JobResult:
        jobs.append(job)
        return timed_job(on, replace(job, runtime="litert"), **more)  # the other runtime need not be installed

    monkeypatch.setattr(pairs, "timed_job", noted)
    ratio = measure_ratio(device, *files, runtime="executorch", against="litert", protocol=SHORT)
    assert [job.runtime for job in jobs] == ["executorch", "litert", "litert", "executorch", "executorch", "litert"]
    assert all(len(job.cases) == 1 for job in jobs)
    assert ratio.low <= ratio.ratio <= ratio.high < 1  # the small file is the numerator, whichever ran first
    assert (ratio.numerator.file, ratio.denominator.file) == ("small.tflite", "large.tflite")


@pytest.mark.parametrize(("against", "processes"), [("litert", 2), ("executorch", 6)])
def test_several_files_share_the_processes_and_the_visits_to_the_other(
    device: LocalDevice,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    against: str,
    processes: int,
) -> None:
    """Each ratio belongs to its file, whatever the order in which they are visited."""
    middle = tmp_path / "middle.tflite"
    write_operation(OpSignature("conv2d", 40, 40, 16, 16, (3, 3), padding=(1, 1)), middle)
    jobs: list[Job] = []

    def noted(on: Any, job: Job, **more: Any) -> JobResult:
        jobs.append(job)
        return timed_job(on, replace(job, runtime="litert"), **more)

    monkeypatch.setattr(pairs, "timed_job", noted)
    small, large = files
    ratios = measure_ratios(
        device, [large, small], middle, runtime="litert", against=against, protocol=replace(SHORT, most_processes=3)
    )
    assert len(jobs) in (processes, processes + 1)  # together: a third round, where two were not precise enough
    assert [one.numerator.file for one in ratios] == ["large.tflite", "small.tflite"]
    assert ratios[1].ratio < 1 < ratios[0].ratio
    assert ratios[0].denominator == ratios[1].denominator


def test_peak_memory_is_told(device: LocalDevice, files: tuple[Path, Path]) -> None:
    assert measure_peak_memory(device, files[1], runtime="litert") >= 64 * 64 * 9 * 4


def test_a_file_that_does_not_run_is_named(device: LocalDevice, files: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"bad")
    with pytest.raises(UsageError, match=r"bad\.tflite"):
        measure(device, [files[0], bad], runtime="litert", protocol=SHORT)
    with pytest.raises(UsageError, match="quick, standard, mlperf, probe"):
        measure(device, files, runtime="litert", protocol="fast")


def simulated(latency: Callable[[int, int, int], float], clock: Callable[[int], float]) -> Callable[..., JobResult]:
    """A device made of numbers: `latency(file, process, round)` in seconds, `clock(process)` in MHz."""
    processes = iter(range(1000))

    def run_job(device: Any, job: Job, **settings: Any) -> JobResult:
        process = next(processes)
        assert job.timing is not None
        cases = {}
        for number, case in enumerate(job.cases):
            visits = [Visit(r, (latency(number, process, r),) * 3, (), 1, None) for r in range(job.timing.rounds)]
            cases[case.id] = CaseResult(case.id, visits, finished=True)
        before = Conditions(time=10.0 * process, frequency_mhz=(clock(process),))
        after = Conditions(time=10.0 * process + 9, frequency_mhz=(clock(process + 1),))
        return JobResult(BUILD, before, after, cases)

    return run_job


def ratio_of(monkeypatch: pytest.MonkeyPatch, device: LocalDevice, files: tuple[Path, Path], run: Any) -> Any:
    monkeypatch.setattr(pairs, "timed_job", run)
    return measure_ratio(device, *files, runtime="litert", protocol="quick")


def test_quiet_pairs_end_early_and_slow_phases_cancel(
    monkeypatch: pytest.MonkeyPatch, device: LocalDevice, files: tuple[Path, Path]
) -> None:
    random = np.random.default_rng(0)

    def latency(file: int, process: int, round: int) -> float:
        slow_phase = 1.5 if round > 25 else 1.0  # both files of a pair share it
        return (1.0, 2.0)[file] * slow_phase * (1 + 0.01 * random.standard_normal())

    ratio = ratio_of(monkeypatch, device, files, simulated(latency, lambda process: 2000.0))
    assert ratio.quality == "stable"
    assert ratio.ratio == pytest.approx(0.5, rel=0.01)
    assert ratio.low <= 0.5 <= ratio.high
    assert "80 pairs in 2 processes" in ratio.evidence


def test_noise_is_met_with_more_pairs_and_then_said(
    monkeypatch: pytest.MonkeyPatch, device: LocalDevice, files: tuple[Path, Path]
) -> None:
    random = np.random.default_rng(0)
    run = simulated(lambda file, process, round: random.lognormal(0, 0.6), lambda process: 2000.0)
    ratio = ratio_of(monkeypatch, device, files, run)
    assert ratio.quality == "noisy"
    assert "240 pairs in 6 processes" in ratio.evidence


def test_a_falling_clock_is_called_throttling(
    monkeypatch: pytest.MonkeyPatch, device: LocalDevice, files: tuple[Path, Path]
) -> None:
    random = np.random.default_rng(0)
    run = simulated(
        lambda file, process, round: (1 + 0.1 * process) * (1 + 0.001 * random.standard_normal()),
        lambda process: 2000.0 - 100 * process,
    )
    ratio = ratio_of(monkeypatch, device, files, run)
    assert ratio.quality == "throttled"
    assert ratio.ratio == pytest.approx(1.0, rel=0.01)


def test_what_was_throttled_is_measured_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, device: LocalDevice, files: tuple[Path, Path]
) -> None:
    """The first process throttles; the second runs at the lower clock throughout."""
    pauses: list[float] = []
    monkeypatch.setattr(protocol.time, "sleep", pauses.append)
    falling = {0: 2000.0, 1: 1000.0}

    def latency(file: int, process: int, round: int) -> float:
        return 1.0 + 0.1 * round if process == 0 else 2.0

    run = simulated(latency, lambda process: falling.get(process, 1000.0))
    monkeypatch.setattr(protocol, "timed_job", run)
    first, second = measure(device, files, runtime="litert", protocol="quick")
    assert pauses == [PROTOCOLS["quick"].pause_s]
    assert first.median_s == second.median_s == 2.0
    assert first.quality == "stable"
