"""int8 tried on the unpruned model, before anything is measured or trained: nobody learns of a failure hours later."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeprune.artifacts.export import export_each
from edgeprune.errors import UsageError
from edgeprune.reparam.merge import merge
from edgeprune.stages.context import Context
from edgeprune.stages.quantize import int8_formats

IMAGES = 8  # enough for a quantizer to run; the ranges of the files that ship come from all calibration images


def try_int8(context: Context) -> None:
    """Write every int8 file that the recipe asks for, of the unpruned model with its batch norms folded.

    Raises:
        UsageError: a toolkit cannot write one; names the file, the operator where the toolkit tells it, and the key
            that leaves this int8 file out.
    """
    formats = int8_formats(context.recipe)
    if not formats:
        return
    model = context.model("load")
    images, _ = next(iter(context.splits.calibration.take(IMAGES).batches(IMAGES)))
    context.progress.update(f"trying int8 for {', '.join(formats)}", 0, 1)
    with tempfile.TemporaryDirectory(dir=context.run.folder, prefix=".part-") as scratch:
        done = export_each(
            model.with_module(merge(model.module.eval(), model.example_input())),
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
    for manifest in done.manifests:
        if manifest.left_in_float:
            left = ", ".join(f"{count} {kind}" for kind, count in manifest.left_in_float.items())
            context.progress.say(f"int8 {manifest.format}: {left} stay in float, which its quantizer cannot do")
