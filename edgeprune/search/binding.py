"""What binds: what keeps a choice from being cheaper, told in one way whichever allocator chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from edgeprune.latency.cost import CostModel, total
from edgeprune.search.path import Choice
from edgeprune.space.limits import Limits, allowed_widths
from edgeprune.space.units import Structure


class Binding(BaseModel):
    """What keeps a choice from being cheaper. Shares are of the unpruned model's cost, in the target's unit."""

    model_config = ConfigDict(frozen=True)
    fastest_share: float  # of the smallest model allowed
    uncut_share: float  # in layers that nothing may make narrower, and that no branch takes along
    at_least: tuple[str, ...]  # groups that stand at their least width
    groups: int  # that may get narrower, without those of branches that went
    asked: tuple[str, ...]  # what stays because prune.keep says so

    @property
    def words(self) -> str:
        """In words, without a full stop."""
        said = [f"the least reachable is {self.fastest_share:.3f}x"]
        if not self.groups:
            said.append("no group can get narrower")
        elif len(self.at_least) == self.groups:
            said.append("every group stands at its least width")
        elif self.at_least:
            said.append(f"at their least width: {', '.join(self.at_least)}")
        else:
            said.append("no group stands at its least width, so only the target binds")
        said.append(f"{self.uncut_share:.1%} is in layers that cannot be cut")
        if self.asked:
            said.append(f"held by prune.keep: {', '.join(self.asked)}")
        return "; ".join(said)


class Chooser(Protocol):
    """What all allocators have in common."""

    structure: Structure
    costs: CostModel
    limits: Limits

    def within(self, budget: float, *, granularity: int | None = None) -> Choice: ...
    def smallest(self) -> Choice: ...


def binding(allocator: Chooser, choice: Choice, share: Callable[[float], float]) -> Binding:
    """What binds a choice of an allocator.

    Args:
        share: of the unpruned model's cost that a cost of the layers makes.
    """
    structure, limits = allocator.structure, allocator.limits
    widths = {group.id: allowed_widths(group, limits) for group in structure.groups}
    narrows = {name for name, allowed in widths.items() if len(allowed) > 1}
    stay = narrows.difference(*(branch.groups for branch in structure.branches if branch.id in choice.branches))
    may_go = {name for branch in limits.droppable(structure) for name in branch.layers}
    uncut = [
        layer
        for layer in structure.layers
        if layer.name not in may_go and narrows.isdisjoint((*layer.in_width.groups, *layer.out_width.groups))
    ]
    return Binding(
        fastest_share=share(allocator.smallest().cost),
        uncut_share=share(total(uncut, structure.sizes, allocator.costs)),
        at_least=tuple(name for name, allowed in widths.items() if name in stay and choice.kept[name] <= allowed[-1]),
        groups=len(stay),
        asked=tuple(sorted({frozen.name for frozen in structure.frozen if frozen.asked})),
    )
