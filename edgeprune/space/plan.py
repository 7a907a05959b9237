"""The plan: a subnet written down. Base model + plan + safetensors rebuild the pruned model.

Version 2 names each decision once, with its option. Version 1 was a list of edits in order; it is still read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edgeprune.errors import ModelError
from edgeprune.records import first_fault
from edgeprune.runs import read_bounded
from edgeprune.space.subnet import Subnet


class Narrowed(BaseModel):
    """A width: of a group of so many units these go."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["width"] = "width"
    size: int  # units of the group in the base model
    removed: tuple[int, ...]  # ascending, in range; at least one, never all

    @model_validator(mode="after")
    def _sane(self) -> Narrowed:
        if list(self.removed) != sorted(set(self.removed)):
            raise ValueError("removed indices must be sorted and unique")
        if self.removed and not (self.removed[0] >= 0 and self.removed[-1] < self.size):
            raise ValueError(f"an index is outside 0..{self.size - 1}")
        if len(self.removed) >= self.size:
            raise ValueError(f"all {self.size} units would go")
        return self


class Dropped(BaseModel):
    """A residual branch that goes as a whole, so that its skip alone stays; or a gate, for a constant."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["branch", "gate"] = "branch"


Option = Annotated[Narrowed | Dropped, Field(discriminator="kind")]


class Plan(BaseModel):
    """A subnet of a base model: decision -> option. What is not named stays as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[2] = 2
    base: str  # the model spec's source
    base_parameters: int  # parameters of the base model, a cheap check that the plan fits
    made_with: dict[str, str] = {}  # package -> version; said where the plan does not fit
    decisions: dict[str, Option]

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("version") == 1:
            edits = _EDITS.validate_python(tree.get("edits"))
            rest = {key: value for key, value in tree.items() if key != "edits"}
            return {**rest, "version": 2, "decisions": _decisions_of(edits)}
        return tree

    @property
    def subnet(self) -> Subnet:
        """What the plan takes out."""
        narrowed = {name: option.removed for name, option in self.decisions.items() if isinstance(option, Narrowed)}
        return Subnet(narrowed, tuple(name for name in self.decisions if name not in narrowed))


class _RemoveUnits(BaseModel):
    """Version 1: remove units from a group, counted in what earlier edits left of it."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["remove_units"]
    group: str
    size: int
    removed: tuple[int, ...]


class _RemoveBranch(BaseModel):
    """Version 1: remove a residual branch or a gate."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["remove_branch"]
    branch: str


_EDITS = TypeAdapter(tuple[Annotated[_RemoveUnits | _RemoveBranch, Field(discriminator="kind")], ...])


def _decisions_of(edits: tuple[_RemoveUnits | _RemoveBranch, ...]) -> dict[str, dict[str, Any]]:
    """The decisions that the edits of version 1 come to.

    Raises:
        ValueError: they do not fit one another.
    """
    decisions: dict[str, dict[str, Any]] = {}
    alive: dict[str, list[int]] = {}
    for edit in edits:
        if isinstance(edit, _RemoveBranch):
            decisions[edit.branch] = {"kind": "gate" if edit.branch.endswith(":gate") else "branch"}
            continue
        if edit.group not in alive:
            alive[edit.group] = list(range(edit.size))
            decisions[edit.group] = {"kind": "width", "size": edit.size, "removed": []}
        left = alive[edit.group]
        if len(left) != edit.size or len(set(edit.removed)) != len(edit.removed):
            raise ValueError(f"the edits of group {edit.group} do not fit one another")
        if any(not 0 <= place < len(left) for place in edit.removed):
            raise ValueError(f"group {edit.group}: an index is outside 0..{len(left) - 1}")
        decisions[edit.group]["removed"] = sorted([*decisions[edit.group]["removed"], *(left[n] for n in edit.removed)])
        alive[edit.group] = [unit for place, unit in enumerate(left) if place not in set(edit.removed)]
    return decisions


def read_plan(path: Path | str) -> Plan:
    """Read a plan of version 2 or 1.

    Raises:
        ModelError: the file is missing or is not a plan.
        RunError: it is longer than any plan.
    """
    try:
        return Plan.model_validate_json(read_bounded(Path(path)))
    except OSError as error:
        raise ModelError(f"cannot read the plan: {error}", where=str(path)) from error
    except ValidationError as error:
        raise ModelError(f"not a valid plan: {first_fault(error)}", where=str(path)) from error
