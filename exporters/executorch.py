"""ExecuTorch: .pte lowered to XNNPACK, NCHW float32 input and output; int8 by PT2E."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.artifacts.manifest import Delegation, TensorSpec, layout_of
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision
from exporters.executorch_lowering import lower, write

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


class ExecuTorchExporter:
    """float32 and int8 (weights and activations)."""

    name = "pte"
    suffix = ".pte"
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    int8_scheme = "PT2E XNNPACKQuantizer, symmetric int8 weights per channel, int8 activations per tensor"
    runtime: Literal["executorch"] = "executorch"
    packages = ("executorch", "torchao")
    extra = "executorch"

    def load(self) -> None:
        import executorch.backends.xnnpack.partition.xnnpack_partitioner
        import executorch.exir  # noqa: F401

    def convert(
        self, program: ExportedProgram, outputs: Sequence[Output], calibration: torch.Tensor | None
    ) -> Iterator[Converted]:
        """See `edgeprune.artifacts.plugins.Exporter`."""
        from exporters.relus import drop_idle_relus
        from exporters.softmax import softmax_over_rows

        drop_idle_relus(program)
        softmax_over_rows(program)
        for output in outputs:
            source = program
            if output.precision == "int8":
                from edgeprune.quantization.pt2e import quantize_pt2e

                if calibration is None:
                    raise ValueError("int8 needs calibration images")
                source = quantize_pt2e(program, calibration)
            edge = lower(source)
            converted = _describe(program, edge, output)
            write(edge, output.file)  # it rewrites the graph that was just described
            if output.describe:
                _check_loads(output.file)
            yield converted

    def build_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """See `edgeprune.artifacts.plugins.ProbeBuilder`."""
        from exporters.executorch_probes import build

        return build(signatures, folder)

    def build_int8_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """See `edgeprune.artifacts.plugins.Int8ProbeBuilder`."""
        from exporters.executorch_probes import build

        return build(signatures, folder, int8=True)


def _check_loads(file: Path) -> None:
    """ExecuTorch also writes operators that no kernel exists for; the file then cannot be loaded anywhere.

    Raises:
        RuntimeError: the stock runtime refuses the file (it names the operator in the log).
    """
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(str(file))  # kept: a method without its program crashes
    program.load_method("forward")


def _describe(program: ExportedProgram, edge: Any, output: Output) -> Converted:
    answers = [node.meta["val"] for node in program.graph.output_node().args[0]]
    return Converted(
        weights_precision=output.precision,
        inputs=tuple(_spec("input", entry, number) for number, entry in enumerate(program.example_inputs[0])),
        outputs=tuple(_spec("output", answer, number) for number, answer in enumerate(answers)),
        delegation=_delegation(edge) if output.describe else None,
    )


def _spec(word: str, tensor: Any, number: int) -> TensorSpec:
    name = word if number == 0 else f"{word}{number}"
    return TensorSpec(name=name, shape=tuple(tensor.shape), dtype="float32", layout=layout_of(tensor.ndim))


def _delegation(edge: Any) -> Delegation:
    """Operators inside XNNPACK's delegates and those left to portable kernels.

    Quantize and dequantize nodes inside a delegate are not counted: XNNPACK folds them into its operators.
    """
    module = edge.exported_program().graph_module
    inside = sum(
        1
        for _, lowered in module.named_children()
        for node in _operators(lowered.original_module.graph)
        if "quantize" not in _name(node)
    )
    outside = Counter(_name(node) for node in _operators(module.graph))
    return Delegation(
        backend="xnnpack",
        delegated=inside,
        outside=sum(outside.values()),
        outside_operators=dict(sorted(outside.items())),
    )


def _operators(graph: Any) -> list[Any]:
    plumbing = ("getitem", "executorch_call_delegate")
    return [node for node in graph.nodes if node.op == "call_function" and _name(node) not in plumbing]


def _name(node: Any) -> str:
    """`aten.convolution.default`, for an edge operator as for torch's own."""
    return str(getattr(node.target, "__name__", node.target))
