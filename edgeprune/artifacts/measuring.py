"""Quick files for measuring, in one precision: what the pruning loop writes several times a run."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeprune.artifacts.jobs import ConvertJob, Output
from edgeprune.artifacts.plugins import exporter_for, find_exporter, require_toolkit
from edgeprune.artifacts.program import save_program
from edgeprune.artifacts.toolkits import Toolkits, toolkits
from edgeprune.errors import UsageError
from edgeprune.models.spec import Model
from edgeprune.recipe import Format, Precision, Runtime

RANDOM_IMAGES = 8


class MeasuringExporter:
    """Writes files of one precision for one runtime, by the run's child. Use as a context manager; imports are paid
    once.

    Args:
        format: of the files; the one that the runtime is probed with, unless said.
        calibration: preprocessed images (N, C, H, W) float32 that int8 files are quantized with. Without them, seeded
            values of a standard normal distribution, as preprocessed images roughly are: a latency hangs little on
            them.

    Raises:
        ToolkitMissing: on creation, when the runtime's toolkit is not installed.
        UsageError: the format has no file of this precision.
    """

    def __init__(
        self,
        runtime: Runtime,
        precision: Precision = "fp32",
        *,
        format: Format | None = None,
        calibration: Tensor | None = None,
    ) -> None:
        self._exporter = exporter_for(runtime) if format is None else find_exporter(format)
        self.precision, self.calibration = precision, calibration
        if precision not in self._exporter.precisions:
            raise UsageError(
                f"the format {self._exporter.name} has no {precision} file",
                hint=f"it has {', '.join(self._exporter.precisions)}",
            )
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
        """Write one file, no manifest; it is there whole or not at all. Usable again after an error.

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
            output = Output(precision=self.precision, file=part, describe=False)
            job = ConvertJob(
                exporter=self._exporter.name,
                program=scratch / "program.pt2",
                calibration=self._saved_images(model, scratch) if self.precision == "int8" else None,
                outputs=(output,),
            )
            self._toolkits.do(job)
            part.replace(file)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return file

    def _saved_images(self, model: Model, folder: Path) -> Path:
        images = self.calibration
        if images is None:
            images = torch.randn(RANDOM_IMAGES, *model.spec.input_size, generator=torch.Generator().manual_seed(0))
        save_file({"images": images.detach().cpu().contiguous()}, folder / "calibration.safetensors")
        return folder / "calibration.safetensors"
