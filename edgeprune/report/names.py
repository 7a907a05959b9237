"""What a report may tell: names, no places of this machine, and no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from edgeprune.devices.base import DeviceFacts
from edgeprune.models.spec import ModelSpec
from edgeprune.recipe import Recipe
from edgeprune.report.data import ReportData

UNTOLD = "(not published)"

# The folders before a name, where they begin at the root, a home or a drive; a relative path stays.
_FOLDERS = re.compile(r"(?<![\w.~/\\-])(?:~[\w.-]*|[A-Za-z]:)?[/\\](?=\S)(?:[^:@\n]*[/\\])?")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"token|secret|passw|passphrase|credential|api[_-]?key|auth|private|^key$|cookie", re.IGNORECASE)


def published_recipe(recipe: Recipe) -> str:
    """The recipe as JSON without its defaults, as `published`."""
    return json.dumps(published(recipe.model_dump(mode="json", exclude_defaults=True)), indent=1, ensure_ascii=False)


def published_spec(spec: ModelSpec) -> ModelSpec:
    """The spec with its source and arguments as `published`."""
    source = published(spec.source)
    return spec.model_copy(update={"source": source, "arguments": published(dict(spec.arguments))})


def published_device(facts: DeviceFacts) -> DeviceFacts:
    """The facts without where things lie on the device, and without what is to be done about it."""
    return facts.model_copy(update={"python": published(facts.python), "reason": "", "fix": ""})


def without_address(data: ReportData, device: str) -> ReportData:
    """A report without the address of its device (`ssh:user@host.example`, `adb:10.0.0.7:5555`), wherever it stands;
    what the user has called a device (`ssh:shelf-3`), and a serial, stay."""
    address = device.partition(":")[2]
    if not re.search(r"[@.:/]", address):
        return data
    return ReportData.model_validate_json(data.model_dump_json().replace(json.dumps(address)[1:-1], UNTOLD))


def published(value: Any) -> Any:
    """A tree of plain values with every path cut to its last name; what goes by the name of a secret is left out."""
    if isinstance(value, Mapping):
        return {str(key): UNTOLD if _SECRET.search(str(key)) else published(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [published(item) for item in value]
    return _names(value) if isinstance(value, str) else value


def _names(text: str) -> str:
    if _ADDRESS.match(text):
        address = urlsplit(text)  # without the user's name, password and query
        return f"{address.scheme}://{address.hostname or ''}/{address.path.rstrip('/').rpartition('/')[2]}"
    return _FOLDERS.sub("", text.rstrip("/\\") or text)
