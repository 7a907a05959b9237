"""Quick files for measuring, and one-operation probes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from exporting import export
from facts import refused
from real_runtimes import run_pte, run_tflite, sqnr_db
from tiny_network import images, tiny_model
from torch import nn

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.artifacts.probes import build_probes
from edgeprune.errors import ConversionError, UsageError
from edgeprune.graph.operations import OpSignature


class Unknown(nn.Module):
    """Traces, but no toolkit has a kernel for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x[:, :, :4, :4].mean(1)).real


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_a_warm_exporter_writes_file_after_file_and_survives_a_failure(
    tmp_path: Path, runtime: Literal["litert", "executorch"]
) -> None:
    model = tiny_model()
    picture = images(1, 3)
    with torch.no_grad():
        expected = model.module(picture)
    with MeasuringExporter(runtime) as exporter:
        if runtime == "litert":  # ExecuTorch writes what it has no kernel for; the device refuses it
            with refused(ConversionError, "tflite fp32"):
                exporter.write(model.with_module(Unknown().eval()), tmp_path / "failed")
        first = exporter.write(model, tmp_path / f"first{exporter.suffix}")
        with torch.no_grad():
            model.module.head.weight.neg_()  # type: ignore[union-attr,operator]
            model.module.head.bias.neg_()  # type: ignore[union-attr,operator]
        second = exporter.write(model, tmp_path / f"second{exporter.suffix}")
    assert {p.name for p in tmp_path.iterdir()} == {first.name, second.name}
    for file, sign in ((first, 1), (second, -1)):
        assert sqnr_db(sign * expected, _answer(file, picture)) >= 100


def test_one_file_on_its_own_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with MeasuringExporter("litert") as exporter:
        file = exporter.write(tiny_model(), tmp_path / "deep" / "quick.tflite")
    assert [p.name for p in file.parent.iterdir()] == ["quick.tflite"]


def test_a_pte_that_no_runtime_can_load_is_refused(tmp_path: Path) -> None:
    model = tiny_model().with_module(Unknown().eval())
    with refused(ConversionError, "pte fp32", "linalg_eig"):
        export(model, tmp_path, formats=("pte",), int8=False, calibration=None, reference_input=images(2, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["reference.safetensors"]


def _answer(file: Path, picture: torch.Tensor) -> torch.Tensor:
    if file.suffix == ".tflite":
        return run_tflite(file, picture.permute(0, 2, 3, 1).contiguous())
    return run_pte(file, picture)


PROBES = (
    OpSignature("conv2d", 3, 8, 9, 9, (3, 3), (2, 2), (1, 1), function="relu"),
    OpSignature("depthwise_conv2d", 8, 8, 6, 6, (3, 3), (1, 1), (1, 1), groups=8, function="relu6"),
    OpSignature("linear", 12, 5, height=7),
    OpSignature("add", 8, 8, 6, 6),
    OpSignature("mul", 8, 8, 6, 6, broadcast=True),
    OpSignature("max_pool2d", 8, 8, 7, 7, (3, 3), (2, 2), (1, 1)),
    OpSignature("mean", 8, 8, 6, 6),
    OpSignature("activation", 1, 1, function="relu"),
    OpSignature("activation", 8, 8, 6, 6, function="hardswish"),
)
IMPOSSIBLE = (
    OpSignature("activation", 8, 8, 6, 6, function="frobnicate"),
    OpSignature("conv2d", 8, 8, 2, 2, (5, 5)),
)


def test_probes_of_every_kind_run_in_executorch_and_impossible_ones_are_left_out(tmp_path: Path) -> None:
    from executorch.runtime import Runtime

    built = build_probes("executorch", [*PROBES, *IMPOSSIBLE, PROBES[0]], tmp_path)
    assert built.keys() == {signature.key() for signature in PROBES}
    assert {p.name for p in tmp_path.iterdir()} == {file.name for file in built.values()}
    for signature in PROBES:
        program = Runtime.get().load_program(str(built[signature.key()]))
        method = program.load_method("forward")
        assert method is not None
        assert method.metadata.num_inputs() == 1
        shape = tuple(method.metadata.input_tensor_meta(0).sizes())
        (out,) = method.execute([torch.randn(shape)])
        if signature.kind == "linear":
            assert tuple(out.shape) == (signature.height, signature.out_channels)
        else:
            assert tuple(out.shape) == (1, signature.out_channels, *signature.out_hw)


def test_a_runtime_without_probes_says_so(tmp_path: Path) -> None:
    with refused(UsageError, "litert", "probes"):
        build_probes("litert", PROBES[:1], tmp_path)
