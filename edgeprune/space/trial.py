"""Trials: does a pruned model compute what the masked one computes?

The models are tried with weights that all count: a new network's zero gains and a layer scale of 1e-6 would hide
whatever is wrong behind them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils import _pytree as pytree

from edgeprune.graph.flow import Flow
from edgeprune.graph.labels import Labels
from edgeprune.graph.record import follow_as
from edgeprune.graph.sharing import copy_sharing
from edgeprune.graph.trace import TRACE_ERRORS
from edgeprune.models.answers import tensors_in
from edgeprune.models.modes import evaluating

SAME = 1e-4  # of the largest value: what single precision leaves equal
_SMALLER, _STEP = 0.4, 32  # of an image's sides, in steps that strides divide
_MACS_PER_NODE = 5e6  # to follow a node takes as long as so much arithmetic in all trials
Forms = dict[str, list[Any]]  # module -> its answers in the order of its calls, without values
NOTHING = 1e-3  # parameters that are all smaller than this hide what they multiply


def lively(module: nn.Module) -> nn.Module:
    """A copy of a module in eval mode whose tiny parameters (zero gains, layer scales) are drawn anew, always alike.

    The other parameters are the module's own: a trial changes none.
    """
    tiny = {name for name, parameter in module.named_parameters() if _is_tiny(parameter)}
    kept = (parameter for name, parameter in module.named_parameters() if name not in tiny)
    copied = copy_sharing(module, kept).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if name in tiny:
                drawn = torch.randn(parameter.shape, generator=generator)
                if "bias" in name.rpartition(".")[2]:
                    drawn *= 0.1
                elif parameter.ndim > 1:
                    drawn *= parameter[0].numel() ** -0.5
                else:  # a gain
                    drawn = 1 + drawn.tanh() / 2
                parameter.copy_(drawn)
    return copied


def _is_tiny(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or not parameter.numel():
        return False
    least, most = torch.aminmax(parameter.detach())
    return max(-float(least), float(most)) < NOTHING


class TrialImages:
    """Random numbers in the place of images, always the same: two of them where the module takes as many.

    Args:
        module: takes them.
        size: (images, channels, ...): at least so many.
        like: of their dtype and device.
    """

    def __init__(self, module: nn.Module, size: Sequence[int], like: Tensor) -> None:
        self._module, self._least = module, size[0]
        shape = (max(2, size[0]), *size[1:])
        self.x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)
        self.forms: Forms = {}  # of the answers to the last image alone, once a masked model was asked
        self._taken = len(self.x) == self._least  # whether the module takes as many is known

    def hold(self, check: Callable[[Tensor], bool]) -> bool:
        """Whether something holds with these images; it is asked again with fewer where the module takes no more, and
        does not hold where the module fails."""
        if check(self.x):
            self._taken = True
            return True
        if self._taken:
            return False
        self._taken = True
        try:
            answers(self._module, self.x)
        except TRACE_ERRORS:
            self.x = self.x[: self._least]
            return check(self.x)
        return False


def trial_size(flow: Flow, module: nn.Module, example: Tensor, macs: float) -> tuple[int, ...]:
    """The size of the images that a model is tried with: smaller ones than it was traced with, where it does the same
    with them, and where to find that out is less work than to run it.

    With them the same operators run, in the same order, on as many channels and on values of as many dimensions, none
    of which shrinks to one: what a removed channel does wrong with large images, it does with those.

    Args:
        flow: the model, traced with `example`.
        macs: what it takes with one image.
    """
    size = tuple(example.shape)
    small = (*size[:2], *(min(n, _STEP * math.ceil(_SMALLER * n / _STEP)) for n in size[2:]))
    if small == size or macs < _MACS_PER_NODE * len(flow.trace.graph.nodes):
        return size
    try:
        other = follow_as(flow.trace, module, example.new_empty(small))
    except TRACE_ERRORS:
        return size
    nodes, others = (list(trace.graph.nodes) for trace in (flow.trace, other))
    alike = len(nodes) == len(others) and all(_alike(flow, *pair) for pair in zip(nodes, others, strict=True))
    return small if alike else size


def _alike(flow: Flow, node: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes are the same operator, with the same channels."""
    if (node.op, node.target if node.op == "call_function" else node.name) != (
        other.op,
        other.target if other.op == "call_function" else other.name,
    ):
        return False
    value, labelled = node.meta.get("val"), flow.values.get(node, ())
    pairs = zip(
        *(v if isinstance(v, list | tuple) else [v] for v in (value, other.meta.get("val"))),
        labelled if isinstance(labelled, list) else [labelled],
        strict=False,
    )
    return all(_same_channels(one, two, labels) for one, two, labels in pairs if isinstance(one, Tensor))


