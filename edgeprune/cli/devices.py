"""`edgeprune devices`: what is attached, and whether it is ready."""

from __future__ import annotations

from edgeprune.cli.console import JsonOption, show_result


def devices(as_json: JsonOption = False) -> None:
    """List devices: id, model, CPU, ABI, OS, runtimes, ready or why not."""
    from rich.table import Table

    from edgeprune.devices.discovery import find_devices

    found = find_devices()
    table = Table("id", "model", "cpu", "abi", "os", "runtimes", "state")
    for facts in found:
        runtimes = ", ".join(f"{name} {version}" for name, version in facts.runtimes.items()) or "none"
        state = "ready" if facts.ready else f"not ready: {facts.reason}"
        table.add_row(facts.id, facts.model, f"{facts.cores} x {facts.cpu}", facts.abi, facts.os, runtimes, state)
    show_result([facts.model_dump(mode="json") for facts in found], table, as_json=as_json)
