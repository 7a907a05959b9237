"""What is taken from a checkpoint's tree: the one mapping of tensors that is the model's, whatever it lies in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from edgeprune.errors import ModelError, listed

Weights = Literal["ema", "raw"]
_DEPTH, _LISTED, _FACTS, _PREFIXES = 6, 5, 64, 4
_WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_COUNTER = "num_batches_tracked"  # older checkpoints have none, and inference ignores it
_BESIDE = re.compile(r"n_averaged|_extra_state|loss|criterion|metric|acc(uracy)?(\b|_)", re.IGNORECASE)


@dataclass(frozen=True)
class Taken:
    """A mapping that fits the model: the model's names, where it was, and what lay beside it."""

    tensors: Mapping[str, torch.Tensor]
    place: tuple[str, ...]  # keys from the top of the tree
    prefixes: tuple[str, ...]  # taken off its names
    left: tuple[str, ...] = ()  # names that are not the model's

    @property
    def is_ema(self) -> bool:
        return self._speaks_of("ema", "shadow")

    @property
    def is_average(self) -> bool:
        return self.is_ema or self._speaks_of("swa", "averaged", "average", "avg")

    def _speaks_of(self, *words: str) -> bool:
        parts = re.split(r"[^a-z]+", ".".join((*self.place, *self.prefixes)).lower())
        return any(part in words for part in parts)

    @property
    def where(self) -> str:
        at = "the file itself" if not self.place else f"`{'.'.join(self.place)}`"
        off = " and ".join(f"`{prefix}`" for prefix in self.prefixes if prefix)
        return f"{at}, names without {off}" if off else at


def take(
    tree: Any, own: Mapping[str, torch.Tensor], *, where: str, weights: Weights | None = None
) -> tuple[Taken, str]:
    """The mapping of a tree that is a model's state, and what was chosen, in words ("" where there was no choice).

    Args:
        own: the model's state dict.
        weights: where averaged and raw weights lie beside each other: which are meant. Without it the EMA is taken, as
            timm does.

    Raises:
        ModelError: no mapping fits (the differences of the nearest are listed); several do, with different values, and
            nothing says which is meant.
    """
    states = list(_states(tree))
    if not states:
        held = type(tree).__name__ if not isinstance(tree, Mapping) else "mapping without tensors"
        raise ModelError(
            f"the checkpoint holds a {held}, not a state dict", where=where, hint="save model.state_dict()"
        )
    fitting = [taken for place, state in states for taken in _fits(place, state, own)]
    if not fitting:
        unwrapped = [(place, off, state) for place, named in states for off, state in _unwrapped(named, own)]
        fitting = [
            replace(taken, prefixes=(*taken.prefixes, *off))
            for place, off, state in unwrapped
            for taken in _fits(place, state, own)
        ]
    if not fitting:
        raise _nearest(states, own, where)
    chosen, note = _choose(fitting, weights, where)
    words = []
    if chosen.place or any(chosen.prefixes):
        words.append(f"weights taken from {chosen.where}{note}")
    if chosen.left:
        words.append(f"left out, for they are not the model's: {listed(chosen.left, _LISTED)}")
    return chosen, "; ".join(words)


def facts_of(tree: Any) -> dict[str, float | int | str | bool]:
    """The plain values that a checkpoint states beside its tensors: its epoch, its accuracy."""
    found: dict[str, float | int | str | bool] = {}
    if not isinstance(tree, Mapping):
        return found
    nested = [value for key, value in tree.items() if isinstance(value, Mapping) and "metric" in str(key).lower()]
    for mapping in (*nested, tree):
        for name, value in mapping.items():
            scalar = isinstance(value, torch.Tensor | np.generic) and value.ndim == 0 and "." not in str(name)
            plain = value.item() if scalar else value
            if isinstance(plain, float | int | str | bool) and len(found) < _FACTS:
                found[str(name)] = plain
    return found


