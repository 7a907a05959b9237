from __future__ import annotations

import numpy as np
import pytest

from edgeprune.latency.measurement import Conditions
from edgeprune.latency.quality import judge
from edgeprune.latency.statistics import drift, interval_of_median, interval_over_groups, spread


def test_the_interval_covers_the_median_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = interval_of_median(random.lognormal(0, 0.05, 80).tolist())
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_groups_that_differ_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    groups = [(shift + 0.001 * random.standard_normal(40)).tolist() for shift in (0.97, 0.99, 1.0, 1.01, 1.03)]
    low, high = interval_over_groups(groups)
    assert low <= 0.99
    assert high >= 1.01
    alike = [(1 + 0.001 * random.standard_normal(40)).tolist() for _ in range(5)]
    low, high = interval_over_groups(alike)
    assert high - low < 0.002


def test_one_value_is_its_own_interval() -> None:
    assert interval_of_median([2.0]) == (2.0, 2.0)
    assert interval_over_groups([[2.0]]) == (2.0, 2.0)


def test_drift_and_spread() -> None:
    assert drift([1, 1, 1, 1.1, 1.1, 1.1]) == pytest.approx(0.1)
    assert drift([1, 2]) == 0.0
    assert spread([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)


def conditions(time: float, mhz: float | None, steal: float | None = None) -> Conditions:
    return Conditions(
        time=time,
        clock_s=time,
        frequency_mhz=() if mhz is None else (mhz, mhz),
        cpu_steal_s=steal,
        cpu_busy_s=1.5 * time,
        own_s=time,
        load_1min=0.5,
    )


@pytest.mark.parametrize(
    ("half_width", "series", "clocks", "disturbed", "quality", "words"),
    [
        (0.01, [1.0] * 8, (2000, 2000), 0.0, "stable", "1.00%"),
        (0.01, [1.0] * 8, (2000, 1500), 0.0, "stable", "clock -25.0%"),
        (0.01, [1.0] * 8, (None, None), 0.0, "stable", "load 0.5 on 2 cores"),
        (0.01, [1.0] * 8, (2000, 2000), 0.3, "noisy", "all samples of 30% of the visits"),
        (0.02, [1.0] * 8, (2000, 2000), 0.0, "noisy", "2.00%"),
        (0.01, [1.0] * 4 + [1.05] * 4, (2000, 2000), 0.0, "noisy", "+5.00%"),
        (0.01, [1.0] * 4 + [1.05] * 4, (2000, 1500), 0.0, "throttled", "while the clock fell"),
        (0.01, [1.05] * 4 + [1.0] * 4, (2000, 1500), 0.0, "noisy", "-4.76%"),
    ],
)
def test_quality_follows_its_evidence(
    half_width: float,
    series: list[float],
    clocks: tuple[float | None, float | None],
    disturbed: float,
    quality: str,
    words: str,
) -> None:
    found, evidence = judge(
        value=1.0,
        low=1 - half_width,
        high=1 + half_width,
        series=series,
        latencies=series,
        watched=[[conditions(0, clocks[0], 1.0), conditions(10, clocks[1], 3.0)]],
        cores=2,
        preempted_share=0.25,
        disturbed_share=disturbed,
        samples=80,
    )
    assert found == quality
    assert words in evidence
    assert "steal 10.0%" in evidence  # 2 of 20 core seconds
    assert "others kept the cores busy for 25%" in evidence
    assert "25% of the samples" in evidence


def test_one_look_at_idle_cores_is_no_throttling() -> None:
    clocks = [2000.0, 2000.0, 600.0, 2000.0, 2000.0]
    found, evidence = judge(
        value=1.0,
        low=0.99,
        high=1.01,
        series=[1.0] * 4 + [1.025] * 4,
        latencies=[1.0] * 4 + [1.025] * 4,
        watched=[[conditions(number, clock, 0.0) for number, clock in enumerate(clocks)]],
        cores=2,
        preempted_share=0.0,
        disturbed_share=0.0,
        samples=80,
    )
    assert found == "noisy"
    assert "clock +0.0%" in evidence
