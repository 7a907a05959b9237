"""Exporter plugins: what one must offer, and finding them by the entry-point group `edgeprune.exporters`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.errors import ToolkitMissing, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

GROUP = "edgeprune.exporters"


class Exporter(Protocol):
    """Writes one format. Making an instance must be cheap and must not import the toolkit.

    Class attributes are enough for the properties.
    """

    @property
    def name(self) -> str:
        """The format, as recipes write it."""
        ...

    @property
    def suffix(self) -> str:
        """Of the files, with the dot."""
        ...

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it can write; the ones without calibration first."""
        ...

    @property
    def runtime(self) -> Literal["litert", "executorch", "onnxruntime"] | None:
        """Which runtime of a device executes its files; None when only another machine can."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Importable packages that conversion needs."""
        ...

    @property
    def extra(self) -> str:
        """The extra of edgeprune that installs them, e.g. `executorch` for `edgeprune[executorch]`."""
        ...

    def load(self) -> None:
        """Import the toolkit; called in the child while the parent is still tracing."""
        ...

    def convert(
        self, program: ExportedProgram, outputs: Sequence[Output], calibration: torch.Tensor | None
    ) -> Iterator[Converted]:
        """Write each output, in order, yielding once its file is whole. Runs inside a child process.

        `program` is traced with batch 1, one input (1, C, H, W) float32 and one output (1, classes) float32;
        `calibration` is (N, C, H, W) float32, given whenever an output is int8.
        """
        ...


@runtime_checkable
class ProbeBuilder(Protocol):
    """An exporter that can also write one-operation files for the latency table."""

    def build_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """Signature key -> file; a signature that cannot be built is left out. Runs inside a child process."""
        ...


def find_exporters() -> dict[str, Exporter]:
    """All installed exporters by format name.

    Raises:
        UsageError: two packages offer the same name, or a plugin cannot be loaded.
    """
    return {name: _load(points) for name, points in _by_name().items()}


def find_exporter(name: str) -> Exporter:
    """One exporter; other plugins are not loaded.

    Raises:
        UsageError: no package offers it, two do, or the plugin cannot be loaded.
    """
    points = _by_name()
    if name not in points:
        raise UsageError(
            f"no exporter writes the format {name!r}",
            hint=f"installed formats: {', '.join(sorted(points)) or 'none'}",
        )
    return _load(points[name])


def exporter_for(runtime: str) -> Exporter:
    """The exporter whose files a runtime executes.

    Raises:
        UsageError: there is none.
    """
    for exporter in find_exporters().values():
        if exporter.runtime == runtime:
            return exporter
    raise UsageError(f"no installed exporter writes files for the runtime {runtime!r}", hint="litert or executorch")


def missing_packages(exporter: Exporter) -> tuple[str, ...]:
    """The packages it needs that are not installed; nothing is imported."""
    return tuple(package for package in exporter.packages if importlib.util.find_spec(package) is None)


def require_toolkit(exporter: Exporter) -> None:
    """Check that what the exporter needs is installed, without importing it.

    Raises:
        ToolkitMissing: names the packages and what installs them.
    """
    missing = missing_packages(exporter)
    if missing:
        raise ToolkitMissing(
            f"exporting to {exporter.name} needs {' and '.join(missing)}, not installed here",
            hint=f"pip install 'edgeprune[{exporter.extra}]'",
        )


def toolkit_versions(exporter: Exporter) -> dict[str, str]:
    """Versions of torch and of the packages that conversion uses."""
    return {package: _version(package) for package in ("torch", *exporter.packages)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a package may be imported by another name than it is installed by
        return "unknown"


def _by_name() -> dict[str, list[EntryPoint]]:
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        points.setdefault(point.name, []).append(point)
    return dict(sorted(points.items()))


def _load(points: list[EntryPoint]) -> Exporter:
    values = {point.value for point in points}
    if len(values) > 1:
        raise UsageError(f"two exporters are installed for {points[0].name!r}: {', '.join(sorted(values))}")
    point = points[0]
    try:
        exporter: Exporter = point.load()()
    except (ImportError, AttributeError, TypeError) as error:
        package = point.dist.name if point.dist else "an unknown package"
        raise UsageError(
            f"the exporter plugin {point.name!r} ({point.value}) cannot be loaded: {error}",
            where=package,
            hint=f"repair or uninstall {package}",
        ) from error
    return exporter