def _same_channels(one: Tensor, other: Tensor, labels: Labels) -> bool:
    if one.ndim != other.ndim:
        return False
    dims = zip(one.shape, other.shape, labels or (None,) * one.ndim, strict=True)
    return all(a == b if label is not None else (a > 1) == (b > 1) for a, b, label in dims)


def agree(pruned: nn.Module, masked: nn.Module, x: Tensor, forms: Forms | None = None) -> bool:
    """Whether a pruned model runs and answers what the masked one does.

    Args:
        forms: filled in with what the masked model's modules answer to the last image alone, where that is asked.
    """

    def reference(part: Tensor) -> list[Tensor]:
        with _noting(masked, forms) if forms is not None and len(part) == 1 else nullcontext():
            return answers(masked, part)

    try:
        same = same_answers(answers(pruned, x), reference, x)
    except TRACE_ERRORS:
        return False
    return same or difference_in_double(pruned, masked, x) <= SAME


def same_answers(given: list[Tensor], reference: Callable[[Tensor], list[Tensor]], x: Tensor) -> bool:
    """Whether what was answered to some images is what a reference answers.

    It is asked for the last image alone: what code gets wrong of several images shows there. Where that is another
    answer (a model may mix its images), it is asked for all of them.
    """
    if len(x) > 1 and all(t.ndim and len(t) == len(x) for t in given):
        try:
            if difference([t[-1:] for t in given], reference(x[-1:])) <= SAME:
                return True
        except TRACE_ERRORS:  # it does not take one image
            pass
    return difference(given, reference(x)) <= SAME


@contextmanager
def _noting(module: nn.Module, forms: Forms) -> Iterator[None]:
    """Note what modules answer within this context, without values."""
    names = {part: name for name, part in module.named_modules()}
    forms.clear()

    def note(part: nn.Module, _: object, answer: Any) -> None:
        if part in names:
            ghost = pytree.tree_map_only(Tensor, lambda t: torch.empty_like(t, device="meta"), answer)
            forms.setdefault(names[part], []).append(ghost)

    handle = register_module_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def idle(module: nn.Module, names: Iterable[str], forms: Forms, like: Tensor) -> Iterator[None]:
    """Within this context these modules answer zeros of the form that they are known to answer, and compute nothing;
    those of which none is known compute as ever."""
    with ExitStack() as stack:
        for name in names:
            if name in forms:
                stack.enter_context(_answering(module.get_submodule(name), forms[name], like))
        yield


@contextmanager
def _answering(part: nn.Module, known: Iterable[Any], like: Tensor) -> Iterator[None]:
    own, computed, waiting = vars(part).get("forward"), part.forward, iter(known)

    def forward(*args: Any, **kwargs: Any) -> Any:
        for form in waiting:
            return pytree.tree_map_only(Tensor, lambda t: torch.zeros_like(t, device=like.device), form)
        return computed(*args, **kwargs)

    part.forward = forward
    try:
        yield
    finally:
        del part.forward
        if own is not None:
            part.forward = own


def difference_in_double(pruned: nn.Module, masked: nn.Module, x: Tensor) -> float:
    """The difference in float64 (deep nets blow single precision's rounding up); infinite where a model has none."""
    left, right = (copy.deepcopy(module).double() for module in (pruned, masked))
    try:
        return difference(answers(left, x.double()), answers(right, x.double()))
    except TRACE_ERRORS:
        return float("inf")


def answers(module: nn.Module, x: Tensor) -> list[Tensor]:
    """What a module answers in eval mode."""
    with evaluating(module), torch.no_grad():
        return tensors_in(module(x))


def difference(given: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference between answers, relative to the largest value of each; infinite where shapes differ or a
    value is not finite in one of them only."""
    if [t.shape for t in given] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for got, want in zip(given, wanted, strict=True):
        if got.is_floating_point() and got.numel() and not torch.equal(got, want):
            gap = torch.where((got == want) | (got.isnan() & want.isnan()), 0, (got - want).abs())
            worst = max(worst, float(gap.nan_to_num(nan=float("inf")).max()) / (float(want.abs().max()) or 1.0))
    return worst
