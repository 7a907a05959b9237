"""EdgePrune's side of the coverage benchmark: half of the units of every group go."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from coverage_models import Family, build, random_input
from coverage_property import Kept, judge, relative_error
from torch import nn

from edgeprune.errors import EdgePruneError
from edgeprune.space.apply import apply_plan, count_parameters, make_plan
from edgeprune.space.cut import gone_indices, tensor_named
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Structure, UnitGroup

ENOUGH = 0.30  # of the parameters
WEAK = 1e-3  # a mask that changes the output by less proves nothing


def measure(family: Family, record: dict[str, Any]) -> None:
    """Fill in the record, as far as it comes; `outcome` last."""
    module, example = build(family)
    before = record["parameters"] = count_parameters(module)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        structure = find_structure(module, example)
        record["find_s"], record["find_cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
        record |= describe(module, structure)
        removed = half_of(structure)
        pruned = apply_plan(module, make_plan(f"timm:{family.model}", module, structure, Subnet(removed)), example)
    except EdgePruneError as error:
        record |= {"outcome": "refused", "why": str(error)}
        return
    masked = mask_units(module, structure, removed)
    record["share_removed"] = 1 - count_parameters(pruned) / before
    with torch.no_grad():
        x = random_input(family, 1)
        plain = module(x)
        record["effect"] = relative_error(masked(x), plain)
        record["input_effect"] = relative_error(module(random_input(family, 2)), plain)
    kept = kept_elements(module, structure, removed)
    del module
    judgement = judge(pruned, masked, kept, lambda seed, dtype: random_input(family, seed, dtype))
    record["property"] = judgement.to_dict()
    if removed and min(record["effect"], record["input_effect"]) < WEAK:
        record["weak"] = "the mask or the input hardly changes the output: the property was hardly tried"
    if not judgement.holds:
        record |= {"outcome": "wrong", "why": judgement.why}
    else:
        record["outcome"] = "ok" if record["share_removed"] >= ENOUGH else "little"


def half_of(structure: Structure) -> dict[str, tuple[int, ...]]:
    """A random half of the units of every group, rounded so that a multiple of what must stay together stays."""
    random = np.random.default_rng(0)
    removed = {}
    for group in structure.groups:
        count = _half(group)
        if count:
            removed[group.id] = tuple(sorted(random.permutation(group.size)[:count].tolist()))
    return removed


def _half(group: UnitGroup) -> int:
    stay = -(-group.size // 2)
    return max(0, group.size - stay)


def kept_elements(module: nn.Module, structure: Structure, removed: dict[str, tuple[int, ...]]) -> Kept:
    """What stays of each parameter that loses something (see `coverage_property`)."""
    kept: dict[str, torch.Tensor] = {}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for (alias, dim), gone in gone_indices(module, structure, removed).items():
        parameter = tensor_named(module, alias)
        if id(parameter) in names:
            name = names[id(parameter)]  # a module that stands in several places has several names
            flat = kept.get(name)
            if flat is None:
                flat = torch.arange(parameter.numel()).view(parameter.shape)
            stay = np.setdiff1d(np.arange(parameter.shape[dim]), gone)
            kept[name] = flat.index_select(dim, torch.from_numpy(stay))
    return kept


def describe(module: nn.Module, structure: Structure) -> dict[str, Any]:
    """Units found, and what is frozen: parameters (of the layers that produce it) by reason, the largest first."""
    reasons: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for entry in structure.frozen:
        layer = entry.name.rpartition(":")[0]
        weight = module.get_submodule(layer).weight if _has_weight(module, layer) else None
        parameters = weight.numel() * entry.units // weight.shape[0] if isinstance(weight, torch.Tensor) else 0
        reasons[entry.reason].append((parameters, entry.name))
    ranked = sorted(reasons.items(), key=lambda item: -sum(p for p, _ in item[1]))
    return {
        "groups": len(structure.groups),
        "units": sum(group.size for group in structure.groups),
        "branches": len(structure.branches),
        "frozen_groups": len(structure.frozen),
        "frozen": [
            {"reason": reason, "groups": len(found), "parameters": sum(p for p, _ in found), "example": max(found)[1]}
            for reason, found in ranked[:8]
        ],
    }


def _has_weight(module: nn.Module, layer: str) -> bool:
    try:
        return hasattr(module.get_submodule(layer), "weight")
    except AttributeError:
        return False
