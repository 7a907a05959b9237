"""The shapes of peers' test models: units are found, half of them are cut, and what is cut equals what is masked."""

from __future__ import annotations

import pytest
import torch
from peers_zoo import PEERS
from structure_zoo import image, randomized
from test_structure_exact import distance, some_units
from torch import nn

from edgeprune.models.answers import as_one
from edgeprune.models.attention import write_attention
from edgeprune.models.inputs import take_packed
from edgeprune.models.spec import InputSpec
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units

LEAST = 0.45  # of the parameters, with half of the units


class TwoInputs(nn.Module):
    """Two vectors through layers of their own, then both through layers that they share; two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.of_x, self.of_y = nn.Linear(12, 16), nn.Linear(9, 16)
        self.first, self.shared = nn.Linear(16, 24), nn.Linear(24, 16)
        self.one, self.other = nn.Linear(16, 3), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = torch.relu(self.of_x(x)), torch.relu(self.of_y(y))
        x, y = (self.shared(torch.relu(self.first(part))) for part in (x, y))
        return self.one(x + y), self.other(torch.cat([x, y], 1))


@pytest.mark.parametrize("name", PEERS)
def test_half_of_the_units_go_exactly(name: str) -> None:
    half_of_the_units_go_exactly(randomized(PEERS[name]()), image(), name)


def test_half_of_the_units_of_a_net_of_two_inputs_go_exactly() -> None:
    module = randomized(TwoInputs())
    take_packed(module, (InputSpec(name="x", shape=(12,)), InputSpec(name="y", shape=(9,))), "two inputs")
    half_of_the_units_go_exactly(module, torch.randn(3, 1, 1, 21, dtype=torch.float64), "two inputs")


def half_of_the_units_go_exactly(module: nn.Module, x: torch.Tensor, name: str) -> None:
    write_attention(module.eval(), x, name)
    structure = find_structure(module, x)
    removed = some_units(structure, 5, share=0.5)
    pruned = remove_units(module, structure, removed)
    with torch.no_grad():
        assert distance(as_one(pruned(x)), as_one(mask_units(module, structure, removed)(x))) < 1e-12
        assert distance(as_one(pruned(x)), as_one(module(x))) > 1e-6
    before, after = (sum(p.numel() for p in net.parameters()) for net in (module, pruned))
    assert after < (1 - LEAST) * before
    kept = {group.id: group.size - len(removed[group.id]) for group in structure.groups}
    assert find_structure(pruned, x).sizes == kept
