"""Cutting units out of a module's tensors, and keeping the modules' own attributes true."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.graph.labels import Indices
from edgeprune.graph.sharing import copy_sharing
from edgeprune.space.code_sizes import apply_code_sizes
from edgeprune.space.recasts import apply_recast
from edgeprune.space.units import Member, Structure, UnitGroup

Removed = Mapping[str, Sequence[int]]


def remove_units(module: nn.Module, structure: Structure, removed: Removed) -> nn.Module:
    """A copy of a module without some units; the module itself is unchanged.

    Args:
        structure: what `find_structure` found in `module`.
        removed: group id -> unit numbers to remove, at least one unit of each group must stay.

    Raises:
        ModelError: an unknown group, a unit out of range or named twice, nothing left of a group, or a tensor
            that is not as wide as the structure says.
    """
    gone = gone_indices(module, structure, removed)
    pruned = copy_sharing(module, (tensor_named(module, name) for name, _ in gone))  # those are replaced just below
    for (name, dim), indices in gone.items():
        _cut(pruned, name, dim, indices)
    for path in sorted({name.rpartition(".")[0] for name, _ in gone}):
        _update_attributes(pruned.get_submodule(path), module.get_submodule(path))
    for (path, _), channels in gone_statistics(structure, removed).items():
        _shrink_plain_norm(pruned.get_submodule(path), len(channels))
    kept = {
        **structure.sizes,
        **{group.id: group.size - len(units) for group, units in chosen_units(structure, removed)},
    }
    for recast in structure.recasts:
        if any(removed.get(name) for name in recast.groups):
            apply_recast(pruned.get_submodule(recast.module))
    for attribute in structure.attributes:
        if any(name in removed for name in attribute.value.groups):
            setattr(pruned.get_submodule(attribute.module), attribute.name, attribute.value.at(kept))
    if gone:  # all: a size worked out from another attribute changes with that one
        apply_code_sizes(pruned, structure.code_sizes, kept)
    for switch in structure.switches:
        if any(removed.get(name) for name in switch.groups):
            setattr(pruned.get_submodule(switch.module), switch.name, switch.value)
    return pruned


def gone_indices(module: nn.Module, structure: Structure, removed: Removed) -> dict[tuple[str, int], Indices]:
    """(tensor name, dim) -> sorted indices that go with these units; see `remove_units` for the errors."""
    gone: dict[tuple[str, int], list[Indices]] = defaultdict(list)
    for group, units in chosen_units(structure, removed):
        for member in (*group.produced, *group.consumed):
            _check_size(module, group, member)
            gone[member.name, member.dim].append(member.indices[units].reshape(-1))
    return {key: np.unique(np.concatenate(parts)) for key, parts in gone.items()}


def chosen_units(structure: Structure, removed: Removed) -> Iterator[tuple[UnitGroup, Indices]]:
    """The groups that lose units, with the sorted unit numbers; see `remove_units` for the errors."""
    groups = {group.id: group for group in structure.groups}
    frozen = {entry.name: entry.reason for entry in structure.frozen}
    for name, units in removed.items():
        group = groups.get(name)
        if group is None:
            why = f"it is frozen: {frozen[name]}" if name in frozen else "the model has no such group"
            raise ModelError(f"cannot remove units of {name}: {why}", hint=f"groups: {_some(groups)}")
        chosen = np.unique(np.asarray(list(units), dtype=np.int64))
        if len(chosen) != len(units) or (len(chosen) and not 0 <= chosen[0] <= chosen[-1] < group.size):
            raise ModelError(
                f"group {name}: unit numbers must be unique and within 0..{group.size - 1}, got {list(units)[:8]}"
            )
        if len(chosen) == group.size:
            raise ModelError(f"group {name}: all {group.size} units would go", hint="keep at least one")
        if len(chosen):
            yield group, chosen


def tensor_named(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of a dotted name."""
    path, _, last = name.rpartition(".")
    try:
        value = getattr(module.get_submodule(path), last)
    except AttributeError as error:
        raise ModelError(f"the model has no tensor {name}", hint="find the structure of this very model") from error
    assert isinstance(value, Tensor)
    return value


def gone_statistics(structure: Structure, removed: Removed) -> dict[tuple[str, int], Indices]:
    """(norm, dimension) -> sorted channels that go out of its statistics; see `remove_units` for the errors."""
    gone: dict[tuple[str, int], list[Indices]] = defaultdict(list)
    for group, units in chosen_units(structure, removed):
        for member in group.normalized:
            gone[member.name, member.dim].append(member.indices[units].reshape(-1))
    return {key: np.unique(np.concatenate(parts)) for key, parts in gone.items()}


