"""Candidates that begin where they differ: the same numbers as when everything runs, whatever is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgeprune
from edgeprune.search.judge import AdaptedLoss
from edgeprune.search.prefix import Prefixes
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure

RESNET = f"{Path(__file__).parents[2] / 'examples' / 'cifar_resnet.py'}:resnet20"


class InPlace(nn.Module):
    """Activations in place at the top level, where a block's answer is written over: by one that is not idempotent."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.offset = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.norm(self.first(x)), inplace=True)
        x = nn.functional.hardswish(self.second(x), inplace=True) + self.offset
        x = x + nn.functional.hardswish(self.third(x), inplace=True)
        x = self.third(x)  # a layer that runs twice
        return self.head(x.mean((2, 3)))


def batches(side: int, classes: int, count: int = 2) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(4, 3, side, side), torch.randint(0, classes, (4,))) for _ in range(count)]


NETS: dict[str, tuple[nn.Module, Structure, int]] = {}


def net_of(name: str) -> tuple[nn.Module, Structure, int]:
    if name not in NETS:
        torch.manual_seed(0)
        if name == "in place":
            module, side = InPlace().eval(), 8
        else:
            side = 32
            options = {"input_size": (3, side, side)} | ({} if ":" in name else {"num_classes": 10})
            if name.startswith("vit"):
                options |= {"arguments": {"depth": 3, "img_size": side, "patch_size": 8}}
            module = edgeprune.load(name, **options).module.eval()  # type: ignore[arg-type]
        NETS[name] = module, find_structure(module, torch.randn(1, 3, side, side)), side
    return NETS[name]


NAMES = ["in place", RESNET, "mobilenetv3_small_050", "vit_tiny_patch16_224"]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_losses_are_the_same_bit_for_bit(name: str, data: st.DataObject) -> None:
    module, structure, side = net_of(name)
    classes = 4 if name == "in place" else 10
    judge, plain = (AdaptedLoss(module, structure, batches(side, classes)) for _ in range(2))
    plain.prefixes = Prefixes(module, structure, most_bytes=0)
    assert judge(WHOLE) == plain(WHOLE)
    groups = [group for group in structure.groups if group.size > 1]
    droppable = [branch.id for branch in structure.branches]
    subnet = WHOLE
    for _ in range(data.draw(st.integers(2, 4))):
        if droppable and data.draw(st.booleans()):
            branch = data.draw(st.sampled_from(droppable))
            subnet = Subnet(subnet.units, tuple(dict.fromkeys((*subnet.dropped, branch))))
        else:
            group = data.draw(st.sampled_from(groups))
            first = data.draw(st.integers(1, max(1, group.size // 2)))
            subnet = Subnet({**subnet.units, group.id: tuple(range(first))}, subnet.dropped)
        assert judge(subnet) == plain(subnet)
        assert judge(subnet) == plain(subnet)  # now that all of it is kept
    assert judge.prefixes.skipped > 0
    assert plain.prefixes.skipped == 0


def test_what_differs_late_runs_from_there_only() -> None:
    module, structure, side = net_of(RESNET)
    judge = AdaptedLoss(module, structure, batches(side, 10, count=1))
    judge(WHOLE)
    judge(WHOLE)  # kept now
    ran = judge.prefixes.ran
    judge(Subnet({"layer3.2.conv1:out": tuple(range(8))}))
    assert judge.prefixes.ran - ran == 2  # that block, and the classifier
    judge(Subnet({"layer1.0.conv1:out": (0,)}))
    assert judge.prefixes.ran - ran > 10


def test_no_more_is_kept_than_allowed() -> None:
    module, structure, side = net_of(RESNET)
    judge = AdaptedLoss(module, structure, batches(side, 10, count=1))
    judge.prefixes = Prefixes(module, structure, most_bytes=4 << 20)
    judge(WHOLE)
    for number in range(8):
        judge(Subnet({"layer3.2.conv1:out": (number,)}))
        assert judge.prefixes._bytes <= 4 << 20
    assert judge.prefixes.skipped > 0
