"""`edgeprune devices`: what is attached and whether it is ready; adding, preparing and cleaning devices."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeprune.cli.console import JsonOption, complete_devices, show_result

IdArgument = Annotated[
    str, typer.Argument(help="Device id, see `edgeprune devices`.", metavar="ID", autocompletion=complete_devices)
]

devices = typer.Typer(help="List devices; add, prepare and clean them.", rich_markup_mode=None)
add = typer.Typer(help="Add a machine that no bus announces.", no_args_is_help=True, rich_markup_mode=None)
devices.add_typer(add, name="add")


@devices.callback(invoke_without_command=True)
def list_devices(context: typer.Context, as_json: JsonOption = False) -> None:
    """List devices: id, model, SoC, CPU, ABI, OS, runtimes, temperature, ready or why not."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Column, Table

    from edgeprune.devices.discovery import find_devices

    found = find_devices()
    table = Table(Column("id", overflow="fold"), "device", "runtimes", "state")
    for facts in found:
        if not facts.ready:
            table.add_row(facts.id, facts.model, "", f"not ready: {facts.reason}")
            continue
        runtimes = "\n".join(
            f"{name} {version}" + {"native": " (native runner)", "app": " (app)"}.get(facts.runners.get(name, ""), "")
            for name, version in facts.runtimes.items()
        )
        warm = f", {facts.temperature_c:.0f} C" if facts.temperature_c is not None else ""
        soc = f" ({facts.soc})" if facts.soc else ""
        cores = f"{facts.cores} x {facts.cpu}\n" if facts.cpu != "unknown" else ""
        what = f"{facts.model}{soc}\n{cores}{facts.abi}, {facts.os}{warm}"
        table.add_row(facts.id, what, runtimes, "ready")
    show_result([facts.model_dump(mode="json") for facts in found], table, as_json=as_json)


@add.command("ssh")
def add_ssh(
    host: Annotated[str, typer.Argument(help="[user@]host, or a Host of your ssh config.")],
    name: Annotated[str | None, typer.Option(help="Its name; the device's id is ssh:NAME.")] = None,
    ssh_config: Annotated[str | None, typer.Option(help="An ssh config file instead of your own.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter there, if not python3.")] = "",
    runner: Annotated[str | None, typer.Option(help="native or python, where LiteRT could be run by both.")] = None,
) -> None:
    """Add a Linux board.

    It is reached with your own ssh, its config, agent and known_hosts.
    """
    _add("ssh", host, name, ssh_config, python, runner)


@add.command("mac")
def add_mac(
    host: Annotated[str, typer.Argument(help="[user@]host, or a Host of your ssh config.")],
    name: Annotated[str | None, typer.Option(help="Its name; the device's id is apple:NAME.")] = None,
    ssh_config: Annotated[str | None, typer.Option(help="An ssh config file instead of your own.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter there that has coremltools.")] = "",
) -> None:
    """Add a Mac: Core ML files run there with coremltools."""
    _add("mac", host, name, ssh_config, python, None)


def _add(kind: str, host: str, name: str | None, config: str | None, python: str, runner: str | None) -> None:
    from pathlib import Path

    from pydantic import ValidationError

    from edgeprune.devices.discovery import open_added
    from edgeprune.devices.registry import AddedDevice, add_device
    from edgeprune.errors import UsageError

    entry = {
        "name": name or host.rpartition("@")[2],
        "host": host,
        "kind": kind,
        "ssh_config": str(Path(config).resolve()) if config else None,
        "python": python,
        "runner": runner,
    }
    try:
        added = AddedDevice.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        hint = "give it a plain --name" if field == "name" else "see `edgeprune devices add --help`"
        raise UsageError(f"{field}: {first['msg']}", where=host, hint=hint) from error
    facts = open_added(added).facts()  # what cannot be reached is not added
    add_device(added)
    typer.echo(f"{added.id}: {facts.model}, {facts.cores} x {facts.cpu}, {facts.os}", err=True)
    if not facts.ready:
        typer.echo(f"not ready yet: {facts.reason}", err=True)


@devices.command("remove")
def remove(id: IdArgument) -> None:
    """Forget a device that was added."""
    from edgeprune.devices.registry import remove_device

    remove_device(id)


@devices.command("prepare")
def prepare(id: IdArgument, as_json: JsonOption = False) -> None:
    """Put the runner on a device, and start every runtime there.

    It goes over once. For an iPhone it says how to install the app.
    """
    from rich.table import Table

    from edgeprune.devices.discovery import open_device
    from edgeprune.devices.prepare import prepare_device

    builds = prepare_device(open_device(id))
    table = Table("runtime", "version", "library")
    for build in builds:
        table.add_row(build.name, build.version, build.sha256[:12])
    show_result([build.model_dump(mode="json") for build in builds], table, as_json=as_json)


@devices.command("clean")
def clean(id: IdArgument) -> None:
    """Remove what edgeprune keeps on a device."""
    from edgeprune.devices.discovery import open_device

    device = open_device(id)
    with device.lease():
        device.clean()
