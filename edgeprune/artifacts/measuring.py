"""Quick float files for measuring: what the pruning loop writes several times a run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeprune.artifacts.child import Child
from edgeprune.artifacts.jobs import ConvertJob, Output
from edgeprune.artifacts.plugins import exporter_for, require_toolkit
from edgeprune.artifacts.program import save_program
from edgeprune.models.spec import Model
from edgeprune.recipe import Runtime


class MeasuringExporter:
    """A warm child that writes float32 files for one runtime. Use as a context manager; imports are paid once.

    Raises:
        ToolkitMissing: on creation, when the runtime's toolkit is not installed.
    """

    def __init__(self, runtime: Runtime, *, threads: int = 1) -> None:
        self._exporter = exporter_for(runtime)
        require_toolkit(self._exporter)
        self._threads = threads
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def suffix(self) -> str:
        return self._exporter.suffix

    def write(self, model: Model, file: Path) -> Path:
        """Write one float32 file, no manifest; it is there whole or not at all. Usable again after an error.

        Raises:
            ConversionError: the toolkit failed (the child is started anew for the next file).
            ModelError: the model cannot be traced.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        child = self._child if self._child is not None and self._child.alive else self._start()
        scratch = Path(tempfile.mkdtemp(dir=file.parent, prefix=".part-"))
        try:
            save_program(model, scratch / "program.pt2")
            part = scratch / f"part{self.suffix}"
            output = Output(precision="fp32", file=part, describe=False)
            job = ConvertJob(exporter=self._exporter.name, program=scratch / "program.pt2", outputs=(output,))
            list(child.run(job))
            part.replace(file)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return file

    def _start(self) -> Child:
        self._stop()
        self._child = Child(self._exporter.name, threads=self._threads).__enter__()
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.__exit__(None, None, None)
            self._child = None


def export_for_measuring(model: Model, runtime: Runtime, file: Path) -> Path:
    """One quick float32 file for a runtime; see `MeasuringExporter`, which is faster from the second file on.

    Raises:
        ToolkitMissing, ConversionError, ModelError: as there.
    """
    with MeasuringExporter(runtime) as exporter:
        return exporter.write(model, file)
