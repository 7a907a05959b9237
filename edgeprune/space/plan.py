"""The plan: the declarative, ordered list of edits. Base model + plan + safetensors rebuild the pruned model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeprune.errors import ModelError
from edgeprune.runs import read_bounded


class RemoveUnits(BaseModel):
    """Remove units from one group."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["remove_units"] = "remove_units"
    group: str
    size: int  # units of the group before this edit
    removed: tuple[int, ...]  # sorted, unique, in range; never all

    @model_validator(mode="after")
    def _sane(self) -> RemoveUnits:
        if list(self.removed) != sorted(set(self.removed)):
            raise ValueError(f"group {self.group}: removed indices must be sorted and unique")
        if self.removed and not (self.removed[0] >= 0 and self.removed[-1] < self.size):
            raise ValueError(f"group {self.group}: an index is outside 0..{self.size - 1}")
        if len(self.removed) >= self.size:
            raise ValueError(f"group {self.group}: all {self.size} units would go")
        return self


class RemoveBranch(BaseModel):
    """Remove a residual branch: its skip alone stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["remove_branch"] = "remove_branch"
    branch: str


Edit = Annotated[RemoveUnits | RemoveBranch, Field(discriminator="kind")]


class Plan(BaseModel):
    """Edits of a base model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    base: str  # the model spec's source
    base_parameters: int  # parameters of the base model, a cheap check that the plan fits
    made_with: dict[str, str] = {}  # package -> version; said where the plan does not fit
    edits: tuple[Edit, ...]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ModelError: the file is missing or is not a plan.
        RunError: it is longer than any plan.
    """
    try:
        return Plan.model_validate_json(read_bounded(path))
    except OSError as error:
        raise ModelError(f"cannot read the plan: {error}", where=str(path)) from error
    except ValidationError as error:
        raise ModelError(f"not a valid plan: {error.errors()[0]['msg']}", where=str(path)) from error
