"""The stated interval: it rests on what whole models missed, and is never narrower than what their layers missed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_cost import SETTING, measured

from edgeprune.graph.operations import OpSignature
from edgeprune.latency.in_place import model_key
from edgeprune.latency.measurement import ModelRun
from edgeprune.latency.predictor import predictor_of
from edgeprune.latency.table import LatencyTable
from edgeprune.space.units import Layer, Width

G, H = Width(0, ((("g",), 1),)), Width(0, ((("h",), 1),))
ONE = Layer("one", OpSignature("conv2d", 16, 64, 8, 8, (3, 3), padding=(1, 1)), Width(16), G)
OTHER = Layer("other", OpSignature("conv2d", 16, 64, 8, 8), Width(16), H)
LAYERS, SIZES = (ONE, OTHER), {"g": 64, "h": 64}
WIDTHS = (64, 8, 16, 24, 32, 40, 56)
OFF = 0.02


def seconds(layer: Layer, width: int) -> float:
    """What both layers take, but for what they are off by: as much at each width."""
    return 1e-5 * width


def table_of(file: Path, off: float) -> LatencyTable:
    """Whole runs in which one layer is off by as much as the other, the other way, from width to width."""
    table = LatencyTable(file)
    for number, width in enumerate(WIDTHS):
        kept = {"g": width, "h": width}
        signs = {"one": (-1) ** number, "other": -((-1) ** number)}
        rows = [
            (layer.name, replace(layer.signature(kept), place="in place"), seconds(layer, width)) for layer in LAYERS
        ]
        layers = tuple((name, op.key(), s * (1 + off * signs[name])) for name, op, s in rows)
        whole = measured(sum(s for _, _, s in layers))
        run = ModelRun(base=model_key(LAYERS, SIZES), measurement=whole, before_s=0.0, layers=layers)
        table.put_model(SETTING, model_key(LAYERS, kept), run)
    return table


def test_misses_of_layers_that_cancel_in_whole_models_are_in_the_interval(tmp_path: Path) -> None:
    predictor = predictor_of(table_of(tmp_path / "t.sqlite", OFF), SETTING, LAYERS, SIZES)
    assert max(map(abs, predictor.misses)) < OFF / 3  # the whole models tell nothing of it
    for width in (8, 32, 48):
        found = predictor.predict({"g": width, "h": 64}, gone={"other"})  # which leaves nothing that makes up for it
        assert found.low_s is not None
        assert found.high_s is not None
        true = seconds(ONE, width)
        assert found.low_s <= true * (1 - OFF) < true * (1 + OFF) <= found.high_s
        assert found.high_s < true * (1 + 5 * OFF)


def test_layers_of_different_curves_make_up_for_each_other_in_part(tmp_path: Path) -> None:
    predictor = predictor_of(table_of(tmp_path / "t.sqlite", OFF), SETTING, LAYERS, SIZES)
    kept = {"g": 32, "h": 32}
    alone, both = predictor.predict(kept, gone={"other"}), predictor.predict(kept)
    assert alone.high_s is not None
    assert both.high_s is not None
    assert both.high_s / both.seconds < 1 + 0.8 * (alone.high_s / alone.seconds - 1)


def test_without_any_miss_the_interval_is_the_prediction(tmp_path: Path) -> None:
    found = predictor_of(table_of(tmp_path / "t.sqlite", 0.0), SETTING, LAYERS, SIZES).predict({"g": 48, "h": 8})
    assert found.low_s == pytest.approx(found.seconds, rel=1e-6)
    assert found.high_s == pytest.approx(found.seconds, rel=1e-6)
