"""`edgeprune doctor`: what is installed, what is missing for which format, and the command that fixes it."""

from __future__ import annotations

from typing import Any

from edgeprune.cli.console import JsonOption, show_result


def doctor(as_json: JsonOption = False) -> None:
    """Say which formats and devices work here.

    Of those that don't it says what mends them.
    """
    from rich.table import Table

    from edgeprune.artifacts.plugins import find_exporters, how_to_install, missing_packages
    from edgeprune.devices.discovery import find_devices
    from edgeprune.devices.means import means

    rows: list[dict[str, Any]] = []
    for name, exporter in sorted(find_exporters().items()):
        missing = missing_packages(exporter)
        fix = how_to_install(exporter, missing) if missing else ""
        rows.append({"what": f"format {name}", "ok": not missing, "missing": list(missing), "fix": fix})
    for one in means():
        rows.append({"what": one.what, "ok": not one.fix, "missing": [one.why] if one.fix else [], "fix": one.fix})
    for facts in find_devices():
        rows.append({"what": f"device {facts.id}", "ok": facts.ready, "missing": [], "fix": facts.fix or facts.reason})
    table = Table("what", "state", "fix")
    for row in rows:
        state = "ok" if row["ok"] else f"missing {', '.join(row['missing'])}" if row["missing"] else "not ready"
        table.add_row(str(row["what"]), state, str(row["fix"]))
    show_result(rows, table, as_json=as_json)
