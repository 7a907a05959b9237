"""[task]: what the model's answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from edgeprune.recipe.section import Section

CLASSIFICATION = "classification"


class TaskSection(Section):
    """Which task: one that an installed package brings, or the user's own `package.module:Task` (`file.py:Task`).

    `output`: the name or number of the output that the task reads, where the model has several; all of them unless
    said. Other keys are the task's own settings."""

    name: str = Field(default=CLASSIFICATION, min_length=1)
    output: str | int | None = None
    settings: dict[str, Any] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, tree: Any) -> Any:
        """A key that is not of every task is the task's."""
        if not isinstance(tree, Mapping) or not isinstance(given := tree.get("settings", {}), Mapping):
            return tree
        own = {key: value for key, value in tree.items() if key not in cls.model_fields}
        rest = {key: value for key, value in tree.items() if key not in own}
        return {**rest, "settings": {**given, **own}} if own else rest

    @property
    def is_users(self) -> bool:
        """Whether it is a class of the user's own."""
        return ":" in self.name
