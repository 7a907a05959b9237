"""LiteRT: .tflite by litert-torch, NHWC input and maps; int8 by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.artifacts.manifest import Delegation, TensorSpec, layout_of
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


class TFLiteExporter:
    """float32 and int8 (weights, activations, input and output)."""

    name = "tflite"
    suffix = ".tflite"
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    int8_scheme = "ai-edge-quantizer static, int8 weights per channel, int8 activations per tensor"
    runtime: Literal["litert"] = "litert"
    packages = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
    extra = "tflite"

    def load(self) -> None:
        import litert_torch  # noqa: F401

    def convert(
        self, program: ExportedProgram, outputs: Sequence[Output], calibration: torch.Tensor | None
    ) -> Iterator[Converted]:
        """See `edgeprune.artifacts.plugins.Exporter`."""
        model = None
        for output in outputs:
            model = model or _lower(program)
            left: dict[str, int] = {}
            if output.precision == "fp32":
                model.export(str(output.file))
            else:
                left = self._write_int8(program, model, output.file, calibration)
            yield _describe(output).model_copy(update={"left_in_float": left})

    def build_int8_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """See `edgeprune.artifacts.plugins.Int8ProbeBuilder`."""
        from exporters.tflite_probes import build_int8

        return build_int8(signatures, folder)

    def _write_int8(
        self, program: ExportedProgram, model: Any, file: Path, calibration: torch.Tensor | None
    ) -> dict[str, int]:
        from edgeprune.quantization.calibration import samples_of
        from edgeprune.quantization.tflite import quantize_tflite

        if calibration is None:
            raise ValueError("int8 needs calibration images")
        source = file.with_name(f"float_{file.name}")
        model.export(str(source))
        left = quantize_tflite(source, file, samples_of(program, calibration))
        source.unlink()
        return left


def _lower(program: ExportedProgram) -> Any:
    import litert_torch

    from exporters.pools import average_plainly, pad_max_pools
    from exporters.relus import drop_idle_relus

    drop_idle_relus(program)
    pad_max_pools(program)
    average_plainly(program)
    answers = program.graph.output_node().args[0]
    maps = [number for number, answer in enumerate(answers) if answer.meta["val"].ndim == 4]
    examples = program.example_inputs[0]
    images = [number for number, example in enumerate(examples) if example.ndim == 4]
    module = litert_torch.to_channel_last_io(program.module(), args=images or None, outputs=maps or None)
    module.training = False  # an exported module refuses .eval(); it was traced in eval mode
    return litert_torch.convert(
        module,
        tuple(one.permute(0, 2, 3, 1).contiguous() if one.ndim == 4 else one for one in examples),
    )


def _describe(output: Output) -> Converted:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(output.file), num_threads=1)
    interpreter.allocate_tensors()
    return Converted(
        weights_precision=output.precision,
        inputs=tuple(_spec(one) for one in _inputs(interpreter)),
        outputs=tuple(_spec(one) for one in interpreter.get_output_details()),
        delegation=_delegation(interpreter) if output.describe else None,
    )


def _inputs(interpreter: Any) -> list[dict[str, Any]]:
    """The details of the inputs in the order of the model's arguments: the file may have them in another."""
    from edgeprune.models.inputs import in_order

    details = {int(one["index"]): one for one in interpreter.get_input_details()}
    (signature,) = interpreter._get_full_signature_list().values()
    return [details[int(signature["inputs"][name])] for name in in_order(signature["inputs"])]


def _spec(details: dict[str, Any]) -> TensorSpec:
    quantized = details["dtype"] != np.float32
    scale, zero_point = details["quantization"]
    return TensorSpec(
        name=details["name"],
        shape=tuple(int(n) for n in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        layout=layout_of(len(details["shape"]), "NHWC"),
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )


def _delegation(interpreter: Any) -> Delegation:
    """Operators inside and outside XNNPACK, of an interpreter that has allocated its tensors.

    The interpreter lists the file's operators and, after them, the DELEGATE nodes that replaced some. A delegate
    computes exactly the operators on the way back from its outputs to its inputs.
    """
    operators = [op for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    delegates = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    producer = {int(tensor): op for op in operators for tensor in op["outputs"]}
    inside: set[int] = set()
    for delegate in delegates:
        given = {int(tensor) for tensor in delegate["inputs"]}
        wanted = [int(tensor) for tensor in delegate["outputs"]]
        while wanted:
            tensor = wanted.pop()
            op = producer.get(tensor)
            if tensor in given or op is None or op["index"] in inside:
                continue
            inside.add(op["index"])
            wanted += [int(t) for t in op["inputs"]]
    names: dict[str, int] = {}
    for op in operators:
        if op["index"] not in inside:
            names[op["op_name"]] = names.get(op["op_name"], 0) + 1
    return Delegation(
        backend="xnnpack", delegated=len(inside), outside=len(operators) - len(inside), outside_operators=names
    )
