"""export: every format the recipe names, each in a child process, each with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import export
from edgeprune.artifacts.manifest import Manifest
from edgeprune.stages.context import Context
from edgeprune.stages.quantize import read_calibration

REFERENCE_IMAGES = 16


def export_stage(context: Context, folder: Path) -> dict[str, Any]:
    reference, _ = next(iter(context.splits.test.take(REFERENCE_IMAGES).batches(REFERENCE_IMAGES)))
    manifests = export(
        context.model("merge"),
        folder,
        formats=context.recipe.export.formats,
        int8=context.recipe.quantize.enabled,
        calibration=read_calibration(context),
        reference_input=reference,
        on_progress=context.progress.say,
    )
    return {"files": {m.file: m.size_bytes for m in manifests}}


def read_manifests(folder: Path) -> list[Manifest]:
    """The manifests of an export folder, by file name."""
    found = (p for p in folder.glob("*.json") if p.name != "stage.json")
    return sorted((Manifest.model_validate_json(p.read_bytes()) for p in found), key=lambda m: m.file)
