"""Reading a recipe: a file or a tree of values is checked, and what is wrong is told at its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edgeprune.errors import RecipeError
from edgeprune.labels import read_labels
from edgeprune.plain import first_unfit, read_text, shown
from edgeprune.recipe import Recipe
from edgeprune.recipe.data import PREFIXES, coco_parts
from edgeprune.recipe_names import int8_error, int8_of_no_file, recipe_error, target_of_no_file, wrong_name

MOST_BYTES = 1 << 20  # of a recipe file


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe file; relative paths in it are relative to the file.

    Raises:
        RecipeError: the file is missing, is not TOML, or has an unknown key or a wrong type
            (the message names the line and the nearest key).
    """
    try:
        text = read_text(path, most_bytes=MOST_BYTES)
    except UnicodeDecodeError as error:
        raise RecipeError("the recipe is no text in UTF-8", where=shown_path(path), hint="save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read the recipe: {_said(error)}", where=shown_path(path)) from error
    try:
        tree = tomllib.loads(text)
    except RecursionError as error:
        raise RecipeError("lists and tables lie too deep in one another", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not valid TOML: {_said(error)}", where=str(path)) from error
    except ValueError as error:  # Python's own limits: a number of more than 4,300 digits, a year 0
        raise RecipeError(
            f"a value cannot be read: {_said(error)}",
            where=_spot(str(path), _long_number(text)),
            hint="write a number of a usual size, a date as a text",
        ) from error
    recipe = parse_recipe(tree, text=text, where=str(path))
    if strange := int8_of_no_file(recipe):  # `edgeprune export --format` may write fewer later
        raise int8_error(strange, _spot(str(path), _line_of(text, ["quantize", "formats"])))
    if found := target_of_no_file(recipe):
        raise recipe_error(found, _spot(str(path), _line_of(text, list(found.location)))) from found.error
    return resolve_paths(recipe, path.resolve().parent, text=text, where=str(path))


def parse_recipe(tree: Mapping[str, Any], *, text: str = "", where: str = "recipe") -> Recipe:
    """Check a recipe tree; see `read_recipe`."""
    unfit = first_unfit(tree)
    if unfit is not None:
        key = ".".join(unfit.location)
        raise RecipeError(
            f"`{key}`: {unfit.why}" if key else unfit.why,
            where=_spot(where, _line_of(text, list(unfit.location))),
            hint="numbers are finite and of 64 bits, texts have no NUL",
        )
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        location = _keys_of(first["loc"])
        spot = _spot(where, _line_of(text, location))
        key = ".".join(location)
        if first["type"] == "extra_forbidden":
            nearest = _nearest(location)
            hint = f"did you mean `{nearest}`?" if nearest else f"known keys: {', '.join(_keys(location[:-1]))}"
            raise RecipeError(f"unknown key `{_short(key)}`", where=spot, hint=hint) from error
        what = _short(first["msg"].removeprefix("Value error, "), 600)  # how pydantic begins what our validators say
        got = None if isinstance(first["input"], Mapping) else f"got {shown(first['input'])}"
        raise RecipeError(
            f"`{_short(key)}`: {what}" if key else what,
            where=spot,
            hint="add it" if first["type"] == "missing" else got,
        ) from error
    if found := wrong_name(recipe):
        raise recipe_error(found, _spot(where, _line_of(text, list(found.location)))) from found.error
    return recipe


def _keys_of(location: Sequence[str | int]) -> list[str]:
    """Where an error is, without the form of a value that pydantic tried, as `tuple[str, ...]` or `float`."""
    keys = [str(part) for part in location]
    for length in range(1, len(keys)):
        section = _section(keys[: length - 1])
        field = section.model_fields.get(keys[length - 1]) if section else None
        if field is not None and _section(keys[:length]) is None and field.annotation is not dict[str, Any]:
            return [*keys[:length], *(part for part in keys[length:] if part.isdigit())]
    return keys


def resolve_paths(recipe: Recipe, folder: Path, *, text: str = "", where: str = "recipe") -> Recipe:
    """Make the checkpoint and folder sources absolute and read the labels, so that the run folder can be used from
    anywhere.

    Raises:
        RecipeError: the labels cannot be read; or a path cannot be one (it names a user that there is not, or is too
            long); names the line.
    """

    def absolute(path: str | Path, *key: str) -> Path:
        try:
            return (folder / Path(path).expanduser()).resolve()
        except (RuntimeError, ValueError, OSError) as error:
            spot = _spot(where, _line_of(text, list(key)))
            hint = "name a file or folder that can be there"
            raise RecipeError(f"`{'.'.join(key)}`: no such path: {_said(error)}", where=spot, hint=hint) from error

    def source_of(source: str, *key: str) -> str:
        """A data source with its path made absolute, where it names one that is there."""
        begin = next((one for one in PREFIXES if source.startswith(one)), "")
        if begin == "coco:":
            file, images = coco_parts(source)
            at = f"@{absolute(images, *key)}" if images else ""
            return f"{begin}{absolute(file, *key)}{at}" if file else source
        name, at, path = (
            source.removeprefix(begin).rpartition("@") if begin == "timm:" else ("", "", source[len(begin) :])
        )
        there = absolute(path, *key)
        return f"{begin}{name}{at}{there}" if path and _is_there(there) else source

    def named(source: str, *key: str) -> str:
        """Code of the user's own in a file, by its absolute path."""
        file, colon, name = source.rpartition(":")
        return f"{absolute(file, *key)}:{name}" if colon and file.endswith(".py") else source

    model, data, task, tuning = recipe.model, recipe.data, recipe.task, recipe.tune
    if tuning.teacher_checkpoint is not None:
        weights = absolute(tuning.teacher_checkpoint, "tune", "teacher_checkpoint")
        tuning = tuning.model_copy(update={"teacher_checkpoint": weights})
    if tuning.teacher is not None:
        tuning = tuning.model_copy(update={"teacher": named(tuning.teacher, "tune", "teacher")})
    if model.checkpoint is not None:
        checkpoint = absolute(model.checkpoint, "model", "checkpoint")
        model = model.model_copy(update={"checkpoint": checkpoint})
    if model.factory is not None:
        model = model.model_copy(update={"factory": named(model.factory, "model", "factory")})
    if isinstance(model.labels, Path):
        labels = read_labels(absolute(model.labels, "model", "labels"))
        model = model.model_copy(update={"labels": labels})
    task = task.model_copy(update={"name": named(task.name, "task", "name")})
    source = source_of(named(data.source, "data", "source"), "data", "source")
    parts = {
        name: source_of(value, "data", name)
        for name in ("train", "test", "calibration")
        if (value := getattr(data, name)) is not None and not _is_there(Path(source) / value)  # else a sub-folder
    }
    data = data.model_copy(update={"source": source, **parts})
    return recipe.model_copy(update={"model": model, "data": data, "task": task, "tune": tuning})


def shown_path(path: Path) -> str:
    """A path in a message, cut short where it is longer than any can be."""
    return _short(str(path).encode(errors="backslashreplace").decode(), 1000)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False


def _spot(where: str, line: int | None) -> str:
    return f"{where}:{line}" if line else where


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _said(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return _short(text.encode(errors="backslashreplace").decode(), 300)


def _long_number(text: str) -> int | None:
    """The line of the first number with more digits than Python reads."""
    return next((n for n, line in enumerate(text.splitlines(), 1) if re.search(r"[0-9_]{4300}", line)), None)


def _section(location: list[str]) -> type[BaseModel] | None:
    """The section class at a location of the tree."""
    current: type[BaseModel] = Recipe
    for part in location:
        field = current.model_fields.get(part)
        if field is None:
            return None
        kinds = (
            get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
        )
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not sections:
            return None
        current = sections[0]
    return current


def _keys(location: list[str]) -> list[str]:
    section = _section(location)
    return sorted(section.model_fields) if section else []


def _nearest(location: list[str]) -> str | None:
    """The known key nearest to an unknown one: first in its own section, then anywhere."""
    close = difflib.get_close_matches(location[-1], _keys(location[:-1]), n=1, cutoff=0.6)
    if close:
        return ".".join([*location[:-1], close[0]])
    everywhere = {key: f"{name}.{key}" for name in Recipe.model_fields for key in _keys([name])}
    everywhere |= {name: name for name in Recipe.model_fields}
    close = difflib.get_close_matches(location[-1], everywhere, n=1, cutoff=0.75)
    return everywhere[close[0]] if close else None


def _line_of(text: str, location: list[str]) -> int | None:
    """The line of a key: the last table header that leads to it, then the key itself."""
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"\[\[?([^\]]+)\]\]?", stripped):
            table = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if table == location:
                return number
            continue
        if key := re.match(r"[\"']?([A-Za-z0-9_.-]+)[\"']?\s*=", stripped):
            full = [*table, *key.group(1).split(".")]
            if full == location[: len(full)]:
                return number
    return None
