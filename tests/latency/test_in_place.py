"""Layers in place: whose each kernel of a real file is, and what is said where that cannot be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from facts import refused

from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import COUNTED_BEFORE, OpSignature
from edgeprune.latency.in_place import (
    NotInPlace,
    match_layers,
    model_key,
    placed,
    times_in_place,
)
from edgeprune.latency.profile import Kernel, profile
from edgeprune.latency.tflite_reader import read_layers
from edgeprune.latency.tflite_writer import Graph, append, input_shape
from edgeprune.space.units import Layer, Width

G, H = Width(0, ((("g",), 1),)), Width(0, ((("h",), 1),))
STEM = OpSignature("conv2d", 3, 32, 16, 16, (3, 3), (2, 2), (1, 1), function="relu")
DEPTHWISE = OpSignature("depthwise_conv2d", 32, 32, 8, 8, (5, 5), padding=(2, 2), groups=32)
POINT = OpSignature("conv2d", 32, 64, 8, 8)
LAYERS = (
    Layer("stem", STEM, Width(3), G),
    Layer("dw", DEPTHWISE, G, G),
    Layer("silu", OpSignature("activation", 32, 32, 8, 8, function="silu"), G, G),
    Layer("point", POINT, G, H),
    Layer("pool", OpSignature("mean", 64, 64, 8, 8), H, H),
)
SIZES = {"g": 32, "h": 64}


def written(folder: Path, kept: dict[str, int], *, without: tuple[str, ...] = ()) -> Path:
    graph = Graph()
    x = graph.input(input_shape(LAYERS[0].signature(kept)))
    for layer in LAYERS:
        if layer.name not in without:
            x = append(graph, layer.signature(kept), x)
    graph.output(x)
    file = folder / "net.tflite"
    file.write_bytes(graph.to_bytes())
    return file


@pytest.mark.parametrize("kept", [SIZES, {"g": 8, "h": 24}])
def test_every_kernel_is_charged_to_the_layer_it_follows(
    device: LocalDevice, tmp_path: Path, kept: dict[str, int]
) -> None:
    file = written(tmp_path, kept)
    found = profile(device, file, runs=40)
    before, rows = times_in_place(match_layers(file, LAYERS, kept), found.kernels)
    assert [name for name, _, _ in rows] == ["stem", "dw", "point"]
    assert before + sum(seconds for _, _, seconds in rows) == pytest.approx(found.sum_s)
    operations = {name: operation for name, operation, _ in rows}
    assert replace(operations["stem"], place="") == LAYERS[0].signature(kept)
    assert operations["stem"].place == "in place"
    assert operations["dw"].place == "in place, then Multiply, Sigmoid over 64"
    assert operations["point"].place.startswith("in place, then Mean")


def test_a_file_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    with refused(NotInPlace, "dw", code=3):
        match_layers(written(tmp_path, SIZES, without=("dw", "silu")), LAYERS, SIZES)


def test_a_file_of_other_widths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInPlace, match="no layer of the model is like"):
        match_layers(written(tmp_path, {"g": 16, "h": 64}), LAYERS, SIZES)


def test_kernels_that_are_not_one_for_each_layer_are_refused(tmp_path: Path) -> None:
    matches = match_layers(written(tmp_path, SIZES), LAYERS, SIZES)
    kernel = Kernel(name="Convolution (NHWC, F32) IGEMM", median_s=1.0, low_s=1.0, high_s=1.0, share=1.0)
    with refused(NotInPlace, 2, 3, code=3):
        times_in_place(matches, [kernel, kernel])


def test_a_linear_layer_with_computed_weights_is_counted_with_the_layer_before(tmp_path: Path) -> None:
    """As the exporter writes the products of an attention that has one head left."""
    linear = OpSignature("linear", 16, 24, 10)
    graph = Graph()
    x = graph.input((10, 16))
    y = append(graph, linear, x)
    graph.output(graph.add("FULLY_CONNECTED", [y, y, -1], (10, 10), None))
    file = tmp_path / "attention.tflite"
    file.write_bytes(graph.to_bytes())
    assert [layer.likeness is None for layer in read_layers(file)] == [False, True]
    (match,) = match_layers(file, [Layer("qkv", linear, Width(16), Width(24))], {})
    assert match.kernels == 2
    names = ("Fully Connected (NC, F32) GEMM", "FULLY_CONNECTED", "Softmax (NC, F32)")
    kernels = [Kernel(name=name, median_s=1.0, low_s=1.0, high_s=1.0, share=0.3) for name in names]
    _, ((name, operation, seconds),) = times_in_place([match], kernels)
    assert (name, seconds) == ("qkv", 3.0)
    assert operation.place == "in place, then FULLY_CONNECTED, Softmax over 0"


def test_layers_know_their_place() -> None:
    known = placed(LAYERS, {"stem": "in place", "dw": "in place, then Sigmoid over 64"})
    assert [layer.operation.place for layer in known[:3]] == [
        "in place",
        "in place, then Sigmoid over 64",
        COUNTED_BEFORE,
    ]
    assert [layer.signature(SIZES).macs for layer in known] == [layer.signature(SIZES).macs for layer in LAYERS]


def test_a_model_is_known_by_its_layers_and_widths() -> None:
    key = model_key(LAYERS, SIZES)
    assert model_key(placed(LAYERS, {"stem": "in place"}), SIZES) == key
    assert model_key(LAYERS, {"g": 24, "h": 64}) != key
    assert model_key(LAYERS[1:], SIZES) != key


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_what_is_no_tflite_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tflite").write_bytes(content)
    with refused(UsageError, tmp_path / "x.tflite"):
        read_layers(tmp_path / "x.tflite")
    with refused(UsageError, tmp_path / "gone.tflite"):
        read_layers(tmp_path / "gone.tflite")
