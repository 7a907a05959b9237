"""The judge: the loss of the model that stays, its batch norms adapted to the judged images."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from facts import refused
from torch import nn

import edgeprune
from edgeprune.data.open import open_data
from edgeprune.errors import ModelError
from edgeprune.methods.registry import judge_of
from edgeprune.recipe import DataSection, PruneSection, TuneSection
from edgeprune.search.judge import AdaptedLoss
from edgeprune.space.branches import remove_branches
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import WHOLE, Subnet


class Net(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.conv3, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(x + self.conv3(F.relu(self.norm2(self.conv2(x)))))
        return self.head(x.mean((2, 3)))


def data(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(n, 1, 6, 6), torch.randint(0, 3, (n,))) for n in sizes]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("branch", [True, False])
def test_is_the_loss_of_the_pruned_model_with_the_batch_statistics(norm: bool, branch: bool) -> None:
    torch.manual_seed(0)
    module = Net(norm).eval()
    batches = data(32, 16)
    structure = find_structure(module, batches[0][0][:1])
    before = copy.deepcopy(module.state_dict())
    removed = {group.id: (0, 3, 5) for group in structure.groups}
    branches = tuple(b.id for b in structure.branches) if branch else ()
    judged = AdaptedLoss(module, structure, batches)(Subnet(removed, branches))
    pruned = remove_branches(remove_units(module, structure, removed), structure, branches).train()
    with torch.no_grad():
        losses = [F.cross_entropy(pruned(x), y, reduction="sum") for x, y in batches]
    assert structure.groups
    assert structure.branches
    assert judged == pytest.approx(float(sum(losses)) / 48, rel=1e-5)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(part.training for part in module.modules())


def test_a_model_whose_loss_is_no_number_is_told() -> None:
    module, batches = Net(True).eval(), data(4)
    judge = AdaptedLoss(module, find_structure(module, batches[0][0][:1]), batches)
    judge.check()
    with torch.no_grad():
        module.head.weight.fill_(3e38)
    with refused(ModelError, "loss"):
        judge.check()


@pytest.mark.parametrize(("asked", "sizes"), [(32, [32]), (200, [100, 100]), (256, [128, 128]), (300, [150, 150])])
def test_as_many_images_judge_as_were_asked_for(asked: int, sizes: list[int]) -> None:
    made = edgeprune.load(
        f"{Path(__file__).parents[1] / 'pipeline' / 'two_convolutions.py'}:net", input_size=(1, 16, 16)
    )
    structure, settings = find_structure(made.module, made.example_input()), PruneSection(judging_images=asked)
    train = open_data(DataSection(source="digits"), made.spec, seed=0).train
    judge = judge_of(made, structure, settings, TuneSection(), train)
    assert [len(labels) for _, labels in judge.batches] == sizes


def test_a_batch_of_one_image_is_judged_with_the_models_own_statistics() -> None:
    torch.manual_seed(0)
    module, batches = Net(True).eval(), data(1)
    structure = find_structure(module, batches[0][0])
    with torch.no_grad():
        expected = float(F.cross_entropy(module(batches[0][0]), batches[0][1]))
    assert AdaptedLoss(module, structure, batches)(WHOLE) == pytest.approx(expected, rel=1e-5)


def test_adapting_undoes_what_pruning_does_to_the_statistics() -> None:
    """Scaling a layer by ten changes nothing once the norm after it has adapted; without that it changes all."""
    torch.manual_seed(0)
    module, batches = Net(True).eval(), data(64)
    structure = find_structure(module, batches[0][0][:1])
    plain = AdaptedLoss(module, structure, batches)(WHOLE)
    with torch.no_grad():
        module.conv2.weight.mul_(10)
        module.conv2.bias.mul_(10)
    assert AdaptedLoss(module, structure, batches)(WHOLE) == pytest.approx(plain, rel=1e-3)
