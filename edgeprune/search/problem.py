"""What is to be chosen: a space, what its subnets cost, what they lose, and how far a target lies.

All allocators answer the same problem in the same way (`Allocator`), so any of them works with any method, device and
target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeprune.errors import TargetError
from edgeprune.latency.cost import CostModel, total
from edgeprune.space.decisions import Space
from edgeprune.space.ranking import Ranking
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure

Judge = Callable[[Subnet], float]  # the loss of the model that stays; infinite or no number where it answers none
OnStep = Callable[[float, int], None]  # (cost reached, models judged)
SMALLER = "lower prune.granularity and prune.minimum_width (the greater of them is the least width)"
RAISE = f"raise the target, {SMALLER}, or take patterns out of prune.keep"
SMALLEST = "the smallest model allowed"
ROUNDING = 1e-9


@dataclass(frozen=True)
class Problem:
    """What an allocator chooses from and by.

    Args:
        ranking: which units of a group go at each width.
        costs: what a layer costs at given widths, in the budgets' unit.
        judge: asked once for each model. Of the unpruned one its answer is a number (`AdaptedLoss.check`).
        on_step: told now and then the cost that is reached and how many models were judged.
    """

    space: Space
    ranking: Ranking
    costs: CostModel
    judge: Judge
    on_step: OnStep | None = None

    @property
    def structure(self) -> Structure:
        return self.space.structure

    @property
    def whole_cost(self) -> float:
        """What the unpruned model costs."""
        return cost_of(self.structure, WHOLE, self.costs)


@dataclass(frozen=True)
class Chosen:
    """An allocator's answer: a subnet, what it costs, and its loss as judged."""

    subnet: Subnet
    cost: float
    loss: float


class Allocator(Protocol):
    """Chooses a subnet of low loss within a budget."""

    problem: Problem

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget, with widths of a finer multiple where one is given.

        Raises:
            TargetError: even the smallest subnet costs more than the budget.
        """
        ...

    def smallest(self) -> Chosen:
        """The cheapest that it can choose."""
        ...


def cost_of(structure: Structure, subnet: Subnet, costs: CostModel) -> float:
    """What the layers of a subnet cost together; the same in whatever order they come."""
    gone = subnet.layers_gone(structure)
    return total([layer for layer in structure.layers if layer.name not in gone], subnet.kept(structure), costs)


@dataclass(frozen=True)
class Shares:
    """The one conversion between what layers cost and the share of the unpruned model that a target is about:
    whole = constant + scale * cost, share = whole / unpruned. A count (MACs, bytes) has no constant.

    `tolerance`: what a measured target leaves around its goal; 0 for one that is counted or predicted.
    """

    unpruned: float
    goal: float
    constant: float = 0.0
    scale: float = 1.0
    tolerance: float = 0.0

    def cost_at(self, share: float) -> float:
        """What the layers may cost at a share of the whole."""
        return (share * self.unpruned - self.constant) / self.scale

    def of(self, cost: float) -> float:
        """The share that a model has whose layers cost so much."""
        return (self.constant + self.scale * cost) / self.unpruned

    def check(self, least: float, share: float, *, slack: float = 0.0, also: str = "") -> None:
        """Check that a share can be reached where the layers cost `least` at least.

        Args:
            slack: of a measured target, beside the tolerance: predictions are no measurements.
            also: what else to do about it.

        Raises:
            TargetError: it cannot.
        """
        room = (1 + self.tolerance) * (1 + slack) if self.tolerance else 1 + ROUNDING
        if least > self.cost_at(share * room):
            raise out_of_reach(f"{share:.3g}x", f"{self.of(least):.3g}x", also=also)


def out_of_reach(
    target: str, least: str, *, by: str = SMALLEST, where: str | None = None, hint: str = RAISE, also: str = ""
) -> TargetError:
    """What to tell of a target below the least that is reachable.

    Args:
        least: what that is, with how it is known.
        by: what reaches the least.
        also: another way out, with a comma before it.
    """
    return TargetError(f"{target} cannot be reached: {by} takes {least}", where=where, hint=hint + also)
