"""One-operation files for the latency table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune.artifacts.jobs import BuiltProbes, ProbeJob
from edgeprune.artifacts.plugins import Int8ProbeBuilder, ProbeBuilder, exporter_for, require_toolkit
from edgeprune.artifacts.toolkits import toolkits
from edgeprune.errors import ConversionError, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision


def build_probes(
    runtime: str, signatures: Sequence[OpSignature], folder: Path, precision: Precision = "fp32"
) -> dict[str, Path]:
    """Write a one-operation file for each signature; signature key -> file. Those that fail are left out.

    Raises:
        UsageError: no exporter of this runtime builds probes of this precision.
        ToolkitMissing: its toolkit is not installed.
        ConversionError: the toolkit crashed, or nothing at all could be built.
    """
    exporter = exporter_for(runtime)
    if not isinstance(exporter, {"fp32": ProbeBuilder, "int8": Int8ProbeBuilder}.get(precision, ())):
        raise UsageError(f"the exporter {exporter.name!r} builds no {precision} probes for the runtime {runtime!r}")
    require_toolkit(exporter)
    folder.mkdir(parents=True, exist_ok=True)
    unique = tuple({signature.key(): signature for signature in signatures}.values())
    if not unique:
        return {}
    files: dict[str, Path] = {}
    job = ProbeJob(exporter=exporter.name, precision=precision, signatures=unique, folder=folder)
    with toolkits() as open_toolkits:
        for reply in open_toolkits.do(job):
            assert isinstance(reply, BuiltProbes)
            files |= {key: file for key, file in reply.files.items() if file.is_file()}
    if not files:
        raise ConversionError(f"none of {len(unique)} probes could be built", where=f"{exporter.name} in {folder}")
    return files
