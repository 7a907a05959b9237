"""Kernels in place: those of the file in their order, with times that add up to the run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.profile import profile
from edgeprune.latency.tflite_writer import Graph, append, input_shape

SMALL = OpSignature("conv2d", 16, 16, 16, 16, (3, 3), padding=(1, 1), function="relu")
LARGE = OpSignature("conv2d", 16, 64, 16, 16, (3, 3), padding=(1, 1))
DEPTHWISE = OpSignature("depthwise_conv2d", 64, 64, 16, 16, (3, 3), padding=(1, 1), groups=64)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    graph = Graph()
    x = graph.input(input_shape(SMALL))
    for operation in (SMALL, LARGE, DEPTHWISE):
        x = append(graph, operation, x)
    graph.output(x)
    path = tmp_path / "net.tflite"
    path.write_bytes(graph.to_bytes())
    return path


def test_the_kernels_are_those_of_the_file(device: LocalDevice, file: Path) -> None:
    found = profile(device, file, runs=80)
    names = [kernel.name for kernel in found.kernels]
    assert ["DWConv" in name for name in names] == [False, False, True], names
    assert all("Conv" in name for name in names)
    small, large, _ = found.kernels
    assert large.median_s > small.median_s  # four times the work
    assert sum(kernel.share for kernel in found.kernels) == pytest.approx(1)
    for kernel in found.kernels:
        assert kernel.low_s <= kernel.median_s <= kernel.high_s
    assert 0.1 * found.whole_s < found.sum_s < 10 * found.whole_s  # no stopwatch: others may want the processor, too
    assert found.whole_low_s <= found.whole_s <= found.whole_high_s
    assert found.quality in ("stable", "noisy", "throttled")
    assert "interval" in found.evidence
    assert (found.file, found.runs, found.runtime.name) == ("net.tflite", 80, "litert")


def test_what_cannot_be_profiled_is_refused(device: LocalDevice, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="40 at least"):
        profile(device, file, runs=39)
    other = tmp_path / "net.onnx"
    other.write_bytes(b"")
    with pytest.raises(UsageError, match="onnxruntime tells no kernels"):
        profile(device, other)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"broken\.tflite: this is no \.tflite file"):
        profile(device, broken)
