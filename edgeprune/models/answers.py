"""What a model answers, whatever its author wraps it in: inside of EdgePrune a tensor, or a flat tuple of tensors.

A model of several outputs returns tuples, lists, dicts or dataclasses. A hook takes the tensors out of them, in order,
so that everything after it (tracing, exported files, a device's answers) speaks of outputs by number and name. Tasks
get the author's own structure back.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.models.factory import fixed_seed, users_code
from edgeprune.models.inputs import how_to_give, told

ONLY = "output"  # the name of the one output of a model that answers a tensor
Answers = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Form:
    """How the tensors of an answer lie in what the model's author returns.

    Args:
        names: of the outputs: a dict's keys, a dataclass's fields, the numbers of a tuple; "output" of a single one.
        spec: of the structure.
        others: leaves of it that are no tensors (None, a number) by position: the same in every answer.
    """

    names: tuple[str, ...]
    spec: pytree.TreeSpec
    others: tuple[tuple[int, Any], ...] = ()

    @classmethod
    def of(cls, answer: object) -> Form:
        """The form of an answer."""
        _register_dataclasses(answer)
        leaves, spec = pytree.tree_flatten_with_path(answer)
        tensors = [path for path, leaf in leaves if isinstance(leaf, Tensor)]
        others = tuple((i, leaf) for i, (_, leaf) in enumerate(leaves) if not isinstance(leaf, Tensor))
        return cls(_names([pytree.keystr(path) for path in tensors]), spec, others)

    @classmethod
    def named(cls, names: tuple[str, ...]) -> Form:
        """The form of outputs of these names alone: a tensor, or with several a dict."""
        if len(names) == 1:
            return cls(names, PLAIN.spec)
        return cls(names, Form.of(dict.fromkeys(names, torch.empty(0))).spec)

    @property
    def is_plain(self) -> bool:
        """Whether the author returns one tensor, in nothing."""
        return self.spec.is_leaf()

    def flat(self, answer: object) -> Answers:
        """The tensors of an answer of this form: one alone, or several as a tuple."""
        tensors = tuple(leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor))
        return tensors[0] if len(tensors) == 1 else tensors

    def whole(self, answers: Answers | Sequence[Tensor]) -> Any:
        """The author's structure around these tensors."""
        leaves: list[Any] = list(outputs_of(answers))
        for place, other in self.others:
            leaves.insert(place, other)
        return pytree.tree_unflatten(leaves, self.spec)


class _TakesTensorsOut:
    """A forward hook."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def __call__(self, _: nn.Module, __: Any, answer: object) -> Answers:
        return self.form.flat(answer)


def answer_flat(module: nn.Module, example: Tensor, where: str) -> Form:
    """Let a module answer with a tensor or a flat tuple of them from now on, in place; returns the form that its author
    gave the answer.

    Raises:
        ModelError: it does not run on the example, or its answer holds no tensors, or one that is not a float.
    """
    if (form := form_of(module)) is not None:
        return form
    what = f"the model does not run on {told(module, example)}"
    with fixed_seed(), torch.no_grad(), users_code(what, where, how_to_give(module)):
        answer = module(example.clone())
    form = Form.of(answer)
    if not form.names:
        raise ModelError(
            f"the model answers {type(answer).__name__}, which holds no tensor",
            where=where,
            hint="let it return a tensor, or tensors in a tuple, list, dict or dataclass",
        )
    if not form.is_plain:
        module.register_forward_hook(_TakesTensorsOut(form))
    return form


def form_of(module: nn.Module) -> Form | None:
    """The form that a module's author gave its answer, where `answer_flat` changed it."""
    hooks = module._forward_hooks.values()
    return next((hook.form for hook in hooks if isinstance(hook, _TakesTensorsOut)), None)


def outputs_of(answers: Answers | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs, in order."""
    return (answers,) if isinstance(answers, Tensor) else tuple(answers)


def tensors_in(answer: object) -> list[Tensor]:
    """The tensors of what any module answers: one, or those of a tuple, list or dict, in order."""
    return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor)]


def as_one(answers: Answers) -> Tensor:
    """All numbers of an answer, (images, numbers), to be held against another answer of the same model."""
    outputs = outputs_of(answers)
    return outputs[0] if len(outputs) == 1 else torch.cat([output.flatten(1) for output in outputs], 1)


def as_floats(answers: Answers) -> Answers:
    """The same outputs in float32, whatever they were computed in."""
    return answers.float() if isinstance(answers, Tensor) else tuple(output.float() for output in answers)


def detached(answers: Answers) -> Answers:
    """The same outputs, without a way back to what computed them."""
    return answers.detach() if isinstance(answers, Tensor) else tuple(output.detach() for output in answers)


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names that a user would write: "out" for ['out'], "boxes.0" for .boxes[0]."""
    if len(paths) == 1 and not paths[0]:
        return (ONLY,)
    return tuple(".".join(re.findall(r"[^\[\].'\"]+", path)) or f"output{i}" for i, path in enumerate(paths))


def _register_dataclasses(answer: object) -> None:
    """Let torch look into dataclasses, which it takes for leaves unless they are registered."""
    for leaf in pytree.tree_leaves(answer):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            pytree.register_dataclass(type(leaf))
            _register_dataclasses(leaf)


PLAIN = Form.of(torch.empty(0))
"""Of a model that answers one tensor, in nothing."""
