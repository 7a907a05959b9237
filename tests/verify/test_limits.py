"""Gates: what passes, what fails, what is only told, and what the process exits with."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.manifest import Delegation
from edgeprune.verify.limits import at_least, at_most
from edgeprune.verify.speed import delegation_check
from edgeprune.verify.verdict import Check, FileVerdict, Verdict, exit_code, worst_code

FIGURES = st.floats(-1e6, 1e6)


def check(outcome: str, *, uncertain: bool = False) -> Check:
    return Check.model_validate(
        {"name": "n", "value": 1.0, "unit": "x", "limit": 1.0, "outcome": outcome, "why": "w", "uncertain": uncertain}
    )


def verdict(*checks: Check) -> Verdict:
    file = FileVerdict(file="m.tflite", format="tflite", precision="fp32", executed_on="local", checks=checks)
    return Verdict(device="local", test_images=1, accuracy={"original": 0.5}, files=(file,))


@given(FIGURES, FIGURES)
def test_a_limit_separates(value: float, limit: float) -> None:
    assert at_least("n", value, limit, unit="x", why="w").outcome == ("pass" if value >= limit - 1e-9 else "fail")
    assert at_most("n", value, limit, unit="x", why="w").outcome == ("pass" if value <= limit + 1e-9 else "fail")
    assert at_least("n", limit, limit, unit="x", why="w").outcome == "pass"


@given(FIGURES)
def test_without_a_gate_nothing_fails(value: float) -> None:
    for gate in (None, False):
        for held in (at_least, at_most):
            result = held("n", value, gate, unit="x", why="w")
            assert (result.outcome, result.limit, result.value) == ("info", None, value)
    assert "no gate" in at_most("n", value, False, unit="x", why="w").why


def test_a_gate_of_zero_is_a_gate() -> None:
    assert at_most("n", 0.001, 0.0, unit="share", why="w").outcome == "fail"
    assert at_most("n", 0.0, 0.0, unit="share", why="w").outcome == "pass"


def test_not_a_number_never_passes() -> None:
    assert at_least("n", math.nan, 1.0, unit="x", why="w").outcome == "fail"
    assert at_most("n", math.nan, 1.0, unit="x", why="w").outcome == "fail"


@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 50))
def test_a_drop_of_exactly_the_gate_passes(total: int, right: int, lost: int) -> None:
    """Shares of images are not exact in binary: 0.95 - 0.945 is more than 0.005."""
    right, lost = min(right, total), min(lost, right, total)
    drop = right / total - (right - lost) / total
    assert at_most("n", drop, lost / total, unit="share", why="w").outcome == "pass"
    assert at_most("n", drop, (lost - 1) / total, unit="share", why="w").outcome == "fail"


def test_exit_codes() -> None:
    passed, failed, noisy = check("pass"), check("fail"), check("fail", uncertain=True)
    assert exit_code(verdict(passed, check("info"))) == 0
    assert exit_code(verdict(passed, failed)) == 1
    assert exit_code(verdict(passed, noisy)) == 4
    assert exit_code(verdict(noisy, failed)) == 1  # a real regression is not hidden by noise
    assert verdict(passed, noisy).outcome == "fail"


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1.5])
def test_a_verdict_survives_json(value: float) -> None:
    """Equal outputs have an infinite SQNR, which JSON cannot say as a number."""
    before = verdict(check("pass").model_copy(update={"value": value}))
    assert Verdict.model_validate_json(before.model_dump_json()) == before


def test_not_a_number_survives_json() -> None:
    text = verdict(check("fail").model_copy(update={"value": math.nan})).model_dump_json()
    assert math.isnan(Verdict.model_validate_json(text).files[0].checks[0].value)


def test_what_runs_outside_the_delegate_is_named() -> None:
    found = delegation_check(
        Delegation(backend="XNNPACK", delegated=6, outside=2, outside_operators={"SOFTMAX": 1, "PAD": 1})
    )
    assert found is not None
    assert found.value == 0.25
    assert "PAD (1), SOFTMAX (1)" in found.why
    whole = delegation_check(Delegation(backend="XNNPACK", delegated=8, outside=0))
    assert whole is not None
    assert (whole.value, whole.why) == (0.0, "XNNPACK runs all 8 operators")
    assert delegation_check(None) is None


@pytest.mark.parametrize(
    ("codes", "worst"), [((0, 0), 0), ((0, 4), 4), ((4, 1, 0), 1), ((2, 4), 2), ((2, 1, 4), 1), ((0, 2), 2)]
)
def test_of_several_jobs_a_failed_gate_is_never_hidden(codes: tuple[int, ...], worst: int) -> None:
    assert worst_code(codes) == worst
    assert worst_code(reversed(codes)) == worst
