from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.graph.operations import COUNTED_BEFORE, OpSignature
from edgeprune.latency.cost import LatencyCost, MacsCost, ParameterCost, SizeCost, line_above, total
from edgeprune.latency.measurement import Conditions, Measurement, ModelRun, RuntimeBuild
from edgeprune.latency.rows import parse_key
from edgeprune.latency.staircase import SWEEP, fit_staircase
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.space.units import Layer, Width

BUILD = RuntimeBuild(name="litert", version="1", sha256="a" * 64)
SETTING = Setting("device", BUILD.id, 1)
CONV = OpSignature("conv2d", 64, 64, 8, 8, (3, 3), padding=(1, 1))


def measured(seconds: float) -> Measurement:
    now = Conditions(time=0.0)
    return Measurement(
        file="probe",
        device="device",
        runtime=BUILD,
        threads=1,
        samples_s=(seconds,),
        median_s=seconds,
        p90_s=seconds,
        low_s=seconds,
        high_s=seconds,
        quality="stable",
        evidence="made up",
        before=now,
        after=now,
    )


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return LatencyTable(tmp_path / "t.sqlite")


def cost_of(table: LatencyTable) -> LatencyCost:
    return LatencyCost(table, SETTING)


def fill(table: LatencyTable, op: OpSignature, ins: list[int], outs: list[int]) -> None:
    for i in ins:
        for o in outs:
            table.put(SETTING, op.with_channels(i, o), measured(1e-6 * (2 + 0.5 * i + 0.25 * o + 0.125 * i * o)))


def test_the_truth_is_met_between_the_points(table: LatencyTable) -> None:
    fill(table, CONV, [8, 24, 64], [8, 40, 64])
    cost = cost_of(table)
    for i, o in ((8, 8), (16, 16), (30, 50), (64, 64), (24, 9)):
        assert cost.cost(CONV.with_channels(i, o)) == pytest.approx(1e-6 * (2 + 0.5 * i + 0.25 * o + 0.125 * i * o))
    assert cost.extrapolates == set()


def test_two_layers_of_one_shape_are_used_together(table: LatencyTable) -> None:
    fill(table, CONV, [8, 16], [8, 16])
    fill(table, CONV, [32, 64], [32, 64])
    cost = cost_of(table)
    assert cost.cost(CONV.with_channels(12, 12)) == pytest.approx(1e-6 * (2 + 6 + 3 + 0.125 * 144))
    assert cost.cost(CONV.with_channels(48, 40)) == pytest.approx(1e-6 * (2 + 24 + 10 + 0.125 * 1920))


def test_outside_of_what_was_measured_is_said(table: LatencyTable) -> None:
    fill(table, CONV, [16, 32], [16, 32])
    cost = cost_of(table)
    inside, narrow, wide = CONV.with_channels(16, 32), CONV.with_channels(8, 16), CONV.with_channels(64, 32)
    for op in (inside, narrow, wide):
        i, o = op.in_channels, op.out_channels
        assert cost.cost(op) == pytest.approx(1e-6 * (2 + 0.5 * i + 0.25 * o + 0.125 * i * o), rel=0.01)
    assert cost.extrapolates == {narrow.key(), wide.key()}


def test_what_was_timed_in_place_is_apart_from_what_was_timed_alone(table: LatencyTable) -> None:
    fill(table, CONV, [16, 32], [16, 32])
    there, behind = replace(CONV, place="in place, then Add (ND) over 64"), replace(CONV, place=COUNTED_BEFORE)
    layers = tuple(("conv", there.with_channels(c, c).key(), 1e-5 * c) for c in (16, 32, 64))
    table.put_model(SETTING, "ab", ModelRun(base="ab", measurement=measured(1.0), before_s=0.0, layers=layers))
    cost = cost_of(table)
    assert cost.cost(there.with_channels(32, 32)) == pytest.approx(32e-5)
    assert cost.cost(CONV.with_channels(32, 32)) == pytest.approx(1e-6 * (2 + 16 + 8 + 128))
    assert cost.cost(behind) == 0.0
    with pytest.raises(UsageError, match="never measured"):
        LatencyCost(table, SETTING, without="ab").cost(there)


def test_what_was_never_measured_is_refused_and_what_cannot_be_is_named(table: LatencyTable) -> None:
    fill(table, CONV, [16], [16])
    other = OpSignature("activation", 8, 8, 4, 4, function="mish")
    with pytest.raises(UsageError, match="never measured"):
        cost_of(table).cost(other)
    table.put_unsupported(SETTING, other, "no such kernel")
    cost = cost_of(table)
    assert cost.cost(other.with_channels(4, 4)) > 0  # never free
    assert cost.unmeasured == {other.with_channels(4, 4).key(): "no such kernel"}
    widths = [cost.cost(other.with_channels(width, width)) for width in (1, 4, 8, 64)]
    assert widths == sorted(widths)
    table.put(SETTING, OpSignature("activation", 8, 8, 4, 4, function="relu"), measured(5e-3))
    assert cost_of(table).cost(other) >= 5e-3  # as slow as what is alike


def test_what_cannot_be_measured_is_refused_where_nothing_was(table: LatencyTable) -> None:
    other = OpSignature("activation", 8, 8, 4, 4, function="mish")
    table.put_unsupported(SETTING, other, "no such kernel")
    with pytest.raises(UsageError, match="no such kernel"):
        cost_of(table).cost(other)


