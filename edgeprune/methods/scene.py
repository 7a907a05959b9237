"""Where choices are made: a model with its images, its costs and its target, and where what was found out is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.data.split import Splits
from edgeprune.latency.cost import CostModel
from edgeprune.models.spec import Model
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe
from edgeprune.search.problem import Shares
from edgeprune.space.units import Structure
from edgeprune.tasks.objective import Objective
from edgeprune.training.losses import OtherTeacher


@dataclass(frozen=True)
class Scene:
    """What a method works with.

    Args:
        model: the unpruned one.
        structure: what can go from it, with the layers that `costs` knows.
        shares: the target, and what its share of the model may cost.
        multiple: of the kept widths.
        choosing: a folder for what goes with the settings of choices; `training`: with those of training, too.
        objective: what training lowers.
        another: makes the teacher that the recipe names beside the unpruned model; asked where the model trains.
    """

    recipe: Recipe
    model: Model
    splits: Splits
    structure: Structure
    costs: CostModel
    shares: Shares
    multiple: int
    choosing: Path
    training: Path
    progress: Progress
    objective: Objective
    another: Callable[[], OtherTeacher | None] = lambda: None
