"""`edgeprune show`: a run, a plan or an exported file, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli.console import JsonOption, show_result

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(
    what: Annotated[Path, typer.Argument(help="A run folder, a plan.json, or an exported file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a run has done, what a plan removes, or what an exported file is."""
    from edgeprune.errors import UsageError

    if not what.exists():
        raise UsageError("no such file or folder", where=str(what), hint="name a run folder, a plan.json or a file")
    if what.is_dir() and what.suffix != ".mlpackage":
        result, shown = _run(what)
    elif what.name.endswith("plan.json"):
        result, shown = _plan(what)
    else:
        result, shown = _file(what)
    show_result(result, shown, as_json=as_json)


def _run(folder: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.table import Table

    from edgeprune.runs import STAGES, open_run

    run = open_run(folder)
    records = {stage: run.record(stage) for stage in STAGES}
    table = Table("stage", "seconds", "result", title=str(folder))
    for stage, record in records.items():
        if record:
            told = ", ".join(f"{k}: {v}" for k, v in record.result.items() if not isinstance(v, dict | list))
            table.add_row(stage, f"{record.seconds:.1f}", told)
        else:
            table.add_row(stage, "", "not done")
    if records["report"]:
        from edgeprune.report.data import read_report
        from edgeprune.report.summary import summary
        from edgeprune.report.write import to_json

        report = read_report(folder / "report" / "report.json")
        return json.loads(to_json(report)), summary(report)
    return {s: r.model_dump(mode="json") if r else None for s, r in records.items()}, table


def _plan(path: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.table import Column, Table

    from edgeprune.structure.plan import read_plan

    plan = read_plan(path)
    table = Table(Column("group or branch", overflow="fold"), "units", "removed", "kept", title=f"plan for {plan.base}")
    for edit in plan.edits:
        if edit.kind == "remove_branch":
            table.add_row(edit.branch, "", "the whole branch", "")
            continue
        table.add_row(edit.group, str(edit.size), str(len(edit.removed)), str(edit.size - len(edit.removed)))
    return plan.model_dump(mode="json"), table


def _file(path: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.pretty import Pretty

    from edgeprune.artifacts.manifest import read_manifest

    result = read_manifest(path).model_dump(mode="json")
    return result, Pretty({**result, "labels": f"{len(result['labels'])} labels"})
