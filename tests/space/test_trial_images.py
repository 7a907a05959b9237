"""A model that takes long is tried with smaller images, where it does the same with them, and nothing is missed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.space.find import find_structure

LARGE, SMALL = (1, 3, 160, 160), (1, 3, 16, 16)


class Wide(nn.Module):
    """Takes long with large images; notes with which it runs, and not only is looked at."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 5, padding=2), nn.Conv2d(16, 16, 5, padding=2)
        self.c, self.head = nn.Conv2d(16, 16, 5, padding=2), nn.Linear(16, 4)
        self.ran: set[tuple[int, ...]] = set()
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> Wide:
        made = type(self)()
        memo[id(self)] = made
        made.load_state_dict(self.state_dict())
        for name, parameter in self.named_parameters():
            path, _, last = name.rpartition(".")
            setattr(made.get_submodule(path), last, memo.get(id(parameter), parameter))
        made.ran = self.ran
        return made

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.ran.add(tuple(x.shape))
        y = self.b(self.between(F.relu(self.a(x))))
        return self.head((y + self.c(F.relu(y))).mean((2, 3)))


class HardView(Wide):
    def between(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 4 * 4, *x.shape[2:]) + torch.zeros(16)[:, None, None]


class OddOnes(Wide):
    """Of each channel's neighbours, as the code spells them out: the pruned model runs, and computes something else."""

    def between(self, x: Tensor) -> Tensor:
        return x + x[:, :1] * (1 if x.shape[1] == 16 else 2)


class Positions(Wide):
    """One number for each place: other images are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.ones(160))

    def between(self, x: Tensor) -> Tensor:
        return x + self.places


class LargeOnly(Wide):
    """Large images go another way, where a width is spelt out."""

    def between(self, x: Tensor) -> Tensor:
        return x * torch.ones(16)[:, None, None] if x.shape[-1] > 100 else x


class Shrunken(Wide):
    """With smaller images one place would be left, which does not differ from the mean of all."""

    def between(self, x: Tensor) -> Tensor:
        y = F.avg_pool2d(x, 64)
        return x + (y - y.mean((2, 3), keepdim=True)).amax((2, 3), keepdim=True)


def places(module: Wide) -> set[int]:
    return {shape[-1] for shape in module.ran}


class Several(nn.Module):
    """Of several images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3), nn.Linear(8, 4)

    def between(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(self.between(F.relu(self.a(x))))).mean((2, 3)))


class Second(Several):
    """Only the first is computed as it was, once the width is another."""

    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:1], x[1:] * (1 if x.shape[1] == 16 else 2)])


class Mixing(Several):
    """Their answers hang together."""

    def between(self, x: Tensor) -> Tensor:
        return x + x.mean(0, keepdim=True)


@pytest.mark.parametrize("cls", [Wide, HardView, OddOnes])
def test_smaller_images_tell_the_same(cls: type[Wide]) -> None:
    large, small = cls(), cls()
    found, same = find_structure(large, torch.zeros(LARGE)), find_structure(small, torch.zeros(SMALL))
    assert (places(large) - {160}, places(small)) == ({64}, {16})
    assert (found.sizes, found.branches) == (same.sizes, same.branches)
    assert [entry.name for entry in found.frozen] == [entry.name for entry in same.frozen]
    assert ("a:out" in found.sizes) is (cls is Wide)
    if cls is Wide:
        assert large.ran == {(2, 3, 64, 64), (1, 3, 64, 64)}  # two, of which the masked model sees the last


def test_what_goes_wrong_with_the_second_image_alone_is_seen() -> None:
    assert "a:out" not in find_structure(Second(), torch.zeros(SMALL)).sizes


def test_a_model_that_mixes_its_images_is_tried_with_all_of_them() -> None:
    assert find_structure(Mixing(), torch.zeros(SMALL)).sizes == {"a:out": 16, "b:out": 8}


@pytest.mark.parametrize("cls", [Positions, LargeOnly, Shrunken])
def test_where_the_model_does_something_else_with_smaller_ones_it_is_tried_as_it_was_given(cls: type[Wide]) -> None:
    module = cls()
    found = find_structure(module, torch.zeros(LARGE))
    assert places(module) == {160}
    assert found.branches
    assert ("a:out" in found.sizes) is (cls is not LargeOnly)