def _states(tree: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Each mapping that has tensors, from the outside in."""
    if not isinstance(tree, Mapping) or len(place) > _DEPTH:
        return
    state = {name: value for name, value in tree.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}
    if state:
        yield place, state
    for name, value in tree.items():
        if isinstance(name, str):
            yield from _states(value, (*place, name))


def _fits(
    place: tuple[str, ...], state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Iterator[Taken]:
    """The ways to read a mapping as the model's state: under one prefix, or each part under its own (`backbone.`)."""
    prefixes = _prefixes(state, own)
    whole = {prefix: taken for prefix in prefixes if (taken := _under(prefix, state, own)) is not None}
    if whole:
        for prefix, taken in whole.items():
            beyond = tuple(n for n in state if not any(n.startswith(p) and n[len(p) :] in own for p in whole))
            if not any(name.startswith(prefix) and not _BESIDE.search(name) for name in beyond):
                yield Taken(taken, place, (prefix,) if prefix else (), beyond)
        return
    keys = {name: [p + name for p in prefixes if _same(state.get(p + name), own[name])] for name in own}
    if all(len(found) == 1 or (not found and name.endswith(_COUNTER)) for name, found in keys.items()):
        key_of = {name: found[0] for name, found in keys.items() if found}
        off = sorted({key.removesuffix(name) for name, key in key_of.items()})
        left = tuple(name for name in state if name not in set(key_of.values()))
        if len(off) <= _PREFIXES and all(_BESIDE.search(name) for name in left):
            yield Taken({name: state[key] for name, key in key_of.items()}, place, tuple(off), left)


def _unwrapped(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """A mapping whose names are without what wrappers of a part put into them (`features.module.0.weight`)."""
    for wrapper in _WRAPPERS:
        if any(wrapper in name.split(".") for name in own):
            continue
        named = {".".join(part for part in name.split(".") if part != wrapper): name for name in state}
        if len(named) == len(state) and any(new != name for new, name in named.items()):
            yield (f"{wrapper}.",), {new: state[name] for new, name in named.items()}


def _prefixes(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """What stands before the model's names in a mapping's, most frequent first."""
    counts: dict[str, int] = {}
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                prefix = "".join(f"{part}." for part in parts[:start])
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: -counts[prefix])


def _under(
    prefix: str, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    found = {name: state[prefix + name] for name in own if prefix + name in state}
    whole = all(_same(found.get(name), own[name]) or (name not in found and name.endswith(_COUNTER)) for name in own)
    return found if whole else None


def _same(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and one.shape == other.shape


def _choose(fitting: list[Taken], weights: Weights | None, where: str) -> tuple[Taken, str]:
    apart = _distinct(fitting)
    if weights is not None:
        meant = [one for one in apart if one.is_average == (weights == "ema")]
        if not meant:
            kind = "averaged (EMA)" if weights == "ema" else "raw"
            raise ModelError(
                f"there are no {kind} weights: what fits is {apart[0].where}",
                where=where,
                hint="leave model.weights out",
            )
        apart, note = meant, f" ({weights}, as asked)"
    else:
        averaged = [one for one in apart if one.is_ema]
        note = ""
        if len(apart) > 1 and averaged:
            others = ", ".join(one.where for one in apart if not one.is_ema)
            apart, note = averaged, f' (the EMA, as timm does; raw weights lie in {others}: model.weights = "raw")'
    if len(apart) > 1:
        raise ModelError(
            f"several states fit the model, and differ: {'; '.join(one.where for one in apart[:_LISTED])}",
            where=where,
            hint='say which with model.weights = "ema" or "raw", or save the one that is meant alone',
        )
    return apart[0], note


def _distinct(fitting: list[Taken]) -> list[Taken]:
    """Without those that hold the same values as one before them."""
    found: list[Taken] = []
    for one in fitting:
        if not any(_equal(one.tensors, other.tensors) for other in found):
            found.append(one)
    return found


def _equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _nearest(
    states: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]], own: Mapping[str, torch.Tensor], where: str
) -> ModelError:
    """Why no mapping fits, told of the one that has most in common with the model."""
    best: tuple[int, str, tuple[str, ...], dict[str, torch.Tensor]] = (-1, "", *states[0])
    for place, state in states:
        for prefix in (*_prefixes(state, own), ""):
            common = sum(prefix + name in state for name in own)
            if (common, len(state)) > (best[0], len(best[3])) or best[0] < 0:
                best = (common, prefix, place, state)
    _, prefix, place, state = best
    named = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    parts = [
        ("missing", [name for name in own if name not in named and not name.endswith(_COUNTER)]),
        ("unexpected", [name for name in named if name not in own]),
        (
            "of another shape",
            [
                f"{name} is {tuple(named[name].shape)}, the model's {tuple(own[name].shape)}"
                for name in own
                if name in named and not _same(named[name], own[name])
            ],
        ),
    ]
    read = f" (read: {Taken({}, place, (prefix,) if prefix else ()).where})" if place or prefix else ""
    return ModelError(
        f"a checkpoint of another architecture{read}: "
        + "; ".join(f"{label} {listed(names, _LISTED)}" for label, names in parts if names),
        where=where,
        hint="check the model's name, its arguments and num_classes against the checkpoint",
    )
