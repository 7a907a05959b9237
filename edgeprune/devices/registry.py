"""The devices that a user has added: those that no bus announces (ssh hosts), in a TOML file of the user's."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeprune.errors import UsageError


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
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{place}: {first['msg']}", where=str(path), hint="mend the file") from error
    names = [device.id for device in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two devices are called {', '.join(twice)}", where=str(path), hint="rename one")
    return found


def add_device(device: AddedDevice, file: Path | None = None) -> None:
    """Keep a device; one of the same id is replaced."""
    others = [known for known in added_devices(file) if known.id != device.id]
    _write((*others, device), file or registry_file())


def remove_device(id: str, file: Path | None = None) -> None:
    """Forget a device.

    Raises:
        UsageError: there is none of this id.
    """
    known = added_devices(file)
    if id not in {device.id for device in known}:
        names = ", ".join(device.id for device in known) or "none"
        raise UsageError(f"no device {id!r} was added", hint=f"added: {names}")
    _write(tuple(device for device in known if device.id != id), file or registry_file())


def _write(devices: tuple[AddedDevice, ...], path: Path) -> None:
    lines = ["# Written by `edgeprune devices add`; may be edited."]
    for device in devices:
        lines += ["", "[[device]]"]
        lines += [f"{key} = {_text(str(value))}" for key, value in device.model_dump(exclude_defaults=True).items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        content = ("\n".join(lines) + "\n").encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"a name or path is no valid UTF-8: {error}", where=str(path), hint="rename it") from error
    partial.write_bytes(content)
    partial.replace(path)


def _text(value: str) -> str:
    """A TOML string: JSON's escapes below the letters are TOML's; the letters stay as they are."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
