"""[quantize] and [export]: which files are written."""

from __future__ import annotations

from pydantic import Field

from edgeprune.recipe.section import (
    Format,
    Section,
)


class QuantizeSection(Section):
    """Post-training quantization to int8. `formats`: those of `export.formats` that get an int8 file; all that can
    have one, unless said."""

    enabled: bool = True
    formats: tuple[Format, ...] | None = None


class ExportSection(Section):
    """Which files to write."""

    formats: tuple[Format, ...] = Field(default=("tflite", "pte", "coreml", "onnx"), min_length=1)