def narrowed_norm(norm: nn.Module, gone: Indices) -> nn.Module:
    """A copy of a norm over channels without some of them."""
    narrow = copy.deepcopy(norm)
    for name in [name for name, _ in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False))]:
        _cut(narrow, name, 0, gone)
    _update_attributes(narrow, norm)
    _shrink_plain_norm(narrow, len(gone))
    return narrow


def _shrink_plain_norm(norm: nn.Module, gone: int) -> None:
    """Set the width of a norm that has no scale to tell it."""
    shape = getattr(norm, "normalized_shape", None)
    if getattr(norm, "weight", None) is None and isinstance(shape, tuple | list) and len(shape) == 1:
        norm.normalized_shape = (int(shape[0]) - gone,)  # type: ignore[assignment]


def _check_size(module: nn.Module, group: UnitGroup, member: Member) -> None:
    tensor = tensor_named(module, member.name)
    if member.dim >= tensor.ndim or int(member.indices.max()) >= tensor.shape[member.dim]:
        raise ModelError(
            f"group {group.id} does not fit: {member.name} has shape {tuple(tensor.shape)}",
            hint="the structure or plan belongs to another model",
        )


def _cut(module: nn.Module, name: str, dim: int, gone: Indices) -> None:
    path, _, last = name.rpartition(".")
    owner, tensor = module.get_submodule(path), tensor_named(module, name)
    keep = np.ones(tensor.shape[dim], dtype=bool)
    keep[gone] = False
    index = torch.from_numpy(np.flatnonzero(keep)).to(tensor.device)
    value = tensor.detach().index_select(dim, index).contiguous()
    if isinstance(tensor, nn.Parameter):
        setattr(owner, last, nn.Parameter(value, requires_grad=tensor.requires_grad))
    else:
        setattr(owner, last, value)


def _update_attributes(module: nn.Module, before: nn.Module) -> None:
    """Set the widths a module tells about itself (in_channels, num_features, ...) to those of its tensors."""
    weight, old = (getattr(m, "weight", None) for m in (module, before))
    if isinstance(weight, Tensor) and isinstance(old, Tensor):
        if weight.ndim > 2 and getattr(module, "transposed", False):
            _update_transposed(module, weight, old)
        elif weight.ndim > 2 and hasattr(module, "groups"):
            _update_convolution(module, weight, old)
        elif isinstance(module, nn.Bilinear):
            module.out_features, module.in1_features, module.in2_features = weight.shape
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = weight.shape[1]
        elif weight.ndim == 2:
            _set_width(module, "out_features", old.shape[0], weight.shape[0])
            _set_width(module, "in_features", old.shape[1], weight.shape[1])
        elif weight.ndim == 1:
            _set_width(module, "num_features", old.shape[0], weight.shape[0])
            _set_width(module, "num_parameters", old.shape[0], weight.shape[0])
            _set_width(module, "num_channels", old.shape[0], weight.shape[0])
            if getattr(module, "normalized_shape", None) in ((old.shape[0],), [old.shape[0]]):
                module.normalized_shape = (weight.shape[0],)  # type: ignore[assignment]
    if isinstance(module, nn.RNNBase):
        module.hidden_size = tensor_named(module, "weight_hh_l0").shape[1]
        module.input_size = tensor_named(module, "weight_ih_l0").shape[1]
    statistics, old = (getattr(m, "running_mean", None) for m in (module, before))
    if isinstance(statistics, Tensor) and isinstance(old, Tensor):
        _set_width(module, "num_features", old.shape[0], statistics.shape[0])


def _update_convolution(module: nn.Module, weight: Tensor, old: Tensor) -> None:
    groups = int(module.groups)  # type: ignore[arg-type]
    if old.shape[1] == 1 and groups > 1:  # depthwise: one group per in channel
        now = weight.shape[0] // (old.shape[0] // groups)
        _set_width(module, "in_channels", groups, now)
        module.groups = now  # type: ignore[assignment]
    else:
        _set_width(module, "in_channels", old.shape[1] * groups, weight.shape[1] * groups)
    _set_width(module, "out_channels", old.shape[0], weight.shape[0])


def _update_transposed(module: nn.Module, weight: Tensor, old: Tensor) -> None:
    """weight (I, O/groups, ...); where each channel has a group of its own, one stays so."""
    before = int(module.groups)  # type: ignore[arg-type]
    groups = weight.shape[0] if before == old.shape[0] else before
    module.groups = groups  # type: ignore[assignment]
    _set_width(module, "in_channels", old.shape[0], weight.shape[0])
    _set_width(module, "out_channels", old.shape[1] * before, weight.shape[1] * groups)


def _set_width(module: nn.Module, attribute: str, old: int, new: int) -> None:
    if getattr(module, attribute, None) == old:
        setattr(module, attribute, new)


def _some(names: Mapping[str, UnitGroup]) -> str:
    shown = list(names)[:6]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "") if shown else "none can be removed"
