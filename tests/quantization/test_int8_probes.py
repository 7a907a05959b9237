"""int8 probes of LiteRT: as the operations stand in a file that ships, and on the same kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeprune.devices.local import LocalDevice
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.profile import profile
from edgeprune.latency.tflite_probes import repeated
from edgeprune.latency.tflite_reader import Likeness, read_layers
from edgeprune.quantization.tflite import quantize_samples
from exporters.tflite_probes import build_int8

CONV = OpSignature("conv2d", 16, 24, 12, 12, (3, 3), padding=(1, 1), function="relu")
DEPTHWISE = OpSignature("depthwise_conv2d", 16, 16, 12, 12, (3, 3), padding=(1, 1), groups=16, function="relu6")
LINEAR = OpSignature("linear", 64, 10, 3)
ADD = OpSignature("add", 16, 16, 12, 12)
KERNELS = {CONV: "Convolution", DEPTHWISE: "Convolution", LINEAR: "Fully Connected", ADD: "Add"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    refused = OpSignature("activation", 8, 8, 4, 4, function="no such")
    return build_int8([*KERNELS, refused], tmp_path_factory.mktemp("int8"))


def test_what_can_be_written_is_and_the_rest_is_left_out(files: dict[str, Path]) -> None:
    assert set(files) == {op.key() for op in KERNELS}
    assert sorted(path.name for path in next(iter(files.values())).parent.iterdir()) == sorted(
        path.name for path in files.values()
    )


@pytest.mark.parametrize("op", KERNELS, ids=lambda op: str(op.kind))
def test_it_takes_and_gives_int8_and_runs_on_int8_kernels(op: OpSignature, files: dict[str, Path]) -> None:
    interpreter = Interpreter(str(files[op.key()]))
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert {entry["dtype"] for entry in ends} == {np.int8}
    kernels = profile(LocalDevice(), files[op.key()], runs=40).kernels
    assert {kernel.name.split(" (")[0] for kernel in kernels} == {KERNELS[op]}
    assert not any("F32" in kernel.name for kernel in kernels)


@pytest.mark.parametrize("op", [CONV, DEPTHWISE, LINEAR], ids=lambda op: str(op.kind))
def test_weights_have_a_scale_for_each_channel(op: OpSignature, files: dict[str, Path]) -> None:
    details = Interpreter(str(files[op.key()])).get_tensor_details()
    scales = [len(entry["quantization_parameters"]["scales"]) for entry in details if entry["dtype"] == np.int8]
    assert op.out_channels in scales
    assert [layer.likeness for layer in read_layers(files[op.key()])] == [Likeness.of(op)] * len(
        Interpreter(str(files[op.key()])).get_output_details()
    )


def test_layers_of_a_file_that_keeps_its_weights_behind_its_tables_are_read(tmp_path: Path) -> None:
    """The quantizer writes files so whose weights take 256 KB and more."""
    op = OpSignature("linear", 640, 640)
    (tmp_path / "float.tflite").write_bytes(repeated(op, 1))
    sample = np.random.default_rng(0).standard_normal((1, 640), np.float32)
    assert quantize_samples(tmp_path / "float.tflite", tmp_path / "int8.tflite", [(sample,)]) == {}
    assert [layer.likeness for layer in read_layers(tmp_path / "int8.tflite")] == [Likeness.of(op)]
