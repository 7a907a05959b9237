"""The names in a recipe that packages bring: each is held against what is installed here."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from edgeprune import installed
from edgeprune.errors import RecipeError, UsageError
from edgeprune.plain import shown
from edgeprune.recipe import PruneSection, Recipe, Section
from edgeprune.target_file import KEY, not_exported, wrong_target_file


@dataclass(frozen=True)
class WrongName:
    """A name that nothing here goes by: its key, and the error that says so."""

    location: tuple[str, ...]
    error: UsageError


def wrong_name(recipe: Recipe) -> WrongName | None:
    """The first format, task, method or runtime of a recipe that no installed package offers, or that two offer; or
    what is wrong with a method's settings."""
    named = {("export", "formats"): recipe.export.formats, ("quantize", "formats"): recipe.quantize.formats or ()}
    for location, formats in named.items():
        for name in formats:
            try:
                installed.chosen(installed.EXPORTERS, name, "format")
            except UsageError as error:
                return WrongName(location, error)
    if not recipe.task.is_users:
        try:
            installed.chosen(installed.TASKS, recipe.task.name, "task")
        except UsageError as error:
            return WrongName(("task", "name"), error)
    if found := wrong_method(recipe.prune):
        return found
    try:
        installed.require_runtime(recipe.device.runtime)
    except UsageError as error:
        return WrongName(("device", "runtime"), error)
    wrong = wrong_target_file(recipe)
    return None if wrong is None else WrongName(KEY, wrong)


def target_of_no_file(recipe: Recipe) -> WrongName | None:
    """The file that the latency target is about, where the recipe's export does not write it."""
    missing = not_exported(recipe)
    return None if missing is None else WrongName(KEY, missing)


def wrong_method(prune: PruneSection) -> WrongName | None:
    """What is wrong with a recipe's method, with the tables of methods, or with the allocator beside the method."""
    for name in dict.fromkeys((prune.method, *prune.methods)):
        try:
            kind = installed.load(installed.chosen(installed.METHODS, name, "method"), "method")
            kind.Settings.model_validate(prune.methods.get(name, {}))
        except ValidationError as error:
            return WrongName(*_wrong_setting(name, kind.Settings, error))
        except UsageError as error:
            return WrongName(("prune", "method") if name == prune.method else ("prune", name), error)
        if name == prune.method and prune.allocator not in (None, *kind.allocators):
            goes = UsageError(
                f"method `{name}` does not go with allocator `{prune.allocator}`",
                hint=f"it goes with {', '.join(kind.allocators)}",
            )
            return WrongName(("prune", "allocator"), goes)
    return None


def _wrong_setting(method: str, settings: type[Section], error: ValidationError) -> tuple[tuple[str, ...], UsageError]:
    """The key of a method's table that is wrong, and why."""
    first = error.errors()[0]
    location = ("prune", method, *(str(part) for part in first["loc"]))
    known = ", ".join(settings.model_fields) or "none"
    if first["type"] == "extra_forbidden":
        return location, UsageError("unknown key", hint=f"the settings of {method}: {known}")
    what = first["msg"].removeprefix("Value error, ")
    return location, UsageError(what, hint=f"got {shown(first['input'])}")


def int8_of_no_file(recipe: Recipe) -> list[str]:
    """The formats that are to be int8 and of which no file is to be written."""
    return [name for name in recipe.quantize.formats or () if name not in recipe.export.formats]


def recipe_error(found: WrongName, where: str) -> RecipeError:
    """The error of a wrong name, with its key."""
    return RecipeError(f"`{'.'.join(found.location)}`: {found.error.what}", where=where, hint=found.error.hint)


def int8_error(strange: list[str], where: str) -> RecipeError:
    """The error of int8 files that no float file is written beside."""
    return RecipeError(
        f"`quantize.formats` names {', '.join(strange)}, which `export.formats` does not",
        where=where,
        hint="add it there, or leave it out here",
    )


def require_names(recipe: Recipe) -> None:
    """Check the names of a recipe that was made in Python, and that it goes together as `read_recipe` asks.

    Raises:
        RecipeError: names what is there.
    """
    if found := wrong_name(recipe):
        raise recipe_error(found, "recipe")
    if strange := int8_of_no_file(recipe):
        raise int8_error(strange, "recipe")
    if found := target_of_no_file(recipe):
        raise recipe_error(found, "recipe")
