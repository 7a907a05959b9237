"""Which of two files is faster: as many measurements as it takes to be sure, and no more.

One *look* is one runner process that visits both files in turn, in random order, and gives one ratio: the median over
its pairs of visits. Processes are what is independent (each lays memory out anew); their logarithms go into an
interval that may be looked at after each of them (`sequential_interval`), so that stopping as soon as the answer is
clear does not make false alarms likelier.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.jobs import LEASE_WAIT_S, Case, Job, Timing
from edgeprune.devices.runtimes import runtime_of
from edgeprune.errors import UsageError
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Measurement, Quality
from edgeprune.latency.pairs import Round, check_builds, quality_of, sides_of
from edgeprune.latency.protocol import latency_of, succeeded
from edgeprune.latency.statistics import RESAMPLES, sequential_half_width, sequential_interval
from edgeprune.records import Record

Verdict = Literal["faster", "slower", "no difference", "undecided"]

ALPHA = 0.01  # the chance that the interval of one comparison ever misses the truth
VISIT_S, MIN_RUNS = 0.001, 2  # of a visit at least
LEAST_LOOKS = 4  # before an answer is given
LEAST_LOOKS_TO_GIVE_UP = 12
LOOK_S = 1.6  # of measuring in a look, as far as these numbers of pairs allow
LEAST_PAIRS, MOST_PAIRS = 10, 200


class Look(Record):
    """What one process said: the latency of B over that of A, and how many pairs of visits it is the median of."""

    ratio: float
    pairs: int
    seconds: float


class Comparison(Record):
    """Two files on one device. `ratio` is the latency of B over that of A; faster and slower are said of B."""

    verdict: Verdict
    why: str
    ratio: float
    low: float  # 95 % bootstrap interval, over processes
    high: float
    sure_low: float | None  # interval whose chance of ever missing is `alpha`: the verdict rests on it
    sure_high: float | None  # None: too few looks to bound it
    alpha: float
    margin: float  # differences up to this share do not count
    seconds: float
    looks: tuple[Look, ...]
    quality: Quality
    evidence: str
    a: Measurement
    b: Measurement


def compare(
    device: Device,
    a: Path,
    b: Path,
    *,
    margin: float = 0.01,
    budget_s: float = 120.0,
    threads: int = 1,
    seed: int = 0,
    on_look: Callable[[Look, tuple[float, float]], None] | None = None,
) -> Comparison:
    """Measure two files until it is clear which is faster, or that it will not become clear.

    Slower (faster): B takes longer (less) than A by more than `margin`. No difference: it lies within `margin`
    either way. Undecided: neither can be said within `budget_s`; given up as soon as that can be foreseen.

    Args:
        margin: share of A's latency, above 0 and below 1.
        budget_s: seconds of measuring after which no further process is started.
        seed: of the random orders.
        on_look: gets each process's answer and the interval so far.

    Raises:
        UsageError: a file is missing or cannot be run (names it), or `margin` or `budget_s` makes no sense.
        DeviceError: the device is in use or was lost, or its runtime changed under way.
    """
    if not 0 < margin < 1:
        raise UsageError(f"the margin must lie between 0 and 1, not {margin:g}", hint="0.01 is one percent")
    if not budget_s > 0:
        raise UsageError(f"the budget must be more than 0 seconds, not {budget_s:g}")
    random = np.random.default_rng(seed)
    rounds: list[Round] = []
    looks: list[Look] = []
    with device.lease(wait_s=LEASE_WAIT_S):
        pairs = _pairs(_measured(device, a, b, threads, int(random.integers(2**31)), LEAST_PAIRS))
        while True:
            begin = time.monotonic()
            rounds.append(_measured(device, a, b, threads, int(random.integers(2**31)), pairs))
            check_builds(rounds, device)
            ratios = rounds[-1].ratios
            look = Look(ratio=float(np.median(ratios)), pairs=len(ratios), seconds=time.monotonic() - begin)
            looks.append(look)
            low, high = _sure(looks)
            if on_look is not None:
                on_look(look, (low, high))
            verdict, why = decide(looks, margin=margin, budget_s=budget_s)
            if verdict is not None:
                break
    return _result(device, (a, b), rounds, looks, verdict, why, margin, threads)


def decide(looks: Sequence[Look], *, margin: float, budget_s: float) -> tuple[Verdict | None, str]:
    """The verdict and the reason, or None while it is worth going on."""
    low, high = _sure(looks)
    spent = sum(look.seconds for look in looks)
    shown = f"B / A lies in {low:.3f}-{high:.3f}"
    if len(looks) >= LEAST_LOOKS:
        if low > 1 + margin:
            return "slower", f"slower by more than {margin:.1%}: {shown}"
        if high < 1 - margin:
            return "faster", f"faster by more than {margin:.1%}: {shown}"
        if 1 - margin <= low and high <= 1 + margin:
            return "no difference", f"no difference above {margin:.1%}: {shown}"
    each = spent / len(looks)
    needed = looks_needed(looks, margin=margin)
    if spent + each > budget_s:
        return "undecided", f"undecided after {spent:.0f} s, the whole budget: {shown}; {_outlook(needed, each)}"
    hope = looks_needed(looks, margin=margin, hopeful=True)
    if len(looks) >= LEAST_LOOKS_TO_GIVE_UP and budget_s < hope * each:
        return "undecided", f"undecided after {spent:.0f} s of {budget_s:.0f}: {shown}; {_outlook(needed, each)}"
    return None, ""


def looks_needed(looks: Sequence[Look], *, margin: float, hopeful: bool = False) -> float:
    """How many looks a verdict would take if mean and spread stayed what they are; infinite at the very edge.

    `hopeful`: if the mean came to lie, within one standard error, as far from the edges of the margin as it can.
    """
    values = np.log([look.ratio for look in looks])
    spread, count = float(values.std()), len(values)
    reach = spread / math.sqrt(count) if hopeful else 0.0
    means = float(values.mean()) + np.linspace(-reach, reach, 41)
    edges = np.log([[1 - margin], [1 + margin]])
    distance = float(np.abs(means - edges).min(axis=0).max())
    while count < 1e6:
        if sequential_half_width(count, spread, alpha=ALPHA) < distance:
            return count
        count = math.ceil(count * 1.1)
    return math.inf


def _outlook(needed: float, each: float) -> str:
    if math.isinf(needed):
        return "the difference is at the margin: it would never become clear"
    return f"it would take about {needed:.0f} processes, {needed * each:.0f} s"


def _sure(looks: Sequence[Look]) -> tuple[float, float]:
    """The interval of B's latency over A's; from nothing to infinity while the looks are too few to tell."""
    low, high = sequential_interval([math.log(look.ratio) for look in looks], alpha=ALPHA)
    return math.exp(low), math.exp(high) if high < 700 else math.inf


def _bootstrapped(looks: Sequence[Look]) -> tuple[float, float]:
    """95 % percentile interval of the geometric mean of the looks; whole looks are drawn."""
    logs = np.log([look.ratio for look in looks])
    drawn = np.random.default_rng(0).choice(logs, (RESAMPLES, len(logs)))
    low, high = np.exp(np.percentile(drawn.mean(axis=1), (2.5, 97.5)))
    return float(low), float(high)


def _pairs(first: Round) -> int:
    """How many pairs of visits fill a look. Many short visits tell more than few long ones: what disturbs a machine
    comes and goes in tenths of seconds, and only what both visits of a pair share drops out."""
    sides = [float(np.median([latency_of(visit) for visit in visits])) for visits in first.visits]
    pair_s = sum(
        side + max(MIN_RUNS * side, VISIT_S + side / 2) for side in sides
    )  # each begins with a run not counted
    return int(min(MOST_PAIRS, max(LEAST_PAIRS, LOOK_S / pair_s)))


def _measured(device: Device, a: Path, b: Path, threads: int, seed: int, pairs: int) -> Round:
    """One look. Files of two runtimes cannot share a process: each has its own, in random order."""
    timing = Timing(
        "shuffled",
        pairs,
        True,
        warm_up_runs=3,
        warm_up_s=0.05,
        min_runs=MIN_RUNS,
        min_s=VISIT_S,
        max_samples=16,
        seed=seed,
    )
    files = {"a": (a, runtime_of(a)), "b": (b, runtime_of(b))}
    order = ("a", "b") if seed % 2 else ("b", "a")  # what is loaded first gets other memory
    cases = {name: Case(name, files[name][0]) for name in order}
    runtimes = {name: files[name][1] for name in order}
    if len(set(runtimes.values())) == 1:
        done = timed_job(device, Job(runtimes["a"], tuple(cases.values()), threads=threads, timing=timing))
        jobs = dict.fromkeys(order, done)
    else:
        jobs = {
            name: timed_job(device, Job(runtimes[name], (cases[name],), threads=threads, timing=timing))
            for name in order
        }
    visits = {name: succeeded(jobs[name].cases[name], *files[name]).visits for name in order}
    return Round((visits["b"], visits["a"]), (jobs["b"], jobs["a"]))  # the ratio is B over A


def _result(
    device: Device,
    files: tuple[Path, Path],
    rounds: Sequence[Round],
    looks: Sequence[Look],
    verdict: Verdict,
    why: str,
    margin: float,
    threads: int,
) -> Comparison:
    of_b, of_a = sides_of(device, rounds, files[::-1], threads)
    ratio = math.exp(float(np.mean([math.log(look.ratio) for look in looks])))
    low, high = _bootstrapped(looks)
    sure_low, sure_high = _sure(looks)
    quality, evidence = quality_of(device, rounds, value=ratio, low=low, high=high)
    return Comparison(
        verdict=verdict,
        why=why,
        ratio=ratio,
        low=low,
        high=high,
        sure_low=sure_low or None,
        sure_high=sure_high if math.isfinite(sure_high) else None,
        alpha=ALPHA,
        margin=margin,
        seconds=sum(look.seconds for look in looks),
        looks=tuple(looks),
        quality=quality,
        evidence=evidence,
        a=of_a,
        b=of_b,
    )
