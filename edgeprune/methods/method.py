"""What a pruning method is: a class that ranks units, with its own settings.

A method is one file and one entry point of the group `edgeprune.methods`. Importing it is light: what needs torch is
imported where it is used, so that a recipe can be checked at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgeprune.recipe import AllocatorName, PruneSection, Section

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.data.split import Split
    from edgeprune.methods.seen_scores import SeenScores
    from edgeprune.models.spec import Model
    from edgeprune.space.ranking import Ranking, Scores
    from edgeprune.space.units import Structure
    from edgeprune.tasks.objective import Objective

OF_SCORES: tuple[AllocatorName, ...] = (
    "knapsack",
    "global",
    "isomorphic",
)  # allocators that compare the scores of units
OF_RANKINGS: tuple[AllocatorName, ...] = ("judged", "additive", "netadapt", "uniform", "scales")


class NoSettings(Section):
    """The table of a method that has nothing to set."""


@dataclass(frozen=True)
class ToRank:
    """Units to rank: a model, what can go from it, images with their targets, and the loss.

    `seen`: the scores of what the method watched while the model trained (`Method.watching`); None where nothing was.
    """

    model: Model
    structure: Structure
    images: Split
    prune: PruneSection
    objective: Objective
    seed: int = 0
    seen: Scores | None = None


class Method(ABC):
    """Says which units of a group go at each width. Subclasses are made with their settings, `[prune.NAME]`."""

    name: ClassVar[str]
    Settings: ClassVar[type[Section]] = NoSettings
    allocators: ClassVar[tuple[AllocatorName, ...]] = OF_RANKINGS  # that it goes with; the first unless said
    # Whether it looks at weights alone, and at those of units that are out for a turn of training as they last were.
    # Others look at what the model computes, without these units.
    of_weights_alone: ClassVar[bool] = False

    def __init__(self, settings: Section) -> None:
        self.settings = settings

    @abstractmethod
    def rank(self, asked: ToRank) -> Ranking:
        """The ranking of every group. An allocator of `OF_SCORES` needs one `ByScore`.

        Raises:
            ModelError, DataError: the model or the images do not allow it.
        """

    def watching(self, module: nn.Module, structure: Structure) -> SeenScores | None:  # noqa: ARG002
        """What looks at every step where the model trains while it is pruned; None where the method ranks the model as
        it is before each choice.

        Raises:
            ModelError: the model does not allow it.
        """
        return None
