"""export: every format the recipe names, each in a child process, each with its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import Exported, Meaning, export_each
from edgeprune.artifacts.manifest import Manifest, file_hash, file_size, manifest_path, parse_manifest
from edgeprune.artifacts.plugins import exporter_for, find_exporter, require_own_files, require_toolkit
from edgeprune.artifacts.toolkits import toolkits
from edgeprune.errors import ConversionError, UsageError
from edgeprune.recipe import Recipe
from edgeprune.recipe_names import require_names
from edgeprune.runs import write_atomic
from edgeprune.sparsity.arbiter import SparseVerdict, choose_encoding
from edgeprune.stages.context import Context
from edgeprune.stages.quantize import int8_formats, read_calibration
from edgeprune.verify.execute import runtime_on
from edgeprune.verify.verdict import Missing

REFERENCE_IMAGES = 16


def require_toolkits(recipe: Recipe) -> None:
    """Check, before hours of work, that every format of the recipe can be exported here.

    Raises:
        RecipeError: no installed package offers a format or the runtime, or `quantize.formats` names one that is not
            to be exported.
        ToolkitMissing: names the packages and what installs them.
        UsageError: `quantize.formats` names one that has no int8 file, or two formats would have one file's name.
    """
    require_names(recipe)
    require_toolkit(exporter_for(recipe.device.runtime))
    exporters = [find_exporter(name) for name in recipe.export.formats]
    for exporter in exporters:
        require_toolkit(exporter)
    require_own_files(exporters)
    for name in recipe.quantize.formats or ():
        if "int8" not in find_exporter(name).precisions:
            raise UsageError(
                f"the format {name} has no int8 file", where="quantize.formats", hint=f"leave {name} out there"
            )


def export_stage(context: Context, folder: Path) -> dict[str, Any]:
    reference, _ = next(iter(context.splits.test.take(REFERENCE_IMAGES).batches(REFERENCE_IMAGES)))
    with toolkits() as ours:
        done = export_each(
            context.model("merge"),
            folder,
            formats=context.recipe.export.formats,
            int8=int8_formats(context.recipe),
            calibration=read_calibration(context),
            reference_input=reference,
            meaning=Meaning(context.recipe.task, context.splits.test.has_pixels),
            progress=context.progress,
        )
        ours.end()  # nothing is converted after this, and what measures the files needs the memory
    told = told_of(done, folder)
    dense = next((m for m in done.manifests if (m.format, m.precision) == ("tflite", "fp32")), None)
    if dense is not None and context.recipe.sparse.asked:
        if why := _nowhere_to_compare(context, dense):
            context.progress.say(f"{dense.file} stays dense: {why}")
        else:
            verdict = _sparse_or_dense(context, folder, dense)
            told["sparse"] = verdict.model_dump(mode="json", exclude={"ratio"})
    return {"files": {m.file: m.size_bytes for m in read_manifests(folder)}, **told}


def told_of(done: Exported, folder: Path) -> dict[str, Any]:
    """What could not be written, for a record or an answer; empty where all was.

    Raises:
        ConversionError: no file at all could be written.
    """
    if not done.manifests:
        raise ConversionError(
            "no file could be written:\n" + "\n".join(str(one.error) for one in done.not_written), where=str(folder)
        )
    lost = [
        {"file": one.file, "format": one.format, "precision": one.precision, "why": one.why} for one in done.not_written
    ]
    return {"not_written": lost} if lost else {}


def not_written(context: Context) -> tuple[Missing, ...]:
    """The files that the finished export stage was asked for and could not write."""
    record = context.run.record("export")
    return tuple(Missing.model_validate(one) for one in (record.result.get("not_written", ()) if record else ()))


def _nowhere_to_compare(context: Context, manifest: Manifest) -> str:
    """Why a file cannot be run on the run's device; empty if it can."""
    if context.typical is not None:
        return f"{context.recipe.device.id} is no device to compare it on"
    return "" if runtime_on(context.device, manifest) else f"{context.device.id} does not run LiteRT"


def _sparse_or_dense(context: Context, folder: Path, manifest: Manifest) -> SparseVerdict:
    """Put the sparse file in the dense one's place, with its manifest, if the device runs it faster."""
    device, settings = context.device, context.recipe.device
    dense, sparse = folder / manifest.file, folder / f".part-{manifest.file}"
    context.progress.update(f"{manifest.file}: sparse or dense", 0, 1)
    try:
        with context.lease():
            verdict = choose_encoding(device, dense, sparse, threads=settings.threads, protocol=settings.protocol)
        context.progress.say(f"{manifest.file} is {verdict.kept}: {verdict.why}")
        if verdict.kept == "sparse":
            manifest_path(dense).unlink()  # a manifest is there only beside the file it describes
            sparse.replace(dense)
            told = manifest.model_copy(update={"sha256": file_hash(dense), "size_bytes": file_size(dense)})
            write_atomic(manifest_path(dense), told.model_dump_json(indent=1).encode())
    finally:
        sparse.unlink(missing_ok=True)
    return verdict


def read_manifests(folder: Path) -> list[Manifest]:
    """The manifests of an export folder, by file name.

    Raises:
        UsageError: one cannot be read, or names a file elsewhere.
    """
    found = (p for p in folder.glob("*.json") if p.name != "stage.json")
    return sorted((parse_manifest(p) for p in found), key=lambda m: m.file)
