"""Gates on shares of images: what so many images can tell, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.verify.intervals import drop_interval, share_interval
from edgeprune.verify.sampled import Rights, drop_check, share_check
from edgeprune.verify.verdict import Check, FileVerdict, Verdict, exit_code


def some(yes: int, images: int) -> Rights:
    return np.arange(images) < yes


def drop(lost: int, gained: int, images: int, gate: float) -> Check:
    before = some(images, images).copy()
    before[lost : lost + gained] = False
    after = some(images, images).copy()
    after[:lost] = False
    return drop_check("drop", before, after, gate, why="w")


@pytest.mark.parametrize(
    ("yes", "images", "outcome"),
    [
        (8, 8, "undecided"),
        (5, 8, "fail"),  # the whole interval is below
        (7, 8, "undecided"),
        (200, 200, "pass"),
        (970, 1000, "pass"),
        (969, 1000, "fail"),  # the interval holds the limit and is narrow: the figure decides
        (96, 100, "undecided"),
        (9700, 10000, "pass"),
        (9699, 10000, "fail"),
    ],
)
def test_agreement_of_97_percent(yes: int, images: int, outcome: str) -> None:
    assert share_check("agreement", some(yes, images), 0.97, why="w").outcome == outcome


@pytest.mark.parametrize(
    ("lost", "gained", "images", "outcome"),
    [
        (0, 0, 8, "undecided"),  # no difference on eight images is no proof
        (0, 0, 1000, "pass"),
        (5, 0, 1000, "pass"),
        (6, 0, 1000, "undecided"),  # half a width of 0.0050 would do
        (20, 17, 1000, "undecided"),
        (6, 0, 2000, "pass"),
        (11, 0, 2000, "fail"),
        (60, 10, 1000, "fail"),  # the whole interval is beyond
        (2, 40, 1000, "pass"),  # far better than before
        (8, 0, 8, "fail"),
    ],
)
def test_a_drop_of_half_a_point(lost: int, gained: int, images: int, outcome: str) -> None:
    assert drop(lost, gained, images, 0.005).outcome == outcome


def test_what_is_undecided_says_how_many_images_could_tell() -> None:
    found = share_check("agreement", some(8, 8), 0.97, why="w")
    enough = int(found.why.split("about ")[1].split()[0])
    assert share_check("agreement", some(enough, enough), 0.97, why="w").outcome == "pass"
    fewer = enough - 3
    assert share_check("agreement", some(fewer, fewer), 0.97, why="w").outcome == "undecided"
    found = drop(3, 2, 100, 0.01)
    enough = int(found.why.split("about ")[1].split()[0])
    assert drop(3 * enough // 100, 2 * enough // 100, enough, 0.01).outcome != "undecided"


def test_a_limit_of_no_room_is_undecided_or_missed() -> None:
    assert share_check("agreement", some(500, 500), 1.0, why="w").outcome == "undecided"
    assert share_check("agreement", some(499, 500), 1.0, why="w").outcome == "fail"
    assert drop(0, 0, 500, 0.0).outcome == "undecided"
    assert "no number of images" in drop(0, 0, 500, 0.0).why
    assert drop(0, 30, 500, 0.0).outcome == "pass"


@pytest.mark.parametrize("gate", [None, False])
def test_without_a_gate_nothing_is_undecided(gate: bool | None) -> None:
    assert share_check("agreement", some(1, 2), gate, why="w").outcome == "info"  # type: ignore[arg-type]
    assert drop_check("drop", some(2, 2), some(1, 2), gate, why="w").outcome == "info"  # type: ignore[arg-type]


@given(st.integers(1, 3000), st.data())
def test_intervals_hold_their_figure(images: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, images))
    gained = data.draw(st.integers(0, images - lost))
    assert share_interval(lost, images).value in share_interval(lost, images)
    found = drop_interval(lost, gained, images)
    assert found.value in found
    assert -1 <= found.low < found.high <= 1
    turned = drop_interval(gained, lost, images)
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_the_paired_interval_is_agresti_and_mins() -> None:
    """(10.5 - 2.5) / 102 +- 1.96 sqrt(10.5 + 2.5 - 8^2 / 102) / 102, worked out by hand."""
    found = drop_interval(10, 2, 100)
    assert (found.low, found.high) == (pytest.approx(0.01084, abs=1e-5), pytest.approx(0.14602, abs=1e-5))


def verdict(*outcomes: str) -> Verdict:
    parts = {"name": "n", "value": 1.0, "unit": "share", "limit": 1.0, "why": "w"}
    checks = tuple(
        Check.model_validate({**parts, "outcome": one.removeprefix("noisy "), "uncertain": one.startswith("noisy")})
        for one in outcomes
    )
    file = FileVerdict(file="m.tflite", format="tflite", precision="fp32", executed_on="local", checks=checks)
    return Verdict(device="local", test_images=1, accuracy={}, files=(file,))


@pytest.mark.parametrize(
    ("outcomes", "outcome", "code"),
    [
        (("pass", "undecided", "info"), "undecided", 4),
        (("fail", "undecided"), "fail", 1),
        (("noisy fail", "undecided"), "fail", 4),
        (("pass", "info"), "pass", 0),
    ],
)
def test_what_is_undecided_is_no_pass(outcomes: tuple[str, ...], outcome: str, code: int) -> None:
    found = verdict(*outcomes)
    assert (found.outcome, exit_code(found)) == (outcome, code)
    assert Verdict.model_validate_json(found.model_dump_json()) == found
