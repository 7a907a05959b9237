"""Scores in nats: stretched to the measured rise of the loss, order kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeprune.pruning.magnitude import score_magnitude
from edgeprune.pruning.sensitivity import measure_sensitivity, stretch
from edgeprune.structure.find import find_structure
from edgeprune.structure.masks import mask_units


@given(
    scores=st.lists(st.floats(0, 100), min_size=4, max_size=40),
    rises=st.lists(st.floats(1e-6, 10), min_size=3, max_size=3),
)
def test_stretched_scores_keep_their_order_and_never_fall_short(scores: list[float], rises: list[float]) -> None:
    array = np.array(scores)
    order = np.argsort(array, kind="stable")
    counts = sorted({n for share in (0.25, 0.5, 0.75) if 0 < (n := round(share * len(array))) < len(array)})
    stretched = stretch(array, order, counts, rises[: len(counts)])
    assert np.isfinite(stretched).all()
    assert (np.diff(stretched[order]) >= 0).all()
    for count, rise in zip(counts, rises, strict=False):
        assert stretched[order][:count].sum() >= rise * (1 - 1e-6) - 1e-12


def test_convex_rises_are_met() -> None:
    scores = np.array([4.0, 1.0, 3.0, 2.0])
    stretched = stretch(scores, np.argsort(scores), [1, 2, 3], [0.1, 0.3, 0.8])
    assert np.cumsum(np.sort(stretched))[:3] == pytest.approx([0.1, 0.3, 0.8])


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.conv3, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(x + self.conv3(F.relu(self.conv2(x))))
        return self.head(x.mean((2, 3)))


def test_measured_rises_are_those_of_the_masked_model() -> None:
    torch.manual_seed(0)
    module, batch = Tiny().eval(), (torch.randn(32, 1, 6, 6), torch.randint(0, 3, (32,)))
    structure = find_structure(module, batch[0][:1])
    ranks = score_magnitude(module, structure)
    steps: list[tuple[int, int]] = []
    found = measure_sensitivity(module, structure, ranks, [batch], on_progress=lambda *s: steps.append(s))
    assert steps[-1][0] == steps[-1][1] == len(steps) == 3 * len(structure.groups) + len(structure.branches)

    def loss(net: nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(net(batch[0]), batch[1]))

    for group in structure.groups:
        lowest = np.argsort(ranks[group.id], kind="stable")[:4].tolist()
        rise = loss(mask_units(module, structure, {group.id: lowest})) - loss(module)
        assert np.sort(found.scores[group.id])[:4].sum() >= rise - 1e-5
    assert set(found.branch_scores) == {b.id for b in structure.branches} != set()
