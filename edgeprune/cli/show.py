"""`edgeprune show run|plan|file|units|sparse`: what a run, a plan, an exported file or a model is, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgeprune.cli.console import InputSizeOption, JsonOption, complete_runs, load_model, show_result

if TYPE_CHECKING:
    from rich.console import RenderableType


class _Show(TyperGroup):
    """The sub-commands; a path in the place of one is shown as what it is, as it always was."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["--json"]:  # it may stand before the path
            args = [*args[1:], "--json"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            kind = _kind_of(Path(args[0]))
            typer.echo(f"`edgeprune show {kind} {args[0]}` says the same, and what is shown", err=True)
            return kind, self.commands[kind], args
        return super().resolve_command(ctx, args)


def _kind_of(path: Path) -> str:
    """The sub-command that shows what lies at a path."""
    from edgeprune.errors import UsageError

    if not path.exists():
        hint = "edgeprune show run FOLDER, show plan FILE, show file FILE, show units MODEL or show sparse FILE"
        raise UsageError("no such file or folder", where=str(path), hint=hint)
    if path.is_dir() and path.suffix != ".mlpackage":
        return "run"
    return "plan" if path.name.endswith("plan.json") else "file"


show = typer.Typer(
    cls=_Show,
    help="Show a run, a plan, a file, or the units of a model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@show.command("run")
def run(
    folder: Annotated[Path, typer.Argument(help="A run folder.", autocompletion=complete_runs)],
    as_json: JsonOption = False,
) -> None:
    """Say what a run has done.

    Stage by stage; of a finished one its report.
    """
    show_result(*_run(folder), as_json=as_json)


@show.command("plan")
def plan(
    file: Annotated[Path, typer.Argument(help="A plan.json, as in RUN/prune.")], as_json: JsonOption = False
) -> None:
    """Say what a plan removes."""
    from rich.table import Column, Table

    from edgeprune.space.plan import read_plan

    found = read_plan(file)
    table = Table(
        Column("group or branch", overflow="fold"), "units", "removed", "kept", title=f"plan for {found.base}"
    )
    for name, option in found.decisions.items():
        if option.kind == "width":
            table.add_row(name, str(option.size), str(len(option.removed)), str(option.size - len(option.removed)))
        else:
            table.add_row(name, "", f"the whole {option.kind}", "")
    show_result(found.model_dump(mode="json"), table, as_json=as_json)


@show.command("file")
def file(
    file: Annotated[Path, typer.Argument(help="An exported file, as in RUN/export, or its manifest.")],
    as_json: JsonOption = False,
) -> None:
    """Say what an exported file is.

    One that is not what its manifest describes is refused.
    """
    from rich.pretty import Pretty

    from edgeprune.artifacts.manifest import read_manifest

    manifest = read_manifest(file)
    result = manifest.model_dump(mode="json") | ({"untold": manifest.untold} if manifest.untold else {})
    show_result(result, Pretty({**result, "labels": f"{len(result['labels'])} labels"}), as_json=as_json)


@show.command("units")
def units(
    model: Annotated[str, typer.Argument(help="A timm name, package.module:factory or file.py:factory.")],
    input_size: InputSizeOption = None,
    keep: Annotated[list[str] | None, typer.Option(help="Module name pattern whose width stays.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what can go from a model and what cannot, and why."""
    from dataclasses import asdict

    from rich.console import Group
    from rich.table import Column, Table

    from edgeprune.space.find import find_structure
    from edgeprune.space.keep import hold
    from edgeprune.space.listing import list_units

    found = load_model(model, input_size)
    listing = list_units(found.module, hold(find_structure(found.module, found.example_input()), keep or []))
    going = Table(
        Column("can go", overflow="fold"),
        *(Column(name, justify="right") for name in ("units", "parameters per unit", "MMACs per unit")),
        title=f"{model}: {listing.parameters / 1e6:.2f} M parameters, {listing.macs / 1e6:.1f} MMACs",
    )
    for group in listing.groups:
        going.add_row(group.id, str(group.units), str(group.parameters_per_unit), f"{group.macs_per_unit / 1e6:.3f}")
    for branch in listing.branches:
        going.add_row(branch.id, "whole", str(branch.parameters), f"{branch.macs / 1e6:.3f}")
    frozen = Table(Column("stays", overflow="fold"), Column("units", justify="right"), Column("why", overflow="fold"))
    for entry in listing.frozen:
        frozen.add_row(entry["name"], str(entry["units"]), entry["reason"])
    shown: list[RenderableType] = [*found.said, going, *([frozen] if listing.frozen else [])]
    if not listing.groups and not listing.branches:
        shown.append("nothing can go from this model: what stays, and why, is above")
    shown += [f"not counted: {operator}" for operator in listing.uncounted]
    show_result({**asdict(listing), "said": found.said}, Group(*shown), as_json=as_json)


@show.command("sparse")
def sparse(file: Annotated[Path, typer.Argument(help="A .tflite file.")], as_json: JsonOption = False) -> None:
    """Say whether XNNPACK would run a file's zeros sparsely.

    If not: which operators stand against it.
    """
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
    show_result({**found.model_dump(mode="json"), "holds": found.holds}, table, as_json=as_json)


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
