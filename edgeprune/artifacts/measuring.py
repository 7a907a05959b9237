"""Quick float files for measuring: what the pruning loop writes several times a run."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeprune.artifacts.jobs import ConvertJob, Output
from edgeprune.artifacts.plugins import exporter_for, require_toolkit
from edgeprune.artifacts.program import save_program
from edgeprune.artifacts.toolkits import Toolkits, toolkits
from edgeprune.models.spec import Model
from edgeprune.recipe import Runtime


class MeasuringExporter:
    """Writes float32 files for one runtime, by the run's child. Use as a context manager; imports are paid once.

    Raises:
        ToolkitMissing: on creation, when the runtime's toolkit is not installed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._exporter = exporter_for(runtime)
        require_toolkit(self._exporter)
        self._open = ExitStack()
        self._toolkits: Toolkits | None = None

    def __enter__(self) -> Self:
        self._toolkits = self._open.enter_context(toolkits())
        self._toolkits.start(self._exporter.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._toolkits = None

    @property
    def suffix(self) -> str:
        return self._exporter.suffix

    def write(self, model: Model, file: Path) -> Path:
        """Write one float32 file, no manifest; it is there whole or not at all. Usable again after an error.

        Raises:
            ConversionError: the toolkit failed (a new child is started for the next file).
            ModelError: the model cannot be traced.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        assert self._toolkits is not None, "use it as a context manager"
        scratch = Path(tempfile.mkdtemp(dir=file.parent, prefix=".part-"))
        try:
            save_program(model, scratch / "program.pt2")
            part = scratch / f"part{self.suffix}"
            output = Output(precision="fp32", file=part, describe=False)
            job = ConvertJob(exporter=self._exporter.name, program=scratch / "program.pt2", outputs=(output,))
            self._toolkits.do(job)
            part.replace(file)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return file
