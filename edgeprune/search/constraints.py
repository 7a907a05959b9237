"""What binds: what keeps a choice from being cheaper, told in one way whichever allocator chose."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeprune.latency.cost import total
from edgeprune.search.problem import Allocator, Chosen, Shares


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


def binding(allocator: Allocator, chosen: Chosen, shares: Shares) -> Binding:
    """What binds the choice of an allocator."""
    problem = allocator.problem
    structure, subnet = problem.structure, chosen.subnet
    kept = subnet.kept(structure)
    narrows = {name: widths for name, widths in problem.space.widths.items() if len(widths) > 1}
    dropped = {name for branch in structure.branches if branch.id in subnet.dropped for name in branch.groups}
    stay = narrows.keys() - dropped
    may_go = {name for branch in problem.space.droppable for name in branch.layers}
    uncut = [
        layer
        for layer in structure.layers
        if layer.name not in may_go and narrows.keys().isdisjoint((*layer.in_width.groups, *layer.out_width.groups))
    ]
    return Binding(
        fastest_share=shares.of(allocator.smallest().cost),
        uncut_share=shares.of(total(uncut, structure.sizes, problem.costs)),
        at_least=tuple(name for name, widths in narrows.items() if name in stay and kept[name] <= widths[-1]),
        groups=len(stay),
        asked=tuple(sorted({frozen.name for frozen in structure.frozen if frozen.asked})),
    )
