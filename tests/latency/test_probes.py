from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from listening import Listening

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.jobs import runtime_build
from edgeprune.devices.local import LocalDevice
from edgeprune.graph.operations import OpSignature
from edgeprune.latency import probes
from edgeprune.latency.bench import Bench
from edgeprune.latency.cost import LatencyCost, total
from edgeprune.latency.probes import find_staircases, grid, time_probes, widths
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.progress import Progress, Silent
from edgeprune.space.units import Layer, Width

G, H = Width(0, ((("g",), 1),)), Width(0, ((("h",), 1),))
CONV = OpSignature("conv2d", 32, 64, 8, 8, (3, 3), padding=(1, 1), function="relu")
LAYERS = [
    Layer("stem", OpSignature("conv2d", 3, 32, 16, 16, (3, 3), (2, 2), (1, 1)), Width(3), G),
    Layer("dw", OpSignature("depthwise_conv2d", 32, 32, 8, 8, (3, 3), padding=(1, 1), groups=32), G, G),
    Layer("conv", CONV, G, H),
    Layer("again", CONV, G, H),
    Layer("add", OpSignature("add", 64, 64, 8, 8), H, H),
    Layer("odd", OpSignature("activation", 64, 64, 8, 8, function="mish"), H, H),
    Layer("head", OpSignature("linear", 64, 10), H, Width(10)),
]
SIZES = {"g": 32, "h": 64}


def bench_on(device: LocalDevice, folder: Path, progress: Progress) -> Bench:
    exporter = MeasuringExporter("litert")  # probes of LiteRT are written without it
    return Bench(device, LatencyTable(folder / "t.sqlite"), "litert", exporter, 1, "quick", 8, 8, progress)


@pytest.mark.parametrize(
    ("width", "granularity", "step", "expected"),
    [
        (Width(10), 8, 8, [10]),
        (Width(0, ((("a",), 1),)), 8, 8, [8, 40, 64, 96]),
        (Width(0, ((("a",), 1),)), 8, 32, [8, 32, 64, 96]),
        (Width(5, ((("a",), 1), (("b",), 2))), 8, 8, [25, 56, 80, 113]),  # 5 + 8 + 2 * 6 to 5 + 96 + 2 * 6
        (Width(0, ((("b",), 1),)), 8, 8, [6]),
        (Width(0, ((("a",), 49),)), 8, 8, [392, 1832, 3264, 4704]),
    ],
)
def test_widths_span_from_the_smallest_to_the_full(
    width: Width, granularity: int, step: int, expected: list[int]
) -> None:
    found = widths(width, {"a": 96, "b": 6}, granularity, step)
    assert found == pytest.approx(expected, abs=8)
    assert (found[0], found[-1]) == (expected[0], expected[-1])
    assert all(point % step == 0 for point in found[1:-1])


def test_the_grid_has_each_operation_once_and_fixed_sides_stay() -> None:
    operations = grid(LAYERS, SIZES, 8, {})
    assert len(operations) == len(set(operations))
    by_kind = {kind: [o for o in operations if o.kind == kind] for kind in ("conv2d", "depthwise_conv2d", "linear")}
    assert {o.in_channels for o in by_kind["conv2d"] if o.height == 16} == {3}
    assert {o.out_channels for o in by_kind["linear"]} == {10}
    assert {(o.in_channels, o.out_channels) for o in by_kind["conv2d"] if o.height == 8} >= {(8, 8), (32, 64), (8, 64)}
    assert all(o.groups == o.in_channels == o.out_channels for o in by_kind["depthwise_conv2d"])


def test_grouped_convolutions_stay_divisible() -> None:
    layer = Layer("g", OpSignature("conv2d", 96, 96, 8, 8, (3, 3), groups=3), Width(0, ((("a",), 1),)), Width(96))
    operations = grid([layer], {"a": 96}, 8, {})
    assert operations
    assert all(o.in_channels % 3 == 0 for o in operations)


