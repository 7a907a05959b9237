"""Units: what can be removed together, the layers whose width they set, and what is frozen and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.graph.labels import Indices, Mixed
from edgeprune.graph.operations import OpSignature


@dataclass(frozen=True)
class Member:
    """Where the units of a group live in one parameter or buffer.

    `indices` has shape (units, m): unit i owns the m indices `indices[i]` along `dim` of tensor `name`.
    """

    name: str
    dim: int
    indices: Indices


@dataclass(frozen=True)
class UnitGroup:
    """Units that are alike: coupled channels of the same layers. `size` units, numbered 0..size-1.

    The id is stable for a model: the name of the first producing layer, plus what is removed ("layer1.0.conv1:out").
    """

    id: str
    size: int
    produced: tuple[Member, ...]  # parameters whose slices compute the unit (conv out channels, bn, bias)
    consumed: tuple[Member, ...]  # parameters whose slices read it (next conv's in channels)
    normalized: tuple[Member, ...] = ()  # modules whose statistics run over it: pruned, over the channels that stay
    span: int = 1  # adjacent channels that a unit is at least: a head of 64 dimensions is 64
    mixed: Mixed | None = None  # summed over without weights: multiplied with each other (query and key), or alone


@dataclass(frozen=True)
class Width:
    """A channel count as a function of what is kept: fixed + sum(multiplicity * product of the kept units).

    A term has one group, or several where channels are laid out over axes: 3 * heads * head dimensions.
    """

    fixed: int
    terms: tuple[tuple[tuple[str, ...], int], ...] = ()  # (group ids, multiplicity)

    def at(self, kept: Mapping[str, int]) -> int:
        return self.fixed + sum(count * math.prod(kept[name] for name in names) for names, count in self.terms)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the width depends on."""
        return tuple(dict.fromkeys(name for names, _ in self.terms for name in names))


@dataclass(frozen=True)
class Attribute:
    """A number that a module keeps and its code reads (`num_heads`), as a function of what is kept."""

    module: str
    name: str
    value: Width


@dataclass(frozen=True)
class Layer:
    """An operation that costs time, with its widths tied to unit groups."""

    name: str
    operation: OpSignature
    in_width: Width
    out_width: Width

    def signature(self, kept: Mapping[str, int]) -> OpSignature:
        """The operation when each group keeps so many units."""
        return self.operation.with_channels(self.in_width.at(kept), self.out_width.at(kept))


AS_ASKED = "kept as asked"  # how the reason of what `keep` names begins


@dataclass(frozen=True)
class Frozen:
    """Something that cannot be removed, and why (the operator and the source line)."""

    name: str
    units: int
    reason: str

    @property
    def asked(self) -> bool:
        """Whether it only stays because that was asked for."""
        return self.reason.startswith(AS_ASKED)


@dataclass(frozen=True)
class CodeSize:
    """A size in a module's code that does not follow: where its call ends, which of its sizes it is, whether they are
    in a tuple that is made elsewhere, and what it has to be."""

    module: str
    line: int
    column: int
    number: int
    spliced: bool
    value: Width


@dataclass(frozen=True)
class Switch:
    """A flag that a module's code reads, and what it has to be once a unit of these groups is gone."""

    module: str
    name: str
    value: bool
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Recast:
    """A module that gets a class in which its widths may differ (`recasts.py`), once a unit of these groups is gone."""

    module: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Branch:
    """A residual branch that can be removed as one: y = skip + branch(skip) becomes y = skip.

    `output` is the module whose result is added; `modules` are the others that are emptied; `layers` and `groups`
    name what goes with it. Of a `gate` (squeeze-excitation) the result multiplies: y = skip * branch(skip) becomes
    y = skip * constant.
    """

    id: str
    output: str
    modules: tuple[str, ...]
    layers: tuple[str, ...]
    groups: tuple[str, ...]
    gate: bool = False
    counted: tuple[str, ...] = ()  # products and weights that go with it


@dataclass(frozen=True)
class Output:
    """A module, and the groups whose units are in the last value that it computes; none where it computes none."""

    module: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Structure:
    """What was found in a model."""

    groups: tuple[UnitGroup, ...]
    layers: tuple[Layer, ...]
    frozen: tuple[Frozen, ...]
    branches: tuple[Branch, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    switches: tuple[Switch, ...] = ()
    code_sizes: tuple[CodeSize, ...] = ()
    recasts: tuple[Recast, ...] = ()
    products: tuple[Layer, ...] = ()  # matrix products that are counted and not timed
    weights: tuple[Layer, ...] = ()  # every parameter, batch norms folded
    uncounted: tuple[str, ...] = ()  # operators that may multiply, and are not counted
    standardized: tuple[str, ...] = ()  # convolutions whose weight is computed from it, over a filter's inputs
    outputs: tuple[Output, ...] = ()  # every module, those that compute something first

    @property
    def sizes(self) -> dict[str, int]:
        """Units of each group, none removed."""
        return {group.id: group.size for group in self.groups}


def is_inside(name: str, module: str) -> bool:
    """Whether a module or layer of that name is a module, or inside of it."""
    name = name.partition("@")[0]  # NAME@1: the second use of a layer
    return name == module or name.startswith(f"{module}.")
