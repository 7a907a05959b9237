"""Core ML: .mlpackage (ML Program) by coremltools; computes in fp16, optionally with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.artifacts.manifest import TensorSpec, layout_of
from edgeprune.recipe import Precision

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

ROUNDING_IMAGES = 32


class CoreMLExporter:
    """float16, and float16 with int8 weights; float32 input and output, NCHW; iOS 17, macOS 14 and later."""

    name = "coreml"
    suffix = ".mlpackage"
    precisions: tuple[Precision, ...] = ("fp16", "int8")
    int8_scheme = "linear symmetric int8 weights per channel, fp16 activations"
    runtime: None = None
    packages = ("coremltools",)
    extra = "coreml"

    def load(self) -> None:
        import coremltools  # noqa: F401

    def convert(
        self,
        program: ExportedProgram,
        outputs: Sequence[Output],
        calibration: torch.Tensor | None,
    ) -> Iterator[Converted]:
        """See `edgeprune.artifacts.plugins.Exporter`. Calibration images, where there are some, guide the rounding
        of the weights to fp16; activations are not quantized."""
        from edgeprune.quantization.coreml import quantize_weights
        from edgeprune.quantization.half import round_to_half

        if calibration is not None:
            round_to_half(program, calibration[:ROUNDING_IMAGES])
        model = None
        for output in outputs:
            model = model or _lower(program)
            written = quantize_weights(model) if output.precision == "int8" else model
            _save(written, output.file)
            yield _describe(written, output)


def _lower(program: ExportedProgram) -> Any:
    import coremltools
    import numpy as np

    count = len(program.graph.output_node().args[0])
    if count == 1:
        outputs = [coremltools.TensorType(dtype=np.float32)]
    else:  # Core ML gives outputs by name alone
        outputs = [coremltools.TensorType(name=f"output{number}", dtype=np.float32) for number in range(count)]
    return coremltools.convert(
        program.run_decompositions({}),
        convert_to="mlprogram",
        outputs=outputs,
        compute_precision=coremltools.precision.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )


def _save(model: Any, folder: Path) -> None:
    model.save(str(folder))
    # coremltools leaves a note for ExecuTorch's debugger in the package, which no Core ML tool reads
    (folder / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _describe(model: Any, output: Output) -> Converted:
    description = model.get_spec().description
    return Converted(
        weights_precision=output.precision,
        inputs=tuple(_spec(one) for one in _inputs(description)),
        outputs=tuple(_spec(one) for one in description.output),
    )


def _inputs(description: Any) -> list[Any]:
    """The inputs in the order of the program, which numbers several of them."""
    from edgeprune.models.inputs import in_order

    named = {one.name: one for one in description.input}
    return [named[name] for name in in_order(named)] if len(named) > 1 else list(named.values())


def _spec(feature: Any) -> TensorSpec:
    array = feature.type.multiArrayType
    kinds = {array.FLOAT32: "float32", array.FLOAT16: "float16"}
    shape = tuple(array.shape)
    return TensorSpec(name=feature.name, shape=shape, dtype=kinds[array.dataType], layout=layout_of(len(shape)))
