"""Which of the measured choices is taken, and when one that is faster than asked is what was asked for."""

from __future__ import annotations

import dataclasses

import pytest

from edgeprune.latency.measurement import Ratio
from edgeprune.search.measured import Attempt, nearest
from edgeprune.search.path import Choice

GOAL, TOLERANCE = 0.5, 0.03


def tried(width: int, reached: float) -> tuple[Choice, Attempt]:
    choice = Choice({"a": width}, {}, (), float(width), 0.0)
    measured = Ratio.model_construct(ratio=reached, low=reached, high=reached, quality="stable")
    return choice, Attempt(reached, measured, reached, abs(reached / GOAL - 1) <= TOLERANCE)


@pytest.mark.parametrize(("reached", "taken"), [((0.4, 0.55), 0.55), ((0.46, 0.55), 0.46), ((0.49, 0.499, 0.6), 0.499)])
def test_the_nearest_is_taken(reached: tuple[float, ...], taken: float) -> None:
    _, attempt = nearest([tried(number, share) for number, share in enumerate(reached)], GOAL)
    assert attempt.reached_share == taken
    assert not attempt.nothing_nearer
    assert attempt.within_tolerance == (abs(taken / GOAL - 1) <= TOLERANCE)


def test_faster_than_asked_is_met_where_a_larger_budget_gives_the_same() -> None:
    slow, fast = tried(3, 0.6), tried(2, 0.47)
    _, attempt = nearest([slow, fast], GOAL, again=fast[0])
    assert attempt.nothing_nearer
    assert not attempt.within_tolerance
    assert dataclasses.replace(attempt, nothing_nearer=False) == fast[1]


@pytest.mark.parametrize("again", [(3, 0.53), None])
def test_but_not_where_something_else_came_again_or_it_is_slower(again: tuple[int, float] | None) -> None:
    slow, fast = tried(3, 0.53), tried(2, 0.47)
    other = tried(*again)[0] if again else None
    assert not nearest([fast], GOAL, again=other)[1].nothing_nearer
    assert not nearest([slow], GOAL, again=slow[0])[1].nothing_nearer
