"""Whose code may run: what this user has named. A run folder alone names none.

What a user names (in a recipe, on the command line, in a call) is kept as a digest in a folder of the user's own: of
the source, its arguments, and of the factory's file and content. A run folder whose model is that very call goes on
without being asked for again, wherever it lies; one that came from elsewhere is not among them.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from edgeprune.checksum import file_sha256
from edgeprune.devices.discovery import PROFILE
from edgeprune.devices.registry import added_devices
from edgeprune.errors import RunError
from edgeprune.models.spec import ModelSpec
from edgeprune.recipe import ModelSection, Recipe
from edgeprune.recipe.data import PREFIXES

TIMM_SCHEMES = ("timm:", "hf-hub:", "hf_hub:", "local-dir:")
# Arguments of timm's create_model that lead to files, addresses, or what is read from them.
_REACHING = re.compile(r"pretrained|checkpoint|weights|state_dict|path|file|dir|url|hub|cache|source", re.IGNORECASE)


def is_timm(source: str) -> bool:
    return ":" not in source or source.startswith(TIMM_SCHEMES)


def canonical(source: str) -> str:
    """A source as specs have it: `timm:NAME`, `package.module:factory`, or a file by its absolute path."""
    if is_timm(source):
        return f"timm:{source.removeprefix('timm:')}"
    place, _, name = source.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{name}" if place.endswith(".py") else source


def is_of(spec: ModelSpec, section: ModelSection) -> bool:
    """Whether a spec was made from this section of a recipe (to timm's arguments, what the section says is added)."""
    if spec.source != canonical(section.source):
        return False
    asked, has = (json.loads(json.dumps(one, default=str)) for one in (section.arguments, spec.arguments))
    if not is_timm(section.source):
        return bool(asked == has)
    own = {"num_classes", "img_size", "in_chans"}
    return {**asked, **{key: has[key] for key in own & has.keys()}} == has


def remember(source: str, arguments: Mapping[str, Any]) -> None:
    """Keep that this user has named this model. Where that cannot be written, a later command asks for trust."""
    place = _mark(source, arguments)
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.touch(mode=0o600)
    except OSError:
        return


def is_known(source: str, arguments: Mapping[str, Any]) -> bool:
    """Whether this user has named this model, or it is one of timm's own that reads nothing from elsewhere."""
    return (is_timm(source) and _reads_nothing(source, arguments)) or _mark(source, arguments).is_file()


def require(source: str, arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuse to run what a run folder alone names.

    Raises:
        RunError: this user has not named it.
    """
    if is_known(source, arguments):
        return
    what = "reads files or the network" if is_timm(source) else "is code"
    raise RunError(
        f"the run folder names the model {source!r}, which {what} that you have not named yourself",
        where=str(folder),
        hint="if you trust this folder and what it names, add --trust (in Python: trust=True); or name the model in a "
        "recipe of your own: edgeprune run recipe.toml --resume",
    )


def remember_recipe(recipe: Recipe) -> None:
    """Keep that this user has named what their recipe names: its model, its device, and timm's data sets, which can
    fetch or run anything.
    """
    remember(canonical(recipe.model.source), recipe.model.arguments)
    remember_device(recipe.device.id)
    if recipe.tune.teacher is not None:
        remember(canonical(recipe.tune.teacher), {})
    if recipe.task.is_users:
        remember(canonical(recipe.task.name), {})
    for source in recipe.data.sources:
        if source.startswith("timm:"):
            remember(f"data {source}", {})
        elif is_users_data(source):
            remember(canonical(source), {})


def remember_device(id: str) -> None:
    """Keep that this user has named a device that is reached over a connection."""
    if not _is_here(id):
        remember(f"device {id}", {})


def require_device(id: str, folder: Path) -> None:
    """Refuse to connect to a device because a run folder alone names it.

    Raises:
        RunError: this user has neither named it nor added it to their devices.
    """
    if _is_here(id) or _mark(f"device {id}", {}).is_file() or any(one.id == id for one in added_devices()):
        return
    raise RunError(
        f"the run folder names the device {id!r}, to which you have not asked for a connection",
        where=str(folder),
        hint="if you know this device, add --trust (in Python: trust=True), or name it in a recipe of your own",
    )


def _is_here(id: str) -> bool:
    """This machine, or the typical tables of a kind of device: nothing is connected to."""
    return id == "local" or id.startswith(PROFILE)


def is_users_data(source: str) -> bool:
    """Whether a data source is code of the user's own: `package.module:function` or `file.py:function`."""
    if source.startswith(PREFIXES):
        return False
    place, colon, name = source.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or place.replace(".", "").isidentifier())


def require_data(source: str, folder: Path) -> None:
    """Refuse to open images through timm's data sets because a run folder alone names them.

    Raises:
        RunError: this user has not named them.
    """
    if is_users_data(source) and not _mark(canonical(source), {}).is_file():
        raise RunError(
            f"the run folder names the data set {source!r}, which is code that you have not named yourself",
            where=str(folder),
            hint="if you trust this folder and what it names, add --trust (in Python: trust=True)",
        )
    if not source.startswith("timm:") or _mark(f"data {source}", {}).is_file():
        return
    raise RunError(
        f"the run folder names the images {source!r}, which may be fetched from anywhere, and you have not named them",
        where=str(folder),
        hint="if you trust this folder and what it names, add --trust (in Python: trust=True)",
    )


def require_task(name: str, folder: Path) -> None:
    """Refuse to run a task's code because a run folder, or a manifest, alone names it.

    Raises:
        RunError: this user has not named it.
    """
    if _mark(canonical(name), {}).is_file():
        return
    raise RunError(
        f"this folder names the task {name!r}, which is code that you have not named yourself",
        where=str(folder),
        hint="if you trust this folder and what it names, add --trust (in Python: trust=True)",
    )


def _mark(source: str, arguments: Mapping[str, Any]) -> Path:
    parts = [source, json.dumps(arguments, sort_keys=True, default=str)]
    if not source.startswith(("data ", "device ")) and not is_timm(source) and (file := _file_of(source)) is not None:
        parts += [str(file), file_sha256(file)]
    return user_state_path("edgeprune") / "named" / hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _reads_nothing(source: str, arguments: Mapping[str, Any]) -> bool:
    name = source.removeprefix("timm:")
    plain = re.fullmatch(r"[A-Za-z0-9_.]+", name) is not None
    return plain and not any(_REACHING.search(str(key)) or not _harmless(value) for key, value in arguments.items())


def _harmless(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_harmless(key) and _harmless(part) and not _REACHING.search(str(key)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_harmless, value))
    return value is None or isinstance(value, bool | int | float) or re.fullmatch(r"[\w.\- ]*", str(value)) is not None


def _file_of(source: str) -> Path | None:
    """The file that holds a factory, found without importing anything; None where it is not found."""
    place = source.rpartition(":")[0]
    if place.endswith(".py"):
        path = Path(place)
        return path.resolve() if path.is_file() else None
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    found = None
    for part in place.split("."):
        found = importlib.machinery.PathFinder.find_spec(part, search)
        search = list(found.submodule_search_locations or ()) if found is not None else []
    origin = found.origin if found is not None else None
    return Path(origin).resolve() if origin is not None and Path(origin).is_file() else None
