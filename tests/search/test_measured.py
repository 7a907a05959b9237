"""The measured search on devices that are made up: it converges over noise, plateaus and steps, and never past its end.

Nothing is written or timed here: a row's model is a number, and a device answers what a function says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import Listening

from edgeprune.errors import DeviceError, TargetError
from edgeprune.latency.measurement import Ratio
from edgeprune.recipe import Target
from edgeprune.search.measured import Attempt, Found, Goal, MeasuredSearch, nearest, next_place

TOLERANCE = 0.03


def ratio_of(share: float, quality: str = "stable") -> Ratio:
    return Ratio.model_construct(ratio=share, low=share, high=share, quality=quality, evidence="")


@dataclasses.dataclass
class Numbers:
    """A row of numbers on a grid: what is predicted is the number itself."""

    places: tuple[float, ...]
    known: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    ends: bool = False  # whether both ends are measured first
    fastest = "the fastest number"
    hint = "ask for more"

    @property
    def low(self) -> float:
        return self.places[0]

    @property
    def starts(self) -> int:
        return 2 if self.ends else 1

    def begin(self, goal: float) -> Iterator[float]:
        yield from (self.places[0], self.places[-1]) if self.ends else (goal,)

    def at(self, place: float) -> float:
        return max((one for one in self.places if one <= place + 1e-12), default=self.places[0])

    def place_of(self, model: float) -> float:
        return model

    def name_of(self, model: float) -> str:
        return f"{model!r}"

    def words_of(self, model: float) -> str:
        return f"predicted {model:.3f}x"

    def finer(self) -> bool:
        return False

    def write(self, model: float) -> Path:
        return Path(f"{model!r}")


class Device:
    """Answers a function of the number that a file is, and counts how often it is asked."""

    def __init__(self, function: Callable[[float], float], quality: str = "stable") -> None:
        self.function, self.quality, self.asked = function, quality, list[float]()
        self.device, self.progress = SimpleNamespace(id="made up"), Listening()
        self.said = self.progress.said

    def ratio(self, file: Path, original: Path) -> Ratio:
        self.asked.append(float(str(file)))
        return ratio_of(self.function(self.asked[-1]), self.quality)


def search(row: Numbers, device: Device, share: float, *, corrections: int = 6, **more: Any) -> Found[float]:
    target = Target(value=share, unit="x")
    bench: Any = device
    goal = Goal(target, Path("original"), 1.0, TOLERANCE, corrections, bench, where="here")
    return MeasuredSearch(row, goal, **more).run()


def grid(step: float, low: float = 0.1) -> tuple[float, ...]:
    return tuple(np.arange(low, 1.0, step).tolist())


CURVES: dict[str, Callable[[float, float], float]] = {
    "bent": lambda x, bend: x**bend,
    "scaled": lambda x, bend: 1 - (1 - x) / bend,  # every cut saves less than predicted, or more
    "fixed": lambda x, bend: (bend - 1) / bend + x / bend if bend > 1 else x,  # something always stays
}


@given(
    share=st.floats(0.25, 0.9),
    bend=st.floats(0.7, 1.6),
    curve=st.sampled_from(sorted(CURVES)),
    ends=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_goal_that_a_model_meets_is_met(share: float, bend: float, curve: str, ends: bool) -> None:
    """Predictions may be wrong by far; the row is fine enough that some model meets the goal."""

    def takes(x: float) -> float:
        return CURVES[curve](x, bend)

    row = Numbers(grid(0.001), known=() if ends else ((1.0, 1.0),), ends=ends)
    if takes(row.low) > share or takes(row.places[-1]) < share:
        return
    device = Device(takes)
    found = search(row, device, share)
    assert found.best.within
    assert abs(takes(found.model) / share - 1) <= TOLERANCE
    assert len(device.asked) == len(set(device.asked)) <= row.starts + 6


@given(share=st.floats(0.25, 0.9), seed=st.integers(0, 10_000), noise=st.floats(0.0, 0.02))
@settings(max_examples=200, deadline=None)
def test_noise_does_not_lead_it_astray(share: float, seed: int, noise: float) -> None:
    """What is chosen is near the goal in truth, too: by the tolerance and what noise may hide."""
    random = np.random.default_rng(seed)
    row = Numbers(grid(0.01))
    device = Device(lambda x: x**0.85 * float(np.exp(np.clip(random.normal(0, noise), -2 * noise, 2 * noise))))
    found = search(row, device, share)
    assert len(device.asked) <= 7
    assert abs(found.model**0.85 / share - 1) <= TOLERANCE + 2.5 * noise + 0.03


@given(share=st.floats(0.2, 0.95), step=st.floats(0.05, 0.3))
@settings(max_examples=200, deadline=None)
def test_plateaus_of_a_staircase_are_stepped_over(share: float, step: float) -> None:
    """Latency comes in steps: what is chosen is no worse than the better of the two steps around the goal."""

    def takes(x: float) -> float:
        return min(1.0, np.ceil(x / step - 1e-9) * step)

    row = Numbers(grid(0.005, low=0.05))
    if takes(row.low) > share * (1 + TOLERANCE):
        return
    found = search(row, Device(takes), share, corrections=12)
    steps = sorted({takes(place) for place in row.places})
    below = max((one for one in steps if one <= share), default=steps[0])
    above = min((one for one in steps if one >= share), default=steps[-1])
    best = min(abs(one / share - 1) for one in (below, above))
    assert abs(takes(found.model) / share - 1) <= max(best, TOLERANCE) + 1e-9


@given(share=st.floats(0.3, 0.8), gap=st.floats(0.08, 0.2), place=st.floats(0.2, 0.8))
@settings(max_examples=100, deadline=None)
def test_between_two_neighbours_the_nearer_is_taken(share: float, gap: float, place: float) -> None:
    low, high = share * (1 - gap * place), share * (1 + gap * (1 - place))
    if min(share - low, high - share) <= share * TOLERANCE:
        return
    device = Device(lambda x: x)
    found = search(Numbers((0.05, low, high, 0.97)), device, share)
    assert low in device.asked
    if high in device.asked:
        assert found.model == min((low, high), key=lambda x: abs(x / share - 1))
    else:  # nothing between the goal and what the row has there was any better
        assert found.model == low
        assert found.best.nothing_nearer


@given(share=st.floats(0.05, 0.5), more=st.floats(1.04, 2.0), ends=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_goal_below_the_fastest_is_refused_with_what_that_takes(share: float, more: float, ends: bool) -> None:
    least = min(0.99, share * more)
    row = Numbers((least, (least + 1) / 2, 1.0), known=() if ends else ((1.0, 1.0),), ends=ends)
    device = Device(lambda x: x)
    with pytest.raises(TargetError) as raised:
        search(row, device, share)
    assert device.asked[-1] == least
    assert f"{least:.3f}x" in raised.value.what
    assert raised.value.where == "here"
    assert raised.value.hint == "ask for more"


def test_a_fastest_that_was_thought_to_be_too_slow_is_measured_all_the_same() -> None:
    """Predicted 0.6x, it takes 0.42x: the search goes on between it and what is slower."""
    device = Device(lambda x: max(0.42, 0.42 + (x - 0.6) * 1.45))
    found = search(Numbers(grid(0.01, low=0.6)), device, 0.5)
    assert device.asked[0] == pytest.approx(0.6)
    assert found.best.within


def test_what_was_measured_before_is_not_measured_again() -> None:
    kept: list[Attempt] = []
    device = Device(lambda x: x**0.8)
    first = search(Numbers(grid(0.01)), device, 0.5, keep=kept.append)
    asked = len(device.asked)
    assert [float(one.name) for one in kept] == device.asked
    known = {one.name: one for one in kept}
    again = search(Numbers(grid(0.01)), device, 0.5, known=known)
    assert len(device.asked) == asked
    assert again.best == first.best
    some = {one.name: one for one in kept[:1]}
    assert search(Numbers(grid(0.01)), device, 0.5, known=some).best == first.best
    assert len(device.asked) == 2 * asked - 1


def test_a_noisy_measurement_is_not_kept_and_tells_nothing() -> None:
    kept: list[Attempt] = []
    with pytest.raises(DeviceError) as raised:
        search(Numbers((0.1, 0.4, 0.9)), Device(lambda x: x, "noisy"), 0.5, keep=kept.append)
    assert raised.value.where == "made up"
    assert kept == []


@given(st.floats(0.3, 0.9), st.floats(0.1, 2.0), st.floats(0.05, 0.95))
def test_on_a_straight_line_the_next_place_is_the_answer(fixed: float, slope: float, place: float) -> None:
    points = [(x, fixed + slope * x) for x in (0.03, 0.3)]
    wanted = 0.03 + place * 0.27
    assert next_place(points, fixed + slope * wanted) == pytest.approx(wanted)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=6), st.floats(0.02, 0.98))
def test_the_next_place_never_leaves_the_bracket(points: list[tuple[float, float]], goal: float) -> None:
    slower, faster = [p for p in points if p[1] >= goal], [p for p in points if p[1] < goal]
    place = next_place(points, goal)
    assert place is not None
    if slower and faster:
        ends = min(slower, key=lambda p: (p[1], p[0]))[0], max(faster, key=lambda p: (p[1], p[0]))[0]
        assert min(ends) - 1e-9 <= place <= max(ends) + 1e-9


def tried(*reached: float) -> list[tuple[int, Attempt]]:
    return [
        (
            n,
            Attempt.model_construct(
                name=str(n), place=r, measured=ratio_of(r), reached=r, within=abs(r / 0.5 - 1) <= TOLERANCE
            ),
        )
        for n, r in enumerate(reached)
    ]


@pytest.mark.parametrize(("reached", "taken"), [((0.4, 0.55), 0.55), ((0.46, 0.55), 0.46), ((0.49, 0.499, 0.6), 0.499)])
def test_the_nearest_is_taken(reached: tuple[float, ...], taken: float) -> None:
    _, attempt = nearest(tried(*reached), 0.5)
    assert attempt.reached == taken
    assert not attempt.nothing_nearer


def test_faster_than_asked_is_met_where_a_larger_budget_gives_the_same() -> None:
    _, attempt = nearest(tried(0.6, 0.47), 0.5, again="1")
    assert attempt.nothing_nearer
    assert not attempt.within


@pytest.mark.parametrize("again", ["7", None])
def test_but_not_where_something_else_came_again_or_it_is_slower(again: str | None) -> None:
    assert not nearest(tried(0.47), 0.5, again=again)[1].nothing_nearer
    assert not nearest(tried(0.53), 0.5, again="0")[1].nothing_nearer


def test_of_faster_ones_the_slowest_is_taken_though_noise_says_otherwise() -> None:
    model, attempt = nearest(tried(0.41, 0.405), 0.5, again="1")
    assert model == 1
    assert attempt.nothing_nearer
