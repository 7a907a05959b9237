"""Comparing files: the verdict, when it comes, and the interval that it rests on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.compare import Look, compare, decide, looks_needed
from edgeprune.latency.statistics import sequential_interval
from edgeprune.latency.tflite_writer import write_operation

LAYER = OpSignature("conv2d", 16, 16, 8, 8, (3, 3), padding=(1, 1))


def chain(path: Path, layers: int) -> Path:
    write_operation(LAYER, path, times=layers)
    return path


def looks(ratios: list[float], seconds: float = 1.0) -> list[Look]:
    return [Look(ratio=ratio, pairs=60, seconds=seconds) for ratio in ratios]


def around(value: float, spread: float, count: int, seed: int = 0) -> list[Look]:
    random = np.random.default_rng(seed)
    return looks((value * np.exp(spread * random.standard_normal(count))).tolist())


@pytest.mark.parametrize("draw", ["normal", "heavy"])
def test_the_interval_hardly_ever_misses_though_it_is_looked_at_after_every_value(draw: str) -> None:
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        values = 3.0 + (random.standard_normal(40) if draw == "normal" else random.standard_t(3, 40))
        intervals = [sequential_interval(values[:n].tolist(), alpha=0.1) for n in range(1, 41)]
        missed += any(not low <= 3.0 <= high for low, high in intervals)
    assert 0 < missed <= 30  # 0.1 of 300; an interval that never missed would be of no use


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=30),
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.floats(0.001, 0.2),
)
@settings(deadline=None, max_examples=60)
def test_the_interval_moves_and_stretches_with_its_values(
    values: list[float], scale: float, shift: float, alpha: float
) -> None:
    low, high = sequential_interval(values, alpha=alpha)
    moved = sequential_interval([scale * value + shift for value in values], alpha=alpha)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-6)
    assert low <= np.mean(values) <= high


def test_too_few_values_tell_nothing() -> None:
    assert sequential_interval([]) == (-np.inf, np.inf)
    assert sequential_interval([1.0, 1.0]) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.05, "slower"), (0.95, "faster"), (1.0, "no difference"), (1.004, "no difference")]
)
def test_the_verdict_comes_as_soon_as_it_is_sure(ratio: float, verdict: str) -> None:
    found = around(ratio, 0.004, 60)
    answers = [decide(found[:n], margin=0.01, budget_s=1e6)[0] for n in range(1, 61)]
    first = next(n for n, answer in enumerate(answers, 1) if answer is not None)
    assert answers[first - 1] == verdict
    assert 4 <= first <= 20
    assert all(answer in (None, verdict) for answer in answers)


def test_what_cannot_become_clear_is_given_up_early_and_says_what_it_would_take() -> None:
    at_the_edge = looks([1.05, 0.97] * 13)
    verdict, why = decide(at_the_edge, margin=0.01, budget_s=120)
    assert verdict == "undecided"
    assert "it would take about" in why or "would never become clear" in why
    assert decide(at_the_edge[:11], margin=0.01, budget_s=120) == (None, "")
    assert looks_needed(at_the_edge, margin=0.01) > looks_needed(at_the_edge, margin=0.01, hopeful=True) > 120


def test_a_mean_that_may_yet_move_away_from_the_edge_is_given_time() -> None:
    assert decide(looks([1.02, 1.0] * 4), margin=0.01, budget_s=120) == (None, "")


def test_the_budget_is_kept() -> None:
    verdict, why = decide(looks([1.0, 1.02, 0.98], seconds=40), margin=0.01, budget_s=150)
    assert verdict == "undecided"
    assert "the whole budget" in why
    assert decide(looks([1.0, 1.02, 0.98], seconds=30), margin=0.01, budget_s=150) == (None, "")


def test_looks_needed_is_what_it_takes() -> None:
    found = around(1.0, 0.01, 10)
    needed = int(looks_needed(found, margin=0.01))
    values = np.log([look.ratio for look in found])
    like = np.resize([-1.0, 1.0], needed) * values.std() + values.mean()
    low, high = sequential_interval(like.tolist())
    assert np.log(0.99) < low + 1e-3
    assert high - 1e-3 < np.log(1.01)


def test_real_files_are_told_apart(device: LocalDevice, tmp_path: Path) -> None:
    short, long = chain(tmp_path / "short.tflite", 20), chain(tmp_path / "long.tflite", 40)
    told: list[Look] = []
    found = compare(device, short, long, margin=0.2, on_look=lambda look, _: told.append(look))
    assert found.verdict == "slower"
    assert 1.5 < found.ratio < 2.6
    assert found.sure_low is not None
    assert found.sure_low > 1.2
    assert list(found.looks) == told
    assert found.a.file == "short.tflite"
    assert found.b.median_s > found.a.median_s
    assert compare(device, long, short, margin=0.2).verdict == "faster"


def test_a_file_is_no_different_from_itself(device: LocalDevice, tmp_path: Path) -> None:
    file = chain(tmp_path / "file.tflite", 20)
    found = compare(device, file, file, margin=0.25, budget_s=300)
    assert found.verdict == "no difference"
    assert found.sure_low is not None
    assert found.sure_high is not None
    assert found.sure_low <= 1 <= found.sure_high
    assert found.low <= found.ratio <= found.high
    brief = compare(device, file, file, margin=0.25, budget_s=0.001)
    assert brief.verdict == "undecided"
    assert brief.sure_high is None
    json.loads(brief.model_dump_json(), parse_constant=pytest.fail)  # no Infinity: that is not JSON


@pytest.mark.parametrize(("margin", "budget"), [(0.0, 10), (1.0, 10), (-0.1, 10), (0.01, 0), (float("nan"), 10)])
def test_a_margin_or_budget_without_sense_is_refused(
    device: LocalDevice, tmp_path: Path, margin: float, budget: float
) -> None:
    file = chain(tmp_path / "file.tflite", 1)
    with pytest.raises(UsageError, match=r"margin|budget"):
        compare(device, file, file, margin=margin, budget_s=budget)


def test_a_file_that_is_not_there_or_does_not_run_is_named(device: LocalDevice, tmp_path: Path) -> None:
    file, broken = chain(tmp_path / "file.tflite", 1), tmp_path / "broken.tflite"
    broken.write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"missing\.tflite"):
        compare(device, file, tmp_path / "missing.tflite")
    with pytest.raises(UsageError, match=r"broken\.tflite"):
        compare(device, file, broken)
