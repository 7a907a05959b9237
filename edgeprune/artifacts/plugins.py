"""Exporter plugins: what one must offer, and finding them by the entry-point group `edgeprune.exporters`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgeprune import installed
from edgeprune.artifacts.jobs import Converted, Output
from edgeprune.errors import ToolkitMissing, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


class Exporter(Protocol):
    """Writes one format. Importing its module and making an instance must be cheap and must import no toolkit.

    The properties are attributes of the class: they are read before an instance is made.
    """

    @property
    def name(self) -> str:
        """The format, as recipes write it."""
        ...

    @property
    def suffix(self) -> str:
        """Of the files, with the dot. Its last part tells which runtime of a device runs them (`.small.tflite`)."""
        ...

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it can write; the ones without calibration first."""
        ...

    @property
    def runtime(self) -> str | None:
        """Which runtime of a device executes its files (see `devices/runtimes.py`); None when none does."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Importable packages that conversion needs."""
        ...

    @property
    def extra(self) -> str:
        """The extra of edgeprune that installs them, `executorch` of `edgeprune[executorch]`; empty for others'."""
        ...

    def load(self) -> None:
        """Import the toolkit; called in the child while the parent is still tracing."""
        ...

    def convert(
        self, program: ExportedProgram, outputs: Sequence[Output], calibration: torch.Tensor | None
    ) -> Iterator[Converted]:
        """Write each output, in order, yielding once its file is whole. Runs inside a child process.

        `program` is traced with batch 1: its `example_inputs` tell its inputs, most often one of images (1, C, H, W)
        float32, and the arguments of its graph's output node its outputs. `calibration` is given whenever an output is
        int8: (N, C, H, W) float32, or of several inputs (N, 1, 1, numbers), which
        `quantization.calibration.samples_of` takes apart.
        """
        ...


@runtime_checkable
class ProbeBuilder(Protocol):
    """An exporter that can also write one-operation files for the latency table."""

    def build_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """Signature key -> file; a signature that cannot be built is left out. Runs inside a child process."""
        ...


@runtime_checkable
class Int8ProbeBuilder(Protocol):
    """An exporter that can also write one-operation files as they run in its int8 files."""

    def build_int8_probes(self, signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
        """As `ProbeBuilder.build_probes`. They are quantized as whole models are, with seeded random inputs; an
        operation that stays in float in whole models does so here."""
        ...


def find_exporters() -> dict[str, Exporter]:
    """All installed exporters by format name.

    Raises:
        UsageError: two packages offer the same name, or a plugin cannot be loaded.
    """
    return {name: find_exporter(name) for name in installed.offered(installed.EXPORTERS)}


def find_exporter(name: str) -> Exporter:
    """One exporter; other plugins are not loaded.

    Raises:
        UsageError: no package offers it, two do, or the plugin cannot be loaded.
    """
    point = installed.chosen(installed.EXPORTERS, name, "format")
    return _made(point, installed.load(point, "exporter"))


def exporter_for(runtime: str) -> Exporter:
    """The exporter whose files a runtime executes and is probed with; ours before another's.

    Raises:
        UsageError: there is none.
    """
    for point, exporter in installed.exporters():
        if installed.measures(exporter, runtime):
            return _made(point, exporter)
    installed.require_runtime(runtime)
    raise AssertionError(runtime)  # it has just said that there is none


def require_own_files(exporters: Sequence[Exporter]) -> None:
    """Check that no two exporters would write a file of one name.

    Raises:
        UsageError: two would.
    """
    by_suffix: dict[str, str] = {}
    for exporter in exporters:
        other = by_suffix.setdefault(exporter.suffix, exporter.name)
        if other != exporter.name:
            raise UsageError(
                f"the formats {other} and {exporter.name} both write *{exporter.suffix}",
                hint=f"export them apart, or give one a suffix of its own, as .{exporter.name}{exporter.suffix}",
            )


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
            hint=how_to_install(exporter, missing),
        )


def how_to_install(exporter: Exporter, missing: Sequence[str]) -> str:
    """The command that brings what an exporter lacks."""
    return f"pip install 'edgeprune[{exporter.extra}]'" if exporter.extra else f"pip install {' '.join(missing)}"


def int8_scheme(exporter: Exporter) -> str:
    """How it quantizes, in words: its attribute `int8_scheme`, where it has one."""
    return str(getattr(exporter, "int8_scheme", "its own"))


def toolkit_versions(exporter: Exporter) -> dict[str, str]:
    """Versions of torch and of the packages that conversion uses."""
    return {package: _version(package) for package in ("torch", *exporter.packages)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a package may be imported by another name than it is installed by
        return "unknown"


def _made(point: EntryPoint, exporter: Any) -> Exporter:
    try:
        made: Exporter = exporter()
    except (ImportError, AttributeError, TypeError) as error:
        raise installed.broken(point, "exporter", error) from error
    if made.name != point.name:
        why = f"it calls itself {made.name!r}: the entry point and the exporter's `name` are one word"
        raise installed.broken(point, "exporter", TypeError(why))
    return made
