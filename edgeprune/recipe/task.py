"""[task]: what the model's answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from edgeprune.recipe.section import Section

CLASSIFICATION = "classification"

TargetKind = Literal["class", "identity", "classes", "mask", "values", "own"]
"""What a data source has to give beside an image: the number of the output that stands for its class; a class's number,
whatever the outputs are; 0 or 1 for each class; a map of class numbers; numbers of any shape; what the user's own data
set gives."""


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

    def without_folders(self) -> TaskSection:
        """As a manifest has it, which travels: code of the user's own by the name of its file alone."""
        place, colon, name = self.name.rpartition(":")
        return (
            self.model_copy(update={"name": f"{Path(place).name}:{name}"}) if colon and place.endswith(".py") else self
        )