def test_bounds_take_no_more_than_the_whole_model_leaves(table: LatencyTable) -> None:
    """The model took a millisecond, its convolution half of that: the activation is in the other half."""
    table.put(SETTING, CONV.with_channels(16, 16), measured(5e-4))
    mish = OpSignature("activation", 16, 16, 8, 8, function="mish")
    table.put_unsupported(SETTING, mish, "no such kernel")
    layers = [
        Layer("conv", CONV.with_channels(16, 16), Width(16), Width(16)),
        Layer("mish", mish, Width(16), Width(16)),
    ]
    free, held = cost_of(table), cost_of(table)
    held.hold_bounds(layers, {}, free.cost(CONV.with_channels(16, 16)) + 0.5 * free.cost(mish))
    assert held.cost(mish) == pytest.approx(0.5 * free.cost(mish))
    held.hold_bounds(layers, {}, 1.0)
    assert held.cost(mish) == pytest.approx(free.cost(mish))


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1e-9, 1)), min_size=1, max_size=20))
def test_no_measured_operation_lies_above_the_bound(points: list[tuple[float, float]]) -> None:
    fixed, rate = line_above(points)
    assert fixed >= 0
    assert rate > 0
    assert all(seconds <= (fixed + rate * work) * (1 + 1e-9) for work, seconds in points)


def test_another_build_shares_nothing(table: LatencyTable) -> None:
    fill(table, CONV, [16], [16])
    with pytest.raises(UsageError, match="never measured"):
        LatencyCost(table, Setting("device", "litert-2-bbbb", 1)).cost(CONV.with_channels(16, 16))


def test_depthwise_widths_share_one_axis(table: LatencyTable) -> None:
    op = OpSignature("depthwise_conv2d", 32, 32, 8, 8, (3, 3), groups=32)
    for c in (8, 32):
        table.put(SETTING, op.with_channels(c, c), measured(c * 1e-6))
    assert cost_of(table).cost(op.with_channels(20, 20)) == pytest.approx(20e-6)


def test_a_width_inside_a_stair_costs_the_whole_stair(table: LatencyTable) -> None:
    stairs = fit_staircase({c: 1e-6 * (1 + -(-c // 32) * 32) for c in SWEEP})
    assert stairs.step == 32
    table.put_staircase(SETTING, "conv2d", stairs)
    for i in (8, 64):
        for o in (8, 64, 128):
            table.put(SETTING, CONV.with_channels(i, o), measured(1e-9 * i * -(-o // 32) * 32))
    cost = cost_of(table)
    at = {o: cost.cost(CONV.with_channels(64, o)) for o in (8, 32, 40, 64, 72, 96)}
    assert at[8] == pytest.approx(at[32])
    assert at[40] == pytest.approx(at[64])
    assert at[72] == pytest.approx(at[96])
    assert at[32] < at[40] < at[72]
    assert stairs.at(200) == 224


def test_what_a_kernel_costs_at_no_width_is_no_part_of_its_staircase(table: LatencyTable) -> None:
    """The layer that was swept has a fixed cost; one that has none is met all the same, from half its width up."""
    stairs = fit_staircase({c: 1e-6 * (3 + c) for c in SWEEP})
    table.put_staircase(SETTING, "conv2d", stairs)
    for i, o in ((16, 8), (16, 8), (16, 8), (16, 8), (16, 16), (32, 8), (32, 32)):
        table.put(SETTING, CONV.with_channels(i, o), measured(1e-6 * i * o))
    cost = cost_of(table)
    for i, o in ((16, 8), (16, 16), (32, 32), (32, 24)):
        assert cost.cost(CONV.with_channels(i, o)) == pytest.approx(1e-6 * i * o, rel=1e-6)
    assert cost.cost(CONV.with_channels(32, 160)) == pytest.approx(1e-6 * 32 * 160, rel=1e-6)


@given(st.integers(1, 3), st.floats(0.5, 5), st.floats(0, 0.02), st.randoms(use_true_random=False))
def test_a_staircase_is_found_under_noise(power: int, unit: float, noise: float, random: object) -> None:
    step = 8 * 2**power
    costs = {c: unit * (1 + -(-c // step) * step) * (1 + noise * random.random()) for c in SWEEP}  # type: ignore[attr-defined]
    assert fit_staircase(costs).step == step


@given(
    st.builds(
        OpSignature,
        kind=st.sampled_from(["conv2d", "linear", "add", "activation"]),
        in_channels=st.integers(1, 999),
        out_channels=st.integers(1, 999),
        kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
        function=st.sampled_from(["", "relu", "gelu_tanh"]),
        broadcast=st.booleans(),
        place=st.sampled_from(["", "in place", "in place, then Add (ND), Clamp (NC) over 64"]),
    )
)
def test_a_key_names_its_operation(op: OpSignature) -> None:
    assert parse_key(op.key()) == op


def test_counted_costs_and_totals() -> None:
    width = Width(0, (("g", 1),))
    layers = [
        Layer("a", OpSignature("conv2d", 3, 16, 8, 8, (3, 3), padding=(1, 1)), Width(3), width),
        Layer("b", OpSignature("linear", 16, 10), width, Width(10)),
    ]
    assert total(layers, {"g": 16}, MacsCost()) == 8 * 8 * 16 * 27 + 160
    assert total(layers, {"g": 4}, ParameterCost()) == 4 * 27 + 4 + 40 + 10
    assert total(layers, {"g": 4}, SizeCost()) == 4 * total(layers, {"g": 4}, ParameterCost())
