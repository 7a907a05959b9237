"""Finding what can be removed from a model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow
from edgeprune.graph.layers import find_layers
from edgeprune.graph.propagate import propagate
from edgeprune.graph.record import record
from edgeprune.graph.trace import STACK
from edgeprune.graph.unfused import unfused
from edgeprune.space.attributes import couple_attributes, find_attributes
from edgeprune.space.branches import find_branches
from edgeprune.space.code_sizes import code_sizes_for, find_sizes, steady_sizes
from edgeprune.space.counting import find_products, find_uncounted, find_weights
from edgeprune.space.fingerprint import fingerprint
from edgeprune.space.fused import find_switches
from edgeprune.space.groups import Grouping, group_units
from edgeprune.space.misfits import Misfit, find_misfits
from edgeprune.space.recasts import apart, find_recasts
from edgeprune.space.trial import TrialImages, lively, trial_size
from edgeprune.space.units import Output, Structure


def find_structure(module: nn.Module, example: Tensor) -> Structure:
    """Find the units of a model: the channels that can be removed together without changing the others, and the
    residual branches that can go as a whole. What a user wants to keep is taken out of that (`keep.hold`).

    The model is traced, labels are propagated, and the result is tried: pruned, the model must compute what it
    computes with the units masked. What the code does not follow is frozen, until that holds. A model that stays as it
    is (`fingerprint`) is looked at once.

    Args:
        module: unchanged (traced in eval mode).
        example: an input, shape (batch, channels, height, width).

    Raises:
        ModelError: the model cannot be traced.
    """
    state, kind = fingerprint(module), (tuple(example.shape), example.dtype, example.device)
    known = _FOUND.get(module)
    if known is None or known.state != state:
        known = _FOUND[module] = _Found(state)
    if kind not in known.structures:
        known.structures[kind] = _search(module, example)
    return known.structures[kind]


@dataclass(frozen=True)
class _Found:
    """What was found in a model in one state, by the shape, dtype and device of its input."""

    state: Hashable
    structures: dict[Hashable, Structure] = field(default_factory=dict)


# All stages of a run, and the plans that are applied, ask for the structure of the same model, and all that they share
# is the module: a `Model` cannot hold this (models/ knows nothing of space/), and what is kept in the module itself
# would go into its copies. So it is kept here, for as long as the module is there.
_FOUND: WeakKeyDictionary[nn.Module, _Found] = WeakKeyDictionary()


def _search(module: nn.Module, example: Tensor) -> Structure:
    given, module = module, apart(unfused(module))
    flow = propagate(record(module, example), module)
    layers = find_layers(flow)
    named = couple_attributes(flow, module)
    sizes = find_sizes(flow, module)
    told = [*named, *(size.label for size in sizes)]
    trial = lively(module)
    macs = sum(layer.operation.macs for layer in layers)
    images = TrialImages(trial, trial_size(flow, module, example, macs), example)
    while True:
        grouping = group_units(flow, layers, told)
        grouping = replace(
            grouping,
            structure=replace(
                grouping.structure,
                attributes=find_attributes(flow, module, grouping),
                switches=find_switches(flow, given, grouping),
                code_sizes=code_sizes_for(sizes, grouping),
                recasts=find_recasts(given, grouping.structure),
            ),
        )
        misfits = find_misfits(trial, images, example, flow, grouping)
        if any(misfit.batch for misfit in misfits):
            steady = steady_sizes(sizes, module, example)
            sizes = steady if len(steady) < len(sizes) else ()
            continue
        if not misfits:
            found = replace(
                grouping.structure,
                products=find_products(flow, grouping, layers),
                weights=find_weights(flow, module, grouping),
                uncounted=find_uncounted(flow),
                outputs=_outputs(flow, module, grouping),
            )
            names = [layer.name for layer in (*found.products, *found.weights)]
            return replace(found, branches=find_branches(flow, trial, images, layers, found.groups, names))
        _freeze_misfits(flow, grouping, misfits)


def _outputs(flow: Flow, module: nn.Module, grouping: Grouping) -> tuple[Output, ...]:
    """The groups in the last value computed inside every module, in the order in which the modules begin."""
    last: dict[str, fx.Node] = {}
    for node in flow.trace.graph.nodes:
        last |= {path: node for path, _ in node.meta.get(STACK, ()) if path}
    ids = [group.id for group in grouping.structure.groups]
    groups = {
        node: tuple(ids[number] for number in sorted(grouping.groups_in(flow.values[node])))
        for node in dict.fromkeys(last.values())
    }
    ran = (Output(name, groups[node]) for name, node in last.items())
    return (*ran, *(Output(name) for name, _ in module.named_modules() if name and name not in last))


def _freeze_misfits(flow: Flow, grouping: Grouping, misfits: list[Misfit]) -> None:
    """Freeze what the misfits touch; where no group is left less, all of them: every round makes progress."""
    progress = False
    for misfit in misfits:
        groups = set(misfit.groups)
        for node in misfit.nodes:
            for touched in (node, *node.all_input_nodes):
                groups |= grouping.groups_in(flow.values[touched])
        for number in sorted(groups):
            flow.atoms.freeze(grouping.atoms_of(number), misfit.reason)
            progress = True
    if not progress:
        for number in range(len(grouping.structure.groups)):
            flow.atoms.freeze(grouping.atoms_of(number), misfits[0].reason)
