"""ONNX: one self-contained file by torch's exporter, float32, NCHW."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.artifacts.manifest import TensorSpec, layout_of
from edgeprune.recipe import Precision

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


class OnnxExporter:
    """float32."""

    name = "onnx"
    suffix = ".onnx"
    precisions: tuple[Precision, ...] = ("fp32",)
    runtime: Literal["onnxruntime"] = "onnxruntime"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"

    def load(self) -> None:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401

    def convert(
        self,
        program: ExportedProgram,
        outputs: Sequence[Output],
        calibration: torch.Tensor | None,  # noqa: ARG002 - float only
    ) -> Iterator[Converted]:
        """See `edgeprune.artifacts.plugins.Exporter`."""
        import onnx
        import torch

        for output in outputs:
            given, answers = len(program.example_inputs[0]), len(program.graph.output_node().args[0])
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=_names("input", given),
                output_names=_names("output", answers),
            )
            if written is None:
                raise RuntimeError("torch's ONNX exporter returned nothing")
            written.save(str(output.file), external_data=False)
            model = onnx.load(str(output.file))
            _strip(model)
            onnx.save(model, str(output.file))
            onnx.checker.check_model(model)
            yield Converted(
                weights_precision=output.precision,
                inputs=tuple(_spec(one) for one in model.graph.input),
                outputs=tuple(_spec(one) for one in model.graph.output),
            )


def _names(word: str, count: int) -> list[str]:
    return [word] if count == 1 else [f"{word}{number}" for number in range(count)]


def _strip(message: Any) -> None:
    """Take out what tells how and where the model was written: source lines, paths, names of the user's classes."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if hasattr(value, "__len__") else [value]:
                _strip(part)


def _spec(value: Any) -> TensorSpec:
    shape = tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)
    return TensorSpec(name=value.name, shape=shape, dtype="float32", layout=layout_of(len(shape)))
