"""What a pruned model takes from data before it is trained: constants of gates that went, and its layers' weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgeprune.data.split import Split
from edgeprune.methods.registry import JUDGING_BATCH, judge_of
from edgeprune.methods.scene import Scene
from edgeprune.models.spec import Model
from edgeprune.space.apply import apply_but_gates
from edgeprune.space.gates import removed_gates, set_gate_constants
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Structure
from edgeprune.training.reconstruct import adapt_norms, images_at_once, reconstruct


class Reconstruction(BaseModel):
    """What least squares did to a pruned model. Losses: cross entropy on images that it was not fitted on, before with
    batch norms adapted to these, after with the statistics that the norms got."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
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


def refit(scene: Scene, pruned: nn.Module, whole: Model, structure: Structure, subnet: Subnet) -> Reconstruction | None:
    """Give a pruned model what it takes from data, in place.

    Args:
        whole: the unpruned model that it shall answer like.

    Returns:
        what reconstruction did; None where the recipe has it off or prunes in turns, nothing went, or there is no image
        but the one to judge by.
    """
    _fit_gates(scene, pruned, whole, structure, subnet)
    recipe, train = scene.recipe, scene.splits.train
    if not recipe.prune.reconstruct or recipe.prune.epochs or not subnet:  # in turns it learned to do without by now
        return None
    scene.progress.update("reconstructing layers", 0, 1)
    few = max(1, min(recipe.prune.judging_images, len(train) // 4))  # what is judged by is not fitted on
    settings = recipe.prune.model_copy(update={"judging_images": few})
    judge = judge_of(whole, structure, settings, recipe.tune, train, seed=recipe.seed, objective=scene.objective)
    batches = train.batches(len(judge.batches[0][1]), seed=recipe.seed, augment=recipe.tune.augment)
    others = (images for images, _ in itertools.islice(batches, len(judge.batches), None))
    most = min(recipe.prune.reconstruct, images_at_once(whole.module, judge.batches[0][0][:2]))
    images = _first(others, most)
    if not len(images):
        return None
    better = copy.deepcopy(pruned)
    layers = reconstruct(better, whole.module, structure, subnet.units, images, seed=recipe.seed)
    found = Reconstruction(
        images=len(images),
        layers=len(layers),
        loss_before=judge.of(copy.deepcopy(pruned)),
        loss_after=judge.of(better, adapted=False),
    )
    if found.kept:
        pruned.load_state_dict(better.state_dict())
    return found


def _first(batches: Iterable[Tensor], most: int) -> Tensor:
    """So many images of some batches, or all there are, (n, C, H, W)."""
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch[: most - sum(map(len, taken))])
        if sum(map(len, taken)) >= most:
            break
    return torch.cat(taken) if taken else torch.empty(0)


def _fit_gates(scene: Scene, pruned: nn.Module, whole: Model, structure: Structure, subnet: Subnet) -> None:
    """Set the constants of the gates that went, from as many images as choices are judged on, with batch norms that
    know what else went."""
    gates = {gate.id for gate in removed_gates(structure, subnet.dropped)}
    if not gates:
        return
    narrow = apply_but_gates(whole.module, structure, subnet)
    judging, train = scene.recipe.prune.judging_images, scene.splits.train
    if subnet.without(gates):
        most = min(judging, images_at_once(whole.module, _all_of(train.take(2))))
        adapt_norms(narrow, _all_of(train.take(most)))
    images = train.take(judging).batches(JUDGING_BATCH)
    set_gate_constants(pruned, narrow, structure, subnet.dropped, (batch for batch, _ in images))


def _all_of(split: Split) -> Tensor:
    """The images of a split, (N, C, H, W)."""
    return torch.cat([images for images, _ in split.batches(JUDGING_BATCH)])
