"""Costs taken over from another runtime: factors are found again, and whole models come out as they were measured."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from test_cost import CONV, SETTING, measured

from edgeprune.devices.conditions import RuntimeBuild
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.cost import LatencyCost
from edgeprune.latency.in_place import model_key
from edgeprune.latency.measurement import ModelRun
from edgeprune.latency.predictor import forget_alone, keep_alone, predictor_of, profiled_setting
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.latency.transfer import transfer
from edgeprune.space.units import Layer, Width

IN_PLACE = "in place"
G, H = Width(0, ((("g",), 1),)), Width(0, ((("h",), 1),))
LAYERS = (
    Layer("conv", CONV.with_channels(64, 64), Width(64), G),
    Layer("point", OpSignature("conv2d", 64, 64, 8, 8), G, H),
    Layer("head", OpSignature("linear", 64, 10), H, Width(10)),
)
SIZES = {"g": 64, "h": 64}
OTHER_BUILD = RuntimeBuild(name="executorch", version="1", sha256="b" * 64)
OTHER = Setting(SETTING.device, OTHER_BUILD.id, 1)
FACTORS = {"conv2d": 0.8, "conv2d 1x1": 1.5, "linear": 1.0}
WIDTHS = [(64, 64), (8, 40), (16, 24), (24, 8), (32, 56), (40, 16), (56, 32)]


def seconds(layer: Layer, kept: dict[str, int]) -> float:
    return 1e-7 * layer.signature(kept).macs ** 0.9


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    """Whole runs in two runtimes; the other one's kernels take FACTORS as long, and 20 us are beside them."""
    made = LatencyTable(tmp_path / "t.sqlite")
    base = model_key(LAYERS, SIZES)
    for g, h in WIDTHS:
        kept = {"g": g, "h": h}
        rows = [(layer.name, replace(layer.signature(kept), place=IN_PLACE), seconds(layer, kept)) for layer in LAYERS]
        whole = measured(sum(s for _, _, s in rows))
        layers = tuple((name, op.key(), s) for name, op, s in rows)
        key = model_key(LAYERS, kept)
        made.put_model(SETTING, key, ModelRun(base=base, measurement=whole, before_s=0.0, layers=layers))
        kinds = ("conv2d", "conv2d 1x1", "linear")
        there = 20e-6 + sum(FACTORS[kind] * s for kind, (_, _, s) in zip(kinds, rows, strict=True))
        run = ModelRun(base=base, measurement=measured(there), before_s=0.0, layers=())
        made.put_model(OTHER, key, run)
    return made


def test_whole_models_come_out_as_they_were_measured(table: LatencyTable) -> None:
    predictor = predictor_of(table, OTHER, LAYERS, SIZES)
    assert "7 whole models" in predictor.basis
    assert SETTING.build in predictor.basis
    for g, h in ((64, 64), (20, 44), (48, 48)):
        kept = {"g": g, "h": h}
        true = 20e-6 + sum(f * seconds(layer, kept) for f, layer in zip(FACTORS.values(), LAYERS, strict=True))
        found = predictor.predict(kept)
        assert found.seconds == pytest.approx(true, rel=0.1)
        assert found.low_s is not None
    assert len(predictor.misses) == len(WIDTHS) - 1
    assert max(map(abs, predictor.misses)) < 0.2


def test_one_model_gives_one_factor_for_all(table: LatencyTable) -> None:
    costs = LatencyCost(table, SETTING)
    operations = [replace(layer.signature(SIZES), place=IN_PLACE) for layer in LAYERS]
    sum_s = sum(map(costs.cost, operations))
    found, constant = transfer([(operations, 1.25 * sum_s)], costs)
    assert constant + sum(map(found.cost, operations)) == pytest.approx(1.25 * sum_s, rel=0.02)
    assert all(factor == pytest.approx(1.25, rel=0.2) for factor in found.factors.values())


def test_the_profiled_setting_is_one_of_this_device(table: LatencyTable) -> None:
    base = model_key(LAYERS, SIZES)
    assert profiled_setting(table, OTHER, base) == SETTING
    assert profiled_setting(table, Setting("another device", OTHER.build, 1), base) is None
    assert profiled_setting(table, Setting(OTHER.device, OTHER.build, 2), base) is None
    assert profiled_setting(table, OTHER, "another model") is None


def test_a_disturbed_order_of_models_changes_nothing(table: LatencyTable) -> None:
    costs = LatencyCost(table, SETTING)
    models = []
    for g, h in WIDTHS:
        kept = {"g": g, "h": h}
        models.append(([replace(layer.signature(kept), place=IN_PLACE) for layer in LAYERS], 1e-3 * (g + h)))
    first = transfer(models, costs)[0].factors
    random.Random(1).shuffle(models)
    assert transfer(models, costs)[0].factors == pytest.approx(first)


def test_what_is_timed_alone_is_predicted_so_until_whole_models_tell_enough(table: LatencyTable) -> None:
    in_place = predictor_of(table, SETTING, LAYERS, SIZES)
    for layer in LAYERS:
        table.put(SETTING, layer.operation, measured(seconds(layer, SIZES)))
    keep_alone(table, SETTING, LAYERS, SIZES, measured(1.0))
    alone = predictor_of(table, SETTING, LAYERS, SIZES)
    assert alone.basis.startswith("operations timed alone")
    assert alone.predict(SIZES).seconds == pytest.approx(1.0)
    forget_alone(table, SETTING, LAYERS, SIZES)
    assert predictor_of(table, SETTING, LAYERS, SIZES).predict(SIZES) == in_place.predict(SIZES)
