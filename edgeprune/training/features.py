"""Learning from what lies between a teacher's layers: the distance of the student's features to the teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import RecipeError, listed
from edgeprune.models.modes import evaluating

_TINY = torch.finfo(torch.float32).tiny


class Features(nn.Module):
    """Pairs of layers, one of the student and one of the teacher, of one name.

    Where a pair's widths differ, the student's features go through a projection, which learns beside the student and is
    no part of it.

    Args:
        student, teacher: on one device.
        images: (N, C, H, W), some dozens, to see what the layers answer.
        names: of layers; none: the last one at each size of its features.

    Raises:
        RecipeError: there is no such layer in both, or their features differ in more than their width.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, images: Tensor, names: Sequence[str] = ()) -> None:
        super().__init__()
        found = [_answers(module, images) for module in (student, teacher)]
        self.names = tuple(names) or _last_of_each_size(*found)
        if strange := [name for name in self.names if any(name not in answers for answers in found)]:
            raise RecipeError(
                f"no layer of student and teacher that answers one tensor is called {listed(strange)}",
                where="tune.feature_layers",
                hint="the unpruned model's names: edgeprune show units MODEL; leave it out for automatic pairs",
            )
        self.projections = nn.ModuleDict()
        self._axes: dict[str, int] = {}
        self._scales: dict[str, float] = {}  # of the same number for every batch and process
        for name in self.names:
            own, other = (answers[name].shape for answers in found)
            differ = [d for d in range(min(len(own), len(other))) if own[d] != other[d]]
            if len(own) != len(other) or len(differ) > 1 or 0 in differ:
                raise RecipeError(
                    f"the features of {name} are {tuple(own)} in the student and {tuple(other)} in the teacher",
                    where="tune.feature_layers",
                    hint="they may differ in their width alone: name other layers",
                )
            self._scales[name] = float(found[1][name].float().square().mean().clamp_min(_TINY))
            if differ:
                axis = self._axes[name] = differ[0]
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    self.projections[_key(name)] = nn.Linear(own[axis], other[axis], bias=False)
        self.to(images.device)
        self._taken: list[dict[str, Tensor]] = [{}, {}]

    @contextmanager
    def watching(self, student: nn.Module, teacher: nn.Module) -> Iterator[None]:
        """Within this context what their layers answer is taken."""
        with ExitStack() as stack:
            for module, taken in zip((student, teacher), self._taken, strict=True):
                taken.clear()
                for name in self.names:
                    handle = module.get_submodule(name).register_forward_hook(_Takes(taken, name))
                    stack.callback(handle.remove)
            yield

    def distance(self) -> Tensor:
        """The mean over the pairs of |student - teacher|^2, in units of what |teacher|^2 was on the first images."""
        return torch.stack([self._of(name) for name in self.names]).mean()

    def _of(self, name: str) -> Tensor:
        own, other = (taken[name].float() for taken in self._taken)
        if name in self._axes:
            axis = self._axes[name]
            own = self.projections[_key(name)](own.movedim(axis, -1)).movedim(-1, axis)
        return (own - other).square().mean() / self._scales[name]


class _Takes:
    """A forward hook that keeps an answer."""

    def __init__(self, into: dict[str, Tensor], name: str) -> None:
        self._into, self._name = into, name

    def __call__(self, _: nn.Module, __: Any, answer: Any) -> None:
        if isinstance(answer, Tensor):
            self._into[self._name] = answer


def _answers(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each layer answers, in the order in which they ran."""
    taken: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.no_grad(), evaluating(module):
        for name, part in module.named_modules():
            if name:
                stack.callback(part.register_forward_hook(_Takes(taken, name)).remove)
        module(images)
    return taken


def _last_of_each_size(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[str, ...]:
    """For each size of features (all but the batch and the width) the last layer that both have."""
    last: dict[tuple[int, ...], str] = {}
    for name, answer in student.items():
        if answer.ndim >= 3 and name in teacher and teacher[name].shape[2:] == answer.shape[2:]:
            last[tuple(answer.shape[2:])] = name
    if not last:
        raise RecipeError(
            "no layers of student and teacher have features of the same size",
            where="tune.features",
            hint="name pairs with tune.feature_layers, or leave tune.features out",
        )
    return tuple(last.values())


def _key(name: str) -> str:
    return name.replace(".", "/")  # no dot may be in a module's name
