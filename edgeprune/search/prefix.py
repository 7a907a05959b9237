"""What a model computes before its first change is kept, so that a candidate begins where it differs.

Most candidates of a choice differ from one that was judged before in a few layers, often late ones. A model is seen as
blocks in the order in which they run. As long as a candidate's blocks are cut as those of an earlier model, they are
not run: their answers are those that were kept. What runs between blocks, in the code of the model, runs all the same.
The answers are the same numbers as without, whatever is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from torch import Tensor, nn

from edgeprune.models.answers import Answers
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Structure

SHARE_OF_MEMORY = 0.15  # of what is free, for all that is kept
PARTS = 16  # a block has at most this part of the model's layers, or
LEAST_LAYERS = 6  # so many


@dataclass
class _Judged:
    """A model that was judged: how each block was cut, and what it answered, by batch."""

    cuts: tuple[int, ...]  # a number for each way to cut a block
    answers: dict[int, list[Tensor]] = field(default_factory=dict)


class Prefixes:
    """Runs pruned copies of one model, each from its first difference on.

    Args:
        module: the unpruned model, in eval mode.
        structure: what can go from it.
        most_bytes: of answers that are kept; a share of the free memory unless given.
    """

    def __init__(self, module: nn.Module, structure: Structure, *, most_bytes: int | None = None) -> None:
        self._most = most_bytes if most_bytes is not None else int(SHARE_OF_MEMORY * psutil.virtual_memory().available)
        self._candidates = _blocks_of(module)
        self._structure = structure
        self._blocks: tuple[str, ...] | None = None  # in the order of their runs; known after the first
        self._changed: frozenset[str] = frozenset()  # blocks whose answers are written over later
        self._touching: dict[str, tuple[list[str], list[str]]] = {}
        self._numbers: dict[object, int] = {}
        self._kept: OrderedDict[str, _Judged] = OrderedDict()  # the least used first
        self.skipped = self.ran = 0  # blocks, for those who want to know

    def run(self, pruned: nn.Module, subnet: Subnet, batch: int, images: Tensor) -> Answers:
        """What a pruned copy answers to a batch of images.

        Args:
            subnet: what is gone from the copy.
            batch: a number that stands for these images.
        """
        if self._blocks is None and subnet:  # what the blocks are is seen on the whole model
            whole: Answers = pruned(images)
            return whole
        if self._blocks is None:
            answer, order, changed = _watched(pruned, self._candidates, images)
            self._blocks, self._changed = order, changed
            self._touching = {block: self._touched(block) for block in order}
            return answer
        cuts = self._cuts(subnet)
        source, count = self._longest(cuts, batch)
        mine = self._kept.get(subnet.key) or _Judged(cuts)
        known = source.answers[batch][:count] if source is not None else []
        answers: list[Tensor] = []
        with self._replaced(pruned, known, answers):
            result: Answers = pruned(images)
        if len(answers) == len(self._blocks):
            mine.answers[batch] = answers
            self._keep(subnet.key, mine)
        return result

    def _touched(self, block: str) -> tuple[list[str], list[str]]:
        """The groups and the branches whose going changes a block, or something that is in none."""
        assert self._blocks is not None
        structure = self._structure
        places: dict[str, set[str]] = {
            group.id: {member.name for member in (*group.produced, *group.consumed, *group.normalized)}
            for group in structure.groups
        }
        followers: list[tuple[str, Sequence[str]]] = [
            *((one.module, one.value.groups) for one in structure.attributes),
            *((one.module, one.value.groups) for one in structure.code_sizes),
            *((one.module, one.groups) for one in structure.switches),
            *((one.module, one.groups) for one in structure.recasts),
        ]
        for module, groups in followers:
            for name in groups:
                places.setdefault(name, set()).add(module)
        branches = {branch.id: {branch.output, *branch.modules} for branch in structure.branches}
        return [name for name, paths in places.items() if self._is_near(block, paths)], [
            name for name, paths in branches.items() if self._is_near(block, paths)
        ]

    def _is_near(self, block: str, paths: Iterable[str]) -> bool:
        assert self._blocks is not None
        return any(
            _inside(path, block) or _inside(block, path) or not any(_inside(path, other) for other in self._blocks)
            for path in paths
        )

    def _cuts(self, subnet: Subnet) -> tuple[int, ...]:
        """How a subnet cuts each block."""
        assert self._blocks is not None
        cuts = (
            (
                tuple((name, tuple(subnet.units[name])) for name in groups if subnet.units.get(name)),
                tuple(name for name in branches if name in subnet.dropped),
            )
            for groups, branches in (self._touching[block] for block in self._blocks)
        )
        return tuple(self._numbers.setdefault(cut, len(self._numbers)) for cut in cuts)

    def _longest(self, cuts: tuple[int, ...], batch: int) -> tuple[_Judged | None, int]:
        """The model that was judged with the most first blocks alike, and how many."""
        best, most = None, 0
        for name, judged in self._kept.items():
            if batch in judged.answers:
                alike = next((n for n, (a, b) in enumerate(zip(cuts, judged.cuts, strict=True)) if a != b), len(cuts))
                if alike > most:
                    best, most = name, alike
        if best is None:
            return None, 0
        self._kept.move_to_end(best)
        return self._kept[best], most

    def _keep(self, name: str, judged: _Judged) -> None:
        self._kept[name] = judged
        self._kept.move_to_end(name)
        while self._kept and self._bytes > self._most:
            self._kept.popitem(last=False)

    @property
    def _bytes(self) -> int:
        """Of all answers that are kept; many are of several models."""
        kept = (answer for one in self._kept.values() for answers in one.answers.values() for answer in answers)
        return sum(
            answer.numel() * answer.element_size() for answer in {id(answer): answer for answer in kept}.values()
        )

    @contextmanager
    def _replaced(self, pruned: nn.Module, known: Sequence[Tensor], answers: list[Tensor]) -> Iterator[None]:
        """Within this context the first blocks answer what is known, and all answers are taken."""
        assert self._blocks is not None
        parts = [pruned.get_submodule(block) for block in self._blocks]
        before = [part.__dict__.get("forward") for part in parts]
        for number, (block, part) in enumerate(zip(self._blocks, parts, strict=True)):
            copied = block in self._changed
            if number < len(known):
                instead = self._known(known[number], answers, copied=copied)
            else:
                instead = self._taking(part.forward, answers, copied=copied)
            part.__dict__["forward"] = instead
        try:
            yield
        finally:
            for part, own in zip(parts, before, strict=True):
                del part.__dict__["forward"]
                if own is not None:
                    part.__dict__["forward"] = own

    def _known(self, answer: Tensor, answers: list[Tensor], *, copied: bool) -> Callable[..., Tensor]:
        def forward(*_: Any, **__: Any) -> Tensor:
            answers.append(answer)
            self.skipped += 1
            return answer.clone() if copied else answer

        return forward

    def _taking(self, compute: Callable[..., Tensor], answers: list[Tensor], *, copied: bool) -> Callable[..., Tensor]:
        def forward(*arguments: Any, **named: Any) -> Tensor:
            answer = compute(*arguments, **named)
            answers.append(answer.clone() if copied else answer)
            self.ran += 1
            return answer

        return forward


def _blocks_of(module: nn.Module) -> tuple[str, ...]:
    """Parts of a model of a few layers each, none within another."""
    most = max(LEAST_LAYERS, _layers(module) // PARTS)

    def within(part: nn.Module, path: str) -> Iterator[str]:
        for name, child in part.named_children():
            if _layers(child) > most:
                yield from within(child, f"{path}{name}.")
            elif _layers(child):
                yield f"{path}{name}"

    return tuple(within(module, ""))


def _layers(module: nn.Module) -> int:
    """Modules with parameters of their own."""
    return sum(1 for part in module.modules() if any(True for _ in part.parameters(recurse=False)))


def _watched(
    module: nn.Module, candidates: Iterable[str], images: Tensor
) -> tuple[Answers, tuple[str, ...], frozenset[str]]:
    """What a model answers; the blocks that ran once and answered one tensor, in order; and those of them whose answer
    was written over later (an activation in place)."""
    calls: list[tuple[str, Any, int]] = []

    def take(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, answer: Any) -> None:
            calls.append((name, answer, answer._version if isinstance(answer, Tensor) else 0))

        return hook

    handles = [module.get_submodule(name).register_forward_hook(take(name)) for name in candidates]
    try:
        result: Answers = module(images)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _, _ in calls]
    once = [call for call in calls if names.count(call[0]) == 1 and isinstance(call[1], Tensor)]
    changed = frozenset(name for name, answer, version in once if answer._version != version)
    return result, tuple(name for name, _, _ in once), changed


def _inside(path: str, block: str) -> bool:
    return path == block or path.startswith(f"{block}.")
