"""A traced program lowered to XNNPACK, and written as .pte: a model's and a probe's alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def lower(program: ExportedProgram) -> Any:
    """The program as an edge program manager, with all that XNNPACK takes inside delegates."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    return to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),  # the export is torch's own; saves time
    )


def write(edge: Any, file: Path) -> None:
    """The edge program manager as a .pte file; it rewrites the graph."""
    with file.open("wb") as handle:
        edge.to_executorch().write_to_file(handle)
