"""`edgeprune show`: a run, a plan, an exported file, the units of a model or a file's rules of sparsity, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli.console import InputSizeOption, JsonOption, read_input_size, show_result

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(
    what: Annotated[
        Path, typer.Argument(help="A run folder, a plan.json, an exported file, or the word `units` or `sparse`.")
    ],
    of: Annotated[
        str | None, typer.Argument(help="With `units`: a timm name or a factory; with `sparse`: a .tflite file.")
    ] = None,
    input_size: InputSizeOption = None,
    keep: Annotated[list[str] | None, typer.Option(help="With `units`: module name pattern whose width stays.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run has done, what a plan removes, what an exported file is, (`show units MODEL`) what can go from a
    model and what cannot, and why, or (`show sparse FILE.tflite`) whether XNNPACK would run a file's zeros sparsely,
    and which operators stand against it."""
    from edgeprune.errors import UsageError

    if of is not None and str(what) not in ("units", "sparse"):
        hint = "for a model: edgeprune show units MODEL; for a file: edgeprune show sparse FILE.tflite"
        raise UsageError(f"one thing at a time: {what} {of}", hint=hint)
    if of is not None and str(what) == "sparse":
        result, shown = _sparse(Path(of))
    elif of is not None:
        result, shown = _units(of, input_size, keep or [])
    elif not what.exists():
        hint = "name a run folder, a plan.json or a file; or: edgeprune show units MODEL, show sparse FILE.tflite"
        raise UsageError("no such file or folder", where=str(what), hint=hint)
    elif what.is_dir() and what.suffix != ".mlpackage":
        result, shown = _run(what)
    elif what.name.endswith("plan.json"):
        result, shown = _plan(what)
    else:
        result, shown = _file(what)
    show_result(result, shown, as_json=as_json)


def _units(model: str, input_size: str | None, keep: list[str]) -> tuple[dict[str, Any], RenderableType]:
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Column, Table

    from edgeprune.api import load
    from edgeprune.space.find import find_structure
    from edgeprune.space.keep import hold
    from edgeprune.space.listing import list_units

    found = load(model, input_size=read_input_size(input_size)) if input_size else load(model)
    listing = list_units(found.module, hold(find_structure(found.module, found.example_input()), keep))
    units = Table(
        Column("can go", overflow="fold"),
        *(Column(name, justify="right") for name in ("units", "parameters per unit", "MMACs per unit")),
        title=f"{model}: {listing.parameters / 1e6:.2f} M parameters, {listing.macs / 1e6:.1f} MMACs",
    )
    for group in listing.groups:
        units.add_row(group.id, str(group.units), str(group.parameters_per_unit), f"{group.macs_per_unit / 1e6:.3f}")
    for branch in listing.branches:
        units.add_row(branch.id, "whole", str(branch.parameters), f"{branch.macs / 1e6:.3f}")
    frozen = Table(Column("stays", overflow="fold"), Column("units", justify="right"), Column("why", overflow="fold"))
    for entry in listing.frozen:
        frozen.add_row(entry["name"], str(entry["units"]), entry["reason"])
    shown: list[RenderableType] = [*found.said, units, *([frozen] if listing.frozen else [])]
    if not listing.groups and not listing.branches:
        shown.append("nothing can go from this model: what stays, and why, is above")
    shown += [f"not counted: {operator}" for operator in listing.uncounted]
    return {**asdict(listing), "said": found.said}, Group(*shown)


def _sparse(file: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.table import Column, Table

    from edgeprune.sparsity.rules import check_sparse

    found = check_sparse(file)
    share = f"{found.zeros / found.weights:.1%} of {found.weights} weights" if found.weights else "no weights"
    answer = "runs with sparse kernels (not on x86 with AVX)" if found.holds else "runs dense"
    table = Table(
        "the cluster",
        "",
        Column("what stands against it", overflow="fold"),
        title=f"{file.name}: {answer}; {share} of {found.layers} layers are zero",
    )
    for rule in found.rules:
        against = (f"{b.operator}: {b.why}" if b.operator else b.why for b in rule.breaches)
        table.add_row(rule.said, "holds" if rule.holds else "broken", "\n".join(against))
    return {**found.model_dump(mode="json"), "holds": found.holds}, table


def _run(folder: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.table import Table

    from edgeprune.runs import open_run
    from edgeprune.stages.stage import STAGES

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

    from edgeprune.space.plan import read_plan

    plan = read_plan(path)
    table = Table(Column("group or branch", overflow="fold"), "units", "removed", "kept", title=f"plan for {plan.base}")
    for name, option in plan.decisions.items():
        if option.kind == "width":
            table.add_row(name, str(option.size), str(len(option.removed)), str(option.size - len(option.removed)))
        else:
            table.add_row(name, "", f"the whole {option.kind}", "")
    return plan.model_dump(mode="json"), table


def _file(path: Path) -> tuple[dict[str, Any], RenderableType]:
    from rich.pretty import Pretty

    from edgeprune.artifacts.manifest import read_manifest

    manifest = read_manifest(path)
    result = manifest.model_dump(mode="json") | ({"untold": manifest.untold} if manifest.untold else {})
    return result, Pretty({**result, "labels": f"{len(result['labels'])} labels"})
