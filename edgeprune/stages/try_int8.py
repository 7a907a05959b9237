"""int8 tried on the unpruned model, before anything is measured or trained: nobody learns of a failure hours later."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import TypeAdapter, ValidationError

from edgeprune.artifacts.export import export_each
from edgeprune.artifacts.plugins import find_exporter, toolkit_versions
from edgeprune.errors import UsageError
from edgeprune.graph.trace import trace
from edgeprune.models.spec import Model
from edgeprune.recipe import Format
from edgeprune.reparam.merge import merge
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context
from edgeprune.stages.quantize import int8_formats

IMAGES = 8  # enough for a quantizer to run; the ranges of the files that ship come from all calibration images


_LEFT: TypeAdapter[dict[str, dict[str, int]]] = TypeAdapter(dict[str, dict[str, int]])


def try_int8(context: Context) -> None:
    """Write every int8 file that the recipe asks for, of the unpruned model with its batch norms folded.

    Whether a file can be written depends on the model's operators and shapes, not on its weights. So what was written
    once is remembered in the user's cache, by these and the toolkits' versions.

    Raises:
        UsageError: a toolkit cannot write one; names the file, the operator where the toolkit tells it, and the key
            that leaves this int8 file out.
    """
    formats = int8_formats(context.recipe)
    if not formats:
        return
    model = context.model("load")
    trace(model.module, model.example_input())  # its error names the line of the user's code, merging's does not
    merged = model.with_module(merge(model.module.eval(), model.example_input()))
    known = _place(merged, formats)
    left = _remembered(known)
    if left is None:
        left = _written(context, merged, formats)
        write_atomic(known, _LEFT.dump_json(left))
    for name, operators in left.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in operators.items())
        context.progress.say(f"int8 {name}: {kinds} stay in float, which its quantizer cannot do")


def _written(context: Context, merged: Model, formats: Sequence[Format]) -> dict[str, dict[str, int]]:
    """The operators that stay in float, by format, where some do."""
    images, _ = next(iter(context.splits.calibration.take(IMAGES).batches(IMAGES)))
    context.progress.update(f"trying int8 for {', '.join(formats)}", 0, 1)
    with tempfile.TemporaryDirectory(dir=context.run.folder, prefix=".part-") as scratch:
        done = export_each(
            merged,
            Path(scratch),
            formats=formats,
            int8=formats,
            floats=False,
            calibration=images,
            reference_input=images[:1],
        )
    if done.not_written:
        failed = {one.format for one in done.not_written}
        rest = [name for name in formats if name not in failed]
        raise UsageError(
            "; ".join(f"{one.file} cannot be written: {one.why}" for one in done.not_written),
            where="int8 of the unpruned model",
            hint=f"switch it off: quantize.formats = {rest}" if rest else "switch it off: quantize.enabled = false",
        )
    return {manifest.format: manifest.left_in_float for manifest in done.manifests if manifest.left_in_float}


def _place(merged: Model, formats: Sequence[Format]) -> Path:
    """The file that stands for these operators, shapes, formats and toolkits in the user's cache."""
    program = trace(merged.module, merged.example_input())
    told = [f"{name} {toolkit_versions(find_exporter(name))}" for name in sorted(formats)]
    for node in program.graph.nodes:
        shape = tuple(getattr(node.meta.get("val"), "shape", ()))
        told.append(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {shape}")
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()
    return user_cache_path("edgeprune") / "int8" / f"{digest}.json"


def _remembered(known: Path) -> dict[str, dict[str, int]] | None:
    """What stays in float of what was written before; None where nothing was, or the note cannot be read."""
    try:
        return _LEFT.validate_json(known.read_bytes())
    except (OSError, ValidationError):
        return None
