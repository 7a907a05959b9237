"""Whose word names code: a factory that the user named runs; one that only a run folder names does not.

What a user named in a recipe, on the command line or in Python is remembered, so that the later commands on a run
folder need not name it again. A run folder that comes from elsewhere names what this user never did, and is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from edgeprune.errors import ModelError
from edgeprune.models.spec import ModelSpec
from edgeprune.runs import write_atomic

TIMM = "timm:"
# What leads timm to files and to the network instead of to an architecture.
_REACHING = ("checkpoint_path", "cache_dir", "pretrained")


def remember_named(source: str, arguments: Mapping[str, Any]) -> None:
    """Keep that this user named a model: `timm:NAME`, `package.module:factory` or `/path/file.py:factory`."""
    place = _place(source, arguments)
    if not place.exists():
        write_atomic(place, json.dumps({"source": source}).encode())


def require_named(spec: ModelSpec, where: str) -> None:
    """Check that this user named the model of a spec before, or that building it runs no code but timm's own.

    Args:
        spec: what a run folder says of its model.
        where: that run folder.

    Raises:
        ModelError: nobody but the run folder names it.
    """
    if _is_plain_timm(spec) or _place(spec.source, spec.arguments).exists():
        return
    raise ModelError(
        f"this run folder asks to run the code `{spec.source}`, which was not named on this machine before",
        where=where,
        hint="look at that code; if you trust it, add --trust (in Python: trust=True), or name it in a recipe: "
        "edgeprune run RECIPE --resume",
    )


def check_callable(source: str, factory: Callable[..., Any]) -> None:
    """Check that a factory is a class or a function of the user's, or of an installed package.

    Raises:
        ModelError: it is built in, comes from Python's standard library, or is another kind of object.
    """
    if not (inspect.isclass(factory) or inspect.isfunction(factory)):
        raise ModelError(
            f"the factory is a {type(factory).__name__}, not a class or a function",
            where=source,
            hint="write a function that returns the module",
        )
    if is_of_python(getattr(factory, "__module__", None) or "builtins"):
        raise ModelError(
            f"`{factory.__module__}.{factory.__qualname__}` is a part of Python, not a model", where=source, hint=_OWN
        )


def check_module(source: str, module: str) -> None:
    """Check that a factory's module is none of Python's own, before it is imported.

    Raises:
        ModelError: it is.
    """
    if is_of_python(module):
        raise ModelError(f"`{module}` is a part of Python and makes no models", where=source, hint=_OWN)


_OWN = "name a function of your own file or of an installed package"


def is_of_python(module: str) -> bool:
    """Whether a module's top package is built into Python, or lies in its standard library."""
    origin = _origin(module)
    if origin in ("built-in", "frozen"):
        return True
    library, inside = Path(sysconfig.get_path("stdlib")).resolve(), Path(origin).resolve()
    return library in inside.parents and not {"site-packages", "dist-packages"} & set(inside.parts)


def _origin(module: str) -> str:
    """Where a module's top package lies: a file, `built-in` or `frozen`; empty where it is not found."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # a module of a package that is being imported, or `__main__`
        return ""
    return (found.origin or "") if found is not None else ""


def _is_plain_timm(spec: ModelSpec) -> bool:
    """Whether it is an architecture that timm itself knows, made without files and without the network."""
    if not spec.source.startswith(TIMM) or ":" in spec.source.removeprefix(TIMM):
        return False
    return not any(name.startswith(reaching) for name in spec.arguments for reaching in _REACHING)


def _place(source: str, arguments: Mapping[str, Any]) -> Path:
    """The file that stands for a source with its arguments in the user's cache."""
    module = source.rpartition(":")[0]
    lies = "" if source.startswith(TIMM) or module.endswith(".py") else _origin(module)  # `model:make` of which folder?
    named = json.dumps([source, arguments, lies], sort_keys=True, default=repr)
    return user_cache_path("edgeprune") / "named" / f"{hashlib.sha256(named.encode()).hexdigest()}.json"
