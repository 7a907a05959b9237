"""What a pruned model takes from data before it is trained: constants of gates that went, and its layers' weights."""

from __future__ import annotations

import copy
import itertools

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from edgeprune.models.spec import Model
from edgeprune.pruning.allocate import Choice
from edgeprune.pruning.methods import JUDGING_BATCH, judge_of
from edgeprune.pruning.reconstruct import reconstruct
from edgeprune.stages.context import Context
from edgeprune.structure.gates import removed_gates, settle_gates
from edgeprune.structure.surgery import remove_but_gates
from edgeprune.structure.units import Structure


class Reconstruction(BaseModel):
    """What least squares did to a pruned model. Losses: cross entropy on the judged images, before with batch norms
    adapted to these, after with the statistics that the norms got."""

    model_config = ConfigDict(frozen=True)
    images: int
    layers: int
    loss_before: float
    loss_after: float

    @property
    def kept(self) -> bool:
        """Whether it is better than what cutting left; else that stays."""
        return self.loss_after < self.loss_before

    @property
    def words(self) -> str:
        change = f"loss {self.loss_before:.3f} -> {self.loss_after:.3f}"
        if not self.kept:
            return (
                f"reconstruction from {self.images} images does not help ({change}): the weights stay as they were cut"
            )
        return f"{self.layers} layers reconstructed from {self.images} images: {change}"


def settle(
    context: Context, pruned: nn.Module, whole: Model, structure: Structure, choice: Choice
) -> Reconstruction | None:
    """Give a pruned model what it takes from data, in place.

    Args:
        whole: the unpruned model that it shall answer like.

    Returns:
        what reconstruction did; None where the recipe has it off or prunes in turns, or nothing went.
    """
    _settle_gates(context, pruned, whole, structure, choice)
    recipe, train = context.recipe, context.splits.train
    went = choice.branches or any(choice.removed.values())
    if not recipe.prune.reconstruct or recipe.prune.epochs or not went:  # in turns it learned to do without by now
        return None
    context.progress.update("reconstructing layers", 0, 1)
    batches = train.batches(JUDGING_BATCH, seed=recipe.seed + 1, augment=recipe.tune.augment)
    images = torch.cat([batch for batch, _ in itertools.islice(batches, -(-recipe.prune.reconstruct // JUDGING_BATCH))])
    images = images[: recipe.prune.reconstruct]
    judge = judge_of(whole, structure, recipe.prune, recipe.tune, train, seed=recipe.seed)
    better = copy.deepcopy(pruned)
    layers = reconstruct(better, whole.module, structure, choice.removed, images, seed=recipe.seed)
    found = Reconstruction(
        images=len(images),
        layers=len(layers),
        loss_before=judge.of(copy.deepcopy(pruned)),
        loss_after=judge.of(better, adapted=False),
    )
    if found.kept:
        pruned.load_state_dict(better.state_dict())
    return found


def _settle_gates(context: Context, pruned: nn.Module, whole: Model, structure: Structure, choice: Choice) -> None:
    """Set the constants of the gates that went, from as many images as choices are judged on."""
    if not removed_gates(structure, choice.branches):
        return
    narrow = remove_but_gates(whole.module, structure, choice.removed, choice.branches)
    images = context.splits.train.take(context.recipe.prune.judging_images).batches(JUDGING_BATCH)
    settle_gates(pruned, narrow, structure, choice.branches, (batch for batch, _ in images))
