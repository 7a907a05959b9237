"""The devices that a user has added: those that no bus announces (ssh hosts), in a TOML file of the user's."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeprune.errors import UsageError
from edgeprune.records import first_fault

if TYPE_CHECKING:
    from tomlkit.items import AoT

_WRITTEN = "Written by `edgeprune devices add`; may be edited."


class AddedDevice(BaseModel):
    """A machine that is reached by ssh. `mac`: it measures Core ML files with coremltools."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    host: str = Field(min_length=1)  # [user@]host, or a Host of the ssh config
    kind: Literal["ssh", "mac"] = "ssh"
    ssh_config: str | None = None  # a config file instead of the user's own
    python: str = ""  # the interpreter there; without: python3
    runner: Literal["python", "native"] | None = None  # without: what is installed there, else the native one

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("letters, digits, dots, dashes and underscores only")
        return name

    @property
    def id(self) -> str:
        return f"{'apple' if self.kind == 'mac' else 'ssh'}:{self.name}"


def registry_file() -> Path:
    """Where the added devices are kept."""
    return platformdirs.user_config_path("edgeprune") / "devices.toml"


def added_devices(file: Path | None = None) -> tuple[AddedDevice, ...]:
    """The devices of the file, in its order; none where there is no file.

    Raises:
        UsageError: the file is not valid; names the place.
    """
    path = file or registry_file()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(str(error), where=str(path), hint="mend the file, or take it away") from error
    try:
        found = tuple(AddedDevice.model_validate(entry) for entry in content.get("device", ()))
    except ValidationError as error:
        raise UsageError(first_fault(error), where=str(path), hint="mend the file") from error
    names = [device.id for device in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two devices are called {', '.join(twice)}", where=str(path), hint="rename one")
    return found


def add_device(device: AddedDevice, file: Path | None = None) -> None:
    """Keep a device; one of the same id is replaced. What the user wrote beside, comments too, stays."""
    path = file or registry_file()
    places = [place for place, known in enumerate(added_devices(path)) if known.id == device.id]

    def change(entries: AoT) -> None:
        entry = device.model_dump(exclude_defaults=True)
        if places:
            entries[places[0]] = entry
        else:
            entries.append(entry)

    _edit(path, change)


def remove_device(id: str, file: Path | None = None) -> None:
    """Forget a device.

    Raises:
        UsageError: there is none of this id.
    """
    path = file or registry_file()
    known = [device.id for device in added_devices(path)]
    if id not in known:
        raise UsageError(f"no device {id!r} was added", hint=f"added: {', '.join(known) or 'none'}")
    _edit(path, lambda entries: entries.pop(known.index(id)))


def _edit(path: Path, change: Callable[[AoT], object]) -> None:
    """Change the list of devices in the file, which was read without an error before."""
    import tomlkit

    text = path.read_text(encoding="utf-8") if path.exists() else ""
    document = tomlkit.parse(text or f"# {_WRITTEN}\n\n")
    if "device" not in document:
        document.append("device", tomlkit.aot())
    change(cast("AoT", document["device"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        content = tomlkit.dumps(document).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a name or path is no valid UTF-8: {error}", where=str(path), hint="rename it") from error
    partial.write_bytes(content)
    partial.replace(path)
