"""What is lost after a short training: the judge that NetAdapt asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edgeprune.data.split import Split
from edgeprune.errors import DataError
from edgeprune.models.answers import as_floats
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.search.judge import AdaptedLoss
from edgeprune.space.apply import apply
from edgeprune.space.subnet import Subnet
from edgeprune.tasks.task import Targets

RATE = 0.01  # at most, where re-training has a higher one: it starts where the model is
SHORT_STEPS = 12  # of training before a proposal is judged


def tuned_loss(judge: AdaptedLoss, recipe: Recipe, train: Split) -> TunedLoss:
    """A judge that trains each proposal on other images than it judges by.

    Raises:
        DataError: too few images are left for that.
    """
    size = len(judge.batches[0][0])
    batches = train.batches(size, seed=recipe.seed, augment=recipe.tune.augment)
    others = list(itertools.islice(batches, len(judge.batches), len(judge.batches) + SHORT_STEPS))
    if not (whole := [batch for batch in others if len(batch[0]) == size]):
        raise DataError(
            f"NetAdapt trains each proposal on {size} images or more that it is not judged by: of {len(train)} "
            f"training images too few are left beside prune.judging_images = {recipe.prune.judging_images}",
            hint="lower prune.judging_images, give more training images, or take prune.allocator = 'judged'",
        )
    return TunedLoss(judge, whole, recipe.tune)


class TunedLoss:
    """What a judge says after one step of SGD on each of some batches.

    Args:
        judge: whose model this is.
        batches: images (N, C, H, W) and targets, others than the judge's.
        settings: of re-training: learning rate, momentum, weight decay.
    """

    def __init__(self, judge: AdaptedLoss, batches: Iterable[tuple[Tensor, Targets]], settings: TuneSection) -> None:
        self._judge, self._settings, self._batches = judge, settings, list(batches)

    def __call__(self, subnet: Subnet) -> float:
        return self._judge.of(self._tuned(apply(self._judge.module, self._judge.structure, subnet)))

    def _tuned(self, model: nn.Module) -> nn.Module:
        settings = self._settings
        optimizer = torch.optim.SGD(
            model.parameters(), min(settings.lr, RATE), settings.momentum, weight_decay=settings.weight_decay
        )
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # dropout and the like: a proposal is judged alike whenever it is asked for
            for images, targets in self._batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
                    answers = as_floats(model(images))
                loss = self._judge.objective.loss(answers, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model.eval()
