"""The shapes of peers' test models: units are found, half of them are cut, and what is cut equals what is masked."""

from __future__ import annotations

import pytest
import torch
from peers_zoo import PEERS
from structure_zoo import image, randomized
from test_structure_exact import distance, some_units

from edgeprune.models.attention import write_attention
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units

LEAST = 0.45  # of the parameters, with half of the units


@pytest.mark.parametrize("name", PEERS)
def test_half_of_the_units_go_exactly(name: str) -> None:
    module, x = randomized(PEERS[name]()), image()
    write_attention(module.eval(), x, name)
    structure = find_structure(module, x)
    removed = some_units(structure, 5, share=0.5)
    pruned = remove_units(module, structure, removed)
    with torch.no_grad():
        assert distance(pruned(x), mask_units(module, structure, removed)(x)) < 1e-12
        assert distance(pruned(x), module(x)) > 1e-6
    before, after = (sum(p.numel() for p in net.parameters()) for net in (module, pruned))
    assert after < (1 - LEAST) * before
    kept = {group.id: group.size - len(removed[group.id]) for group in structure.groups}
    assert find_structure(pruned, x).sizes == kept
