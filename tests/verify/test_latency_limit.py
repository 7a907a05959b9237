"""Latency against the target: who is judged, by which figure, and what noise does to it."""

from __future__ import annotations

import pytest
from made_up_manifest import manifest

from edgeprune.artifacts.manifest import Manifest
from edgeprune.latency.measurement import Conditions, Measurement, Quality, Ratio, RuntimeBuild
from edgeprune.recipe import Target, TargetFile, VerdictLimits
from edgeprune.verify.speed import Speed, is_judged, latency_check

BUILD = RuntimeBuild(name="litert", version="2.3.0", sha256="0" * 64)
NOW = Conditions(time=0.0)


def measurement(seconds: float, quality: Quality = "stable") -> Measurement:
    return Measurement(
        file="m.tflite",
        device="f",
        runtime=BUILD,
        threads=1,
        samples_s=(seconds,) * 3,
        median_s=seconds,
        p90_s=seconds,
        low_s=seconds,
        high_s=seconds,
        quality=quality,
        evidence="load 3.0 on 2 cores",
        before=NOW,
        after=NOW,
    )


def ratio(value: float, quality: Quality = "stable") -> Ratio:
    return Ratio(
        ratio=value,
        low=value - 0.01,
        high=value + 0.01,
        quality=quality,
        evidence="load 3.0 on 2 cores",
        numerator=measurement(value * 1e-3, quality),
        denominator=measurement(1e-3, quality),
    )


def judge(  # type: ignore[no-untyped-def]
    speed: Speed,
    target: str | None,
    *,
    file: Manifest | None = None,
    limits: VerdictLimits | None = None,
    target_file: TargetFile | None = None,
):
    return latency_check(
        file or manifest(),
        speed,
        target=Target.parse(target) if target else None,
        limits=limits or VerdictLimits(),
        runtime="litert",
        target_file=target_file,
    )


def speed(value: float, quality: Quality = "stable", *, file: str = "m.tflite") -> Speed:
    measured = ratio(value, quality)
    return Speed({file: measured.numerator}, {file: measured})


@pytest.mark.parametrize(("value", "outcome"), [(0.3, "pass"), (0.5, "pass"), (0.515, "pass"), (0.516, "fail")])
def test_only_too_slow_fails(value: float, outcome: str) -> None:
    found = judge(speed(value), "0.5x")
    assert (found.outcome, found.unit, found.value) == (outcome, "x", value)
    assert found.limit == pytest.approx(0.515)
    assert not found.uncertain


@pytest.mark.parametrize(("target", "outcome"), [("0.5ms", "pass"), ("500us", "pass"), ("0.4ms", "fail")])
def test_absolute_targets_are_judged_by_the_time(target: str, outcome: str) -> None:
    found = judge(speed(0.5), target)
    assert (found.outcome, found.unit, found.value) == (outcome, "s", 0.5e-3)


@pytest.mark.parametrize("quality", ["noisy", "throttled"])
def test_a_miss_by_a_bad_measurement_is_uncertain(quality: Quality) -> None:
    missed = judge(speed(0.8, quality), "0.5x")
    assert (missed.outcome, missed.uncertain) == ("fail", True)
    assert quality in missed.why
    assert "load 3.0 on 2 cores" in missed.why
    met = judge(speed(0.4, quality), "0.5x")
    assert (met.outcome, met.uncertain) == ("pass", False)
    assert quality in met.why


def test_a_gate_that_is_off_only_tells() -> None:
    found = judge(speed(0.9), "0.5x", limits=VerdictLimits(latency_tolerance=False))
    assert (found.outcome, found.value, found.limit) == ("info", 0.9, None)


@pytest.mark.parametrize("target", [None, "150MMACs", "900KB"])
def test_without_a_latency_target_it_is_only_told(target: str | None) -> None:
    assert judge(speed(0.9), target).outcome == "info"


@pytest.mark.parametrize(
    "other",
    [manifest(precision="int8"), manifest(format="pte"), manifest(format="onnx"), manifest(format="coreml")],
    ids=["int8", "other runtime", "onnx", "coreml"],
)
def test_only_the_float_file_of_the_targets_runtime_is_judged(other: Manifest) -> None:
    assert not is_judged(other, "litert")
    assert judge(speed(0.9, file=other.file), "0.5x", file=other).outcome == "info"


def test_the_file_that_the_target_names_is_judged_and_no_other() -> None:
    named, int8, slim = TargetFile.parse("tflite-int8"), manifest(precision="int8"), manifest(format="slim")
    assert is_judged(int8, "litert", named)
    assert not any(is_judged(other, "litert", named) for other in (manifest(), slim, manifest(format="pte")))
    found = judge(speed(0.6), "0.5x", file=int8, target_file=named)
    assert (found.outcome, found.value) == ("fail", 0.6)
    assert "int8" in found.why
    assert judge(speed(0.6), "0.5x", file=manifest(), target_file=named).outcome == "info"


def test_a_file_that_runs_on_no_device_has_no_latency() -> None:
    assert judge(Speed(), "0.5x", file=manifest(format="coreml", file="m.mlpackage")) is None


def test_every_file_of_the_targets_runtime_is_judged_by_its_own_ratio() -> None:
    """An exporter of somebody's may write a second one; its latency was looked up where it had not been measured."""
    slim = manifest(format="slim", file="m.slim.tflite")
    assert is_judged(slim, "litert")
    both = Speed(ratios={"m.tflite": ratio(0.4), slim.file: ratio(0.7)}, latencies={slim.file: measurement(7e-4)})
    found = judge(both, "0.5x", file=slim)
    assert (found.outcome, found.value) == ("fail", 0.7)
