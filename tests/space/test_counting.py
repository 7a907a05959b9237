"""What is counted on paper is what the real module has, before and after cutting."""

from __future__ import annotations

import pytest
import torch
from peers_zoo import ODD, PEERS
from structure_zoo import ZOO, image, randomized
from test_structure_exact import some_units

from edgeprune.latency.cost import MacsCost, ParameterCost, total
from edgeprune.reparam.merge import merge
from edgeprune.search.recount import real_macs
from edgeprune.space.counting import counted
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure

MODELS = {**ZOO, **PEERS, **ODD}
UNKNOWN_TO_TORCH = ("Paired",)  # bilinear: its counter knows no such operator


@pytest.mark.parametrize("name", MODELS)
def test_paper_is_what_the_module_has(name: str) -> None:
    module, x = randomized(MODELS[name]()), image(batch=1)
    structure = find_structure(module, x)
    removed = some_units(structure, 2, share=0.5)
    kept = {group.id: group.size - len(removed[group.id]) for group in structure.groups}
    for net, sizes in ((module, structure.sizes), (remove_units(module, structure, removed), kept)):
        weights = sum(parameter.numel() for parameter in merge(net, x).parameters())
        assert total(counted(structure, parameters=True).layers, sizes, ParameterCost()) == weights
        if name not in UNKNOWN_TO_TORCH:
            macs = total(counted(structure, parameters=False).layers, sizes, MacsCost())
            assert macs == real_macs(net, x)
    assert structure.uncounted == ()


def test_what_nobody_counts_is_named() -> None:
    class Distances(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.points = torch.nn.Linear(3, 6), torch.nn.Parameter(torch.randn(5, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -torch.cdist(self.fc(x.mean((2, 3))), self.points)

    (one,) = find_structure(randomized(Distances()), image()).uncounted
    assert "cdist" in one