def test_probing_fills_the_table_once_and_for_every_width(device: LocalDevice, tmp_path: Path) -> None:
    progress = Listening()
    bench = bench_on(device, tmp_path, progress)
    table = bench.table
    find_staircases(bench, LAYERS)
    time_probes(bench, LAYERS, SIZES)
    setting = Setting(device.facts().fingerprint, runtime_build(device, "litert").id, 1)
    assert set(table.staircases(setting)) == {"conv2d", "depthwise_conv2d 3x3"}
    medians = table.medians(setting)
    assert all(seconds > 0 for seconds in medians.values())
    assert all("mish" in reason for reason in table.unsupported(setting).values())
    evidence = next(iter(table.operations(setting).values())).evidence
    assert "empty graph subtracted" in evidence

    costs = LatencyCost(table, setting)
    for g in range(8, 33, 8):
        for h in range(8, 65, 8):
            assert total(LAYERS, {"g": g, "h": h}, costs) > 0
    assert costs.extrapolates == set()
    assert {key.split("function=")[1] for key in costs.unmeasured} == {"mish;broadcast=False"}

    rows = table.operations(setting)
    progress.told.clear()
    find_staircases(bench, LAYERS)
    time_probes(bench, LAYERS, SIZES)
    assert table.operations(setting) == rows  # nothing was measured again
    assert not any("finding" in what for what, _, _ in progress.told)


@pytest.mark.slow
def test_int8_probes_fill_rows_of_their_own(device: LocalDevice, tmp_path: Path, warm_toolkits: None) -> None:
    floats, table = bench_on(device, tmp_path, Silent()), LatencyTable(tmp_path / "t.sqlite")
    bench = replace(floats, exporter=MeasuringExporter("litert", "int8"))
    layers, sizes = [LAYERS[2], LAYERS[5], LAYERS[6]], {"g": 8, "h": 8}
    time_probes(bench, layers, sizes)
    build = runtime_build(device, "litert").id
    int8, fp32 = bench.setting(build), floats.setting(build)
    assert (int8.precision, fp32.precision) == ("int8", "fp32")
    assert len(table.medians(int8)) == len(grid(layers, sizes, 8, {})) - len(table.unsupported(int8)) == 2
    assert ["mish" in key for key in table.unsupported(int8)] == [True]
    assert table.medians(fp32) == {}
    time_probes(floats, layers, sizes)
    assert set(table.medians(fp32)) == set(table.medians(int8))
    assert all(table.medians(fp32)[key] != seconds for key, seconds in table.medians(int8).items())


@pytest.mark.slow
def test_what_an_int8_pte_takes_at_its_borders_is_taken_off(
    device: LocalDevice, tmp_path: Path, warm_toolkits: None
) -> None:
    """Whole models quantize their input and make their output float once, a probe of one operation would at every."""
    table, exporter = LatencyTable(tmp_path / "t.sqlite"), MeasuringExporter("executorch", "int8")
    bench = Bench(device, table, "executorch", exporter, 1, "quick", 8, 8, Silent())
    layer = Layer("conv", CONV, Width(32), Width(64))
    time_probes(bench, [layer], {})
    (measured,) = table.operations(bench.setting(runtime_build(device, "executorch").id)).values()
    assert measured.file == CONV.key()
    assert "borders in float subtracted" in measured.evidence


def test_an_interrupted_probe_keeps_what_it_has(
    device: LocalDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "BATCH", 2)
    bench = bench_on(device, tmp_path, Silent())
    table = bench.table

    class Interrupt(Silent):
        def update(self, text: str, done: float, total: float) -> None:
            if done >= 4:
                raise KeyboardInterrupt

    layers = [LAYERS[4], LAYERS[6]]  # no sweep
    with pytest.raises(KeyboardInterrupt):
        time_probes(replace(bench, progress=Interrupt()), layers, SIZES)
    setting = Setting(device.facts().fingerprint, runtime_build(device, "litert").id, 1)
    kept = table.operations(setting)
    assert len(kept) == 4
    time_probes(bench, layers, SIZES)
    after = table.operations(setting)
    assert len(after) == 8
    assert {key: after[key] for key in kept} == kept
