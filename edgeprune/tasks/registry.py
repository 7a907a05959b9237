"""Tasks by name: those that installed packages offer by entry point, and the user's own classes."""

from __future__ import annotations

from pydantic import ValidationError

from edgeprune import installed
from edgeprune.errors import RecipeError
from edgeprune.models.factory import users_code, users_object
from edgeprune.plain import shown
from edgeprune.recipe import TaskSection
from edgeprune.tasks.task import Task


def task_of(section: TaskSection) -> Task:
    """The task of a recipe, with its settings. A user's own class runs code that the recipe names.

    Raises:
        UsageError: no package offers it, two do, or it cannot be loaded.
        ModelError: the user's own class cannot be imported, or fails.
        RecipeError: it is no task, or has no such setting.
    """
    if not section.is_users:
        return _made(installed.load(installed.chosen(installed.TASKS, section.name, "task"), "task"), section)
    with users_object(section.name) as found:
        return _made(found, section)


def _made(kind: object, section: TaskSection) -> Task:
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise RecipeError(
            f"`task.name`: {section.name} is no task",
            where="task",
            hint="a task is a subclass of edgeprune.tasks.task.Task: see docs/tasks.md",
        )
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        raise _lacks(section, missing)
    try:
        settings = kind.Settings.model_validate(section.settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(("task", *(str(part) for part in first["loc"])))
        known = ", ".join(kind.Settings.model_fields) or "none"
        unknown = first["type"] == "extra_forbidden"
        what = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
        hint = f"the settings of {section.name}: {known}" if unknown else f"got {shown(first['input'])}"
        raise RecipeError(f"`{key}`: {what}", where="task", hint=hint) from error
    with users_code(f"the task {section.name} cannot be made", section.name):
        task = kind(settings)
    if missing := [word for word in ("name", "metric") if not hasattr(task, word)]:
        raise _lacks(section, missing)
    return task


def _lacks(section: TaskSection, missing: list[str]) -> RecipeError:
    return RecipeError(
        f"`task.name`: {section.name} says nothing of {', '.join(missing)}",
        where="task",
        hint="every task has these: see docs/tasks.md",
    )
