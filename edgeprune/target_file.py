"""The file that a latency target is about (`prune.target_file`), held against what is installed and exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeprune import installed
from edgeprune.errors import UsageError
from edgeprune.recipe import Precision, Recipe, Runtime, TargetFile

KEY = ("prune", "target_file")


def target_file(recipe: Recipe) -> TargetFile:
    """The file that a recipe's latency target is about: the one it names, or the fp32 file of `device.runtime`.

    Raises:
        UsageError: no installed exporter writes files for the runtime.
    """
    if recipe.prune.file is not None:
        return recipe.prune.file
    name, _ = _measured_with(recipe.device.runtime)
    return TargetFile(format=name, precision="fp32")


def said(recipe: Recipe) -> str:
    """Which file the target is about, and how to name another one that is written in int8 beside it."""
    file, target = target_file(recipe), recipe.prune.target
    if recipe.prune.file is not None:
        return f"the target {target} is of {file.words}"
    int8 = TargetFile(format=file.format, precision="int8")
    other = f'; set prune.target_file = "{int8}" if that is what ships'
    ships = str(int8) in dict(_written()) and not _is_not_written(recipe, int8)
    return f"the target {target} is of {file.words}{other if ships else ''}"


def wrong_target_file(recipe: Recipe) -> UsageError | None:
    """What is wrong with the file that a recipe names: nothing installed writes it, or its latency cannot be measured
    in `device.runtime`."""
    if (file := recipe.prune.file) is None:
        return None
    runtime, written = recipe.device.runtime, dict(_written())
    if (exporter := written.get(str(file))) is None:
        return UsageError(
            f"no installed exporter writes a file {str(file)!r}",
            hint=installed.choice(str(file), dict.fromkeys(written, installed.OURS), "file"),
        )
    if exporter.runtime is None or not installed.measures(exporter, exporter.runtime):
        return UsageError(
            f"the latency of {file.words} cannot be measured while pruning: no runtime here runs and probes it",
            hint=f"name one of {', '.join(_measurable(written, runtime))}",
        )
    if exporter.runtime != runtime:
        return UsageError(
            f"{file.words} runs in {exporter.runtime}, and `device.runtime` is {runtime}",
            hint=f"set device.runtime = '{exporter.runtime}', or name one of "
            f"{', '.join(_measurable(written, runtime))}",
        )
    return wrong_precision(runtime, file.precision)


def wrong_precision(runtime: Runtime, precision: Precision) -> UsageError | None:
    """Why operations of a precision cannot be probed in a runtime; None where they can."""
    _, exporter = _measured_with(runtime)
    if precision in installed.probed_precisions(exporter):
        return None
    return UsageError(
        f"{precision} files cannot be pruned for in {runtime}: the exporter {exporter.name} builds no such probes",
        hint=f"take one of {', '.join(installed.probed_precisions(exporter))}",
    )


def not_exported(recipe: Recipe) -> UsageError | None:
    """Why the file that a recipe names will not be written by its export; None where it will."""
    file = recipe.prune.file
    why = "" if file is None else _is_not_written(recipe, file)
    if not why:
        return None
    return UsageError(
        f"{why}, and the latency target {recipe.prune.target} is of {file}",
        hint="have that file written, or name another: a verdict without its latency would say nothing",
    )


def _is_not_written(recipe: Recipe, file: TargetFile) -> str:
    if file.format not in recipe.export.formats:
        return f"`export.formats` does not name {file.format}"
    if file.precision != "int8":
        return ""
    if not recipe.quantize.enabled:
        return "`quantize.enabled` is false, so no int8 file is written"
    formats = recipe.quantize.formats
    if formats is not None and file.format not in formats:
        return f"`quantize.formats` does not name {file.format}"
    return ""


def _written() -> Iterator[tuple[str, Any]]:
    """Every file that an installed exporter writes, as recipes name it, with the exporter's class."""
    for point, exporter in installed.exporters():
        for precision in exporter.precisions:
            yield f"{point.name}-{precision}", exporter


def _measurable(written: dict[str, Any], runtime: Runtime) -> list[str]:
    """Those that can be pruned for in a runtime."""
    return [
        name
        for name, exporter in written.items()
        if installed.measures(exporter, runtime)
        and TargetFile.parse(name).precision in installed.probed_precisions(exporter)
    ]


def _measured_with(runtime: Runtime) -> tuple[str, Any]:
    """The exporter whose files a runtime is probed with, as `artifacts.plugins.exporter_for` finds it."""
    for point, exporter in installed.exporters():
        if installed.measures(exporter, runtime):
            return point.name, exporter
    installed.require_runtime(runtime)
    raise AssertionError(runtime)  # it has just said that there is none
