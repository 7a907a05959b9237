"""Core ML: .mlpackage (ML Program) by coremltools; computes in fp16, optionally with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.artifacts.manifest import TensorSpec
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

    return coremltools.convert(
        program.run_decompositions({}),
        convert_to="mlprogram",
        outputs=[coremltools.TensorType(dtype=np.float32)],
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
    (entry,), (answer,) = description.input, description.output
    return Converted(
        weights_precision=output.precision, input=_spec(entry, "NCHW"), output=_spec(answer, "NC"), delegation=None
    )


def _spec(feature: Any, layout: Literal["NCHW", "NC"]) -> TensorSpec:
    array = feature.type.multiArrayType
    kinds = {array.FLOAT32: "float32", array.FLOAT16: "float16"}
    return TensorSpec(name=feature.name, shape=tuple(array.shape), dtype=kinds[array.dataType], layout=layout)
