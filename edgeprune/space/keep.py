"""What a user keeps: the structure of a model in which what some names fit stays.

What can go, and what it is called, depends on the model alone (`find_structure`). What a user wants to keep is taken
out of that afterwards, so that a name means the same with and without it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from edgeprune.errors import ModelError
from edgeprune.space.units import AS_ASKED, Branch, Frozen, Layer, Structure, Width, is_inside


def hold(structure: Structure, keep: Sequence[str]) -> Structure:
    """The structure in which what `keep` names stays: the output width of the modules named, and the branches and
    gates that they are in, or are.

    Args:
        structure: what `find_structure` found.
        keep: patterns of module names (`*` and `?`).

    Raises:
        ModelError: a pattern fits no module.
    """
    named = {pattern: _fitting(structure, pattern) for pattern in keep}
    groups = {output.module: output.groups for output in structure.outputs}
    reasons: dict[str, str] = {}
    for pattern, modules in named.items():
        for module in modules:
            for group in groups[module]:
                reasons.setdefault(group, f"{AS_ASKED}: {module} fits {pattern!r}")
    kept = {module for modules in named.values() for module in modules}
    return _without(structure, reasons, [branch for branch in structure.branches if not _holds(branch, kept)])


def _fitting(structure: Structure, pattern: str) -> list[str]:
    names = [output.module for output in structure.outputs]
    if fitting := [name for name in names if fnmatchcase(name, pattern)]:
        return fitting
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"modules: {', '.join(names[:8])}, ..."
    raise ModelError(f"no module is named {pattern!r}", where="keep", hint=hint)


def _holds(branch: Branch, modules: Collection[str]) -> bool:
    """Whether one of these modules is a part of a branch, or inside of one."""
    return any(is_inside(module, part) for module in modules for part in (*branch.modules, branch.output))


def _without(structure: Structure, reasons: Mapping[str, str], branches: Sequence[Branch]) -> Structure:
    """The structure with these groups frozen, and no other branches than these."""
    sizes = {name: size for name, size in structure.sizes.items() if name in reasons}

    def free(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in sizes)

    def held(layers: Sequence[Layer]) -> tuple[Layer, ...]:
        return tuple(
            replace(layer, in_width=_held(layer.in_width, sizes), out_width=_held(layer.out_width, sizes))
            for layer in layers
        )

    attributes = (replace(one, value=_held(one.value, sizes)) for one in structure.attributes)
    switches = (replace(one, groups=free(one.groups)) for one in structure.switches)
    recasts = (replace(one, groups=free(one.groups)) for one in structure.recasts)
    return replace(
        structure,
        groups=tuple(group for group in structure.groups if group.id not in sizes),
        frozen=(*structure.frozen, *(Frozen(name, size, reasons[name]) for name, size in sizes.items())),
        layers=held(structure.layers),
        products=held(structure.products),
        weights=held(structure.weights),
        branches=tuple(replace(branch, groups=free(branch.groups)) for branch in branches),
        attributes=tuple(one for one in attributes if one.value.groups),
        switches=tuple(one for one in switches if one.groups),
        recasts=tuple(one for one in recasts if one.groups),
        code_sizes=tuple(replace(one, value=_held(one.value, sizes)) for one in structure.code_sizes),
        outputs=tuple(replace(one, groups=free(one.groups)) for one in structure.outputs),
    )


def _held(width: Width, sizes: Mapping[str, int]) -> Width:
    """A width of which these groups are whole."""
    if not any(name in sizes for name in width.groups):
        return width
    terms: dict[tuple[str, ...], int] = {}
    for names, count in width.terms:
        rest = tuple(name for name in names if name not in sizes)
        whole = math.prod(sizes[name] for name in names if name in sizes)
        terms[rest] = terms.get(rest, 0) + count * whole
    return Width(width.fixed + terms.pop((), 0), tuple(terms.items()))
