"""The user's own code that makes a model: found, imported and called, with every way it can fail told as ours."""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import random
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.models.frames import own_frame
from edgeprune.models.timm_import import import_torchvision

SEED = 0
_started: set[threading.Thread] = set()  # by factories


def call_factory(source: str, arguments: Mapping[str, Any], *, seed: int = SEED) -> nn.Module:
    """What a factory makes, with all generators (torch's, numpy's, Python's) at this seed; the caller's stay.

    Args:
        source: `package.module:function` or `path/file.py:function`; a class will do.

    Raises:
        ModelError: it cannot be imported, is no function or class of a file or package, fails, exits, or makes
            something else than an nn.Module.
    """
    failed = users_code("the factory failed", source, "check `arguments`")
    with users_object(source, seed=seed) as factory, fixed_seed(seed), failed:
        module = factory(**copy.deepcopy(dict(arguments)))
    if not isinstance(module, nn.Module):
        hint = "has it a `return`?" if module is None else "let it return the model itself, and nothing else"
        raise ModelError(f"the factory made a {type(module).__name__}, not an nn.Module", where=source, hint=hint)
    return module


@contextmanager
def users_object(source: str, *, seed: int = SEED) -> Iterator[Callable[..., Any]]:
    """The function or class that `package.module:name` or `path/file.py:name` names, to be called within this context:
    what it sets for the whole process is set back after.

    Raises:
        ModelError: it cannot be imported, or is no function or class of a file or package.
    """
    place, _, name = source.rpartition(":")
    folder = Path(place).parent if place.endswith(".py") else Path.cwd()
    with _settings_kept(), _importable(folder):
        with fixed_seed(seed):  # of its own: a second import in one process draws nothing
            found = _find_factory(source, place, name)
        yield found


@contextmanager
def users_code(what: str, where: str, hint: str | None = None) -> Iterator[None]:
    """Run code that is not ours: whatever it raises, `sys.exit` too, becomes a ModelError that names the last of the
    user's own lines. Ctrl-C stays Ctrl-C."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        frame = own_frame(error, where)
        said += f" ({frame})" if frame else ""
        raise ModelError(f"{what}: {said}", where=where, hint=hint) from error


def threads_left() -> list[str]:
    """The names of threads that factories started, that have not ended, and that Python waits for at its end."""
    return [thread.name for thread in _started if thread.is_alive() and not thread.daemon]


@contextmanager
def _settings_kept() -> Iterator[None]:
    """What a factory sets for the whole process (torch's default type and device, gradients, threads, warnings, the
    working directory, where imports are found) goes back to what it was: all that comes after counts on it.
    """
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    place, imports, arguments = Path.cwd(), list(sys.path), list(sys.argv)
    threads_before = set(threading.enumerate())
    sys.argv[1:] = []  # a script's parse_args() is not to read our command line
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None if device == torch.device("cpu") else device)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        _started.update(set(threading.enumerate()) - threads_before)
        sys.argv[:] = arguments
        os.chdir(place)
        sys.path += [entry for entry in imports if entry not in sys.path]  # what it added, its forward may need


@contextmanager
def fixed_seed(seed: int = SEED) -> Iterator[None]:
    """All generators at a seed, and the caller's left as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _find_factory(source: str, place: str, name: str) -> Callable[..., Any]:
    _refuse_standard_library(place, source)
    hint = "write it as package.module:function or path/file.py:function"
    with users_code("cannot import the factory's module", source, hint):
        module = _import_file(Path(place)) if place.endswith(".py") else _import_package(place)
    factory = getattr(module, name, None) if name.isidentifier() else None
    if not callable(factory):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        close = difflib.get_close_matches(name, names, n=3)
        raise ModelError(
            f"there is no function `{name}` in {place}",
            where=source,
            hint=f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(names[:8]) or 'none'}",
        )
    _refuse_what_makes_no_model(factory, source)
    found: Callable[..., Any] = factory
    return found


def _refuse_standard_library(place: str, source: str) -> None:
    if place.endswith(".py"):
        library, path = Path(sysconfig.get_path("stdlib")).resolve(), Path(place).expanduser().resolve()
        inside = library in path.parents and "site-packages" not in path.relative_to(library).parts
    else:
        inside = place.partition(".")[0] in sys.stdlib_module_names
    if inside:
        raise ModelError(
            "Python's standard library makes no models",
            where=source,
            hint="name a function or class of your own; of a file with such a name, as path/file.py:function",
        )


def _refuse_what_makes_no_model(factory: Any, source: str) -> None:
    """A factory is a class or function that was written in a file or package (or a `partial` of one)."""
    made = factory
    while isinstance(made, functools.partial):
        made = made.func
    made = inspect.unwrap(made) if not isinstance(made, type) else made
    if isinstance(made, nn.Module):
        raise ModelError(
            f"this is a {type(made).__name__}, a model that is there already", where=source, hint="name what makes it"
        )
    written = isinstance(made, type) or inspect.isroutine(made)
    home = str(getattr(made, "__module__", None) or "builtins").partition(".")[0]
    if not written or home in sys.stdlib_module_names - {"__main__"}:
        raise ModelError(
            f"this is no factory: {'a callable object' if not written else f'it comes from {home}'}",
            where=source,
            hint="name a function or class of your own, or of a package of models",
        )


def _import_package(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name == place or name.startswith(f"{place}.")]:
        del sys.modules[name]  # half-imported
    import_torchvision()
    return importlib.import_module(place)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        return _executed(path)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import_torchvision()
    return _executed(path)


def _executed(path: Path) -> Any:
    name = f"edgeprune_factory_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that classes of the file can be found by their module's name
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let imports find a folder while the user's code is imported and called."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the user's code may have changed it
            sys.path.remove(entry)
