"""What is lost after a short training: the judge that NetAdapt asks."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.recipe import TuneSection
from edgeprune.search.judge import AdaptedLoss
from edgeprune.search.path import Removed
from edgeprune.space.apply import remove_branches, remove_units

RATE = 0.01  # at most, where re-training has a higher one: it starts where the model is


class TunedLoss:
    """What a judge says after one step of SGD on each of some batches.

    Args:
        judge: whose model this is.
        batches: images (N, C, H, W) and labels (N,), others than the judge's.
        settings: of re-training: learning rate, momentum, weight decay.
    """

    def __init__(self, judge: AdaptedLoss, batches: Iterable[tuple[Tensor, Tensor]], settings: TuneSection) -> None:
        self._judge, self._settings, self._batches = judge, settings, list(batches)

    def __call__(self, removed: Removed, branches: Collection[str]) -> float:
        structure = self._judge.structure
        pruned = remove_branches(remove_units(self._judge.module, structure, removed), structure, branches)
        return self._judge.of(self._tuned(pruned))

    def _tuned(self, model: nn.Module) -> nn.Module:
        settings = self._settings
        optimizer = torch.optim.SGD(
            model.parameters(), min(settings.lr, RATE), settings.momentum, weight_decay=settings.weight_decay
        )
        model.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # dropout and the like: a proposal is judged alike whenever it is asked for
            for images, labels in self._batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
                    logits = model(images).float()
                loss = F.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model.eval()
