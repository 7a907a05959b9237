"""Layer sparsity by the scales of batch norms, as REPrune and CHEX set it: small scales tell which layers have units
to spare (network slimming, Liu et al. 2017; the rule as notes on REPrune, arXiv 2402.17862, give it)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import ModelError
from edgeprune.space.cut import tensor_named
from edgeprune.space.units import Member, Structure, UnitGroup

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scales:
    """|gamma| of the batch norms behind each group's units: group id -> (units,), where a group has such a norm."""

    values: dict[str, Array]

    @property
    def tell(self) -> bool:
        """Whether they tell the units of any layer from one another. Those of a net that was never trained do not:
        they are all 1, or 0 in the last norm of each residual block."""
        return any(np.ptp(values) > 0 for values in self.values.values())

    def kept(self, share: float) -> dict[str, int]:
        """How many units of each group stay at a global share of units to remove: REPrune's layer sparsity.

        gamma* is the share's quantile of all |gamma|; a group loses its units with |gamma| <= gamma*, and is left alone
        where that would be all of them.
        """
        threshold = np.quantile(np.concatenate(list(self.values.values())), share, method="inverted_cdf")
        stay = {name: int((values > threshold).sum()) for name, values in self.values.items()}
        return {name: count or len(self.values[name]) for name, count in stay.items()}


def batch_norm_scales(module: nn.Module, structure: Structure) -> Scales:
    """The scales that tell how sparse each layer may be; of coupled norms, their mean.

    Raises:
        ModelError: no group has a batch norm with a scale, or a scale is not finite.
    """
    found = {group.id: np.mean(parts, axis=0) for group in structure.groups if (parts := _scales(module, group))}
    if not found:
        raise ModelError(
            "no layer that can be pruned has a batch norm, by whose scales this rule tells how sparse a layer may be",
            where=type(module).__name__,
            hint="let the allocator decide: prune.allocator = 'judged'",
        )
    values = np.concatenate(list(found.values()))
    if not np.isfinite(values).all():
        raise ModelError(
            "scales of batch norms are not finite", where=type(module).__name__, hint="look at the checkpoint"
        )
    return Scales(found)


def telling_scales(module: nn.Module, structure: Structure) -> Scales:
    """As `batch_norm_scales`, where they tell units apart.

    Raises:
        ModelError: as there, or in no layer do they differ.
    """
    scales = batch_norm_scales(module, structure)
    if not scales.tell:
        raise ModelError(
            f"in each of {len(scales.values)} layers all scales of batch norms are equal: no unit is told from another",
            where=type(module).__name__,
            hint="train the model first, or let the allocator decide: prune.allocator = 'judged'",
        )
    return scales


def _scales(module: nn.Module, group: UnitGroup) -> list[Array]:
    return [_per_unit(module, member) for member in group.produced if _is_scale(module, member)]


def _is_scale(module: nn.Module, member: Member) -> bool:
    path, _, last = member.name.rpartition(".")
    return last == "weight" and isinstance(module.get_submodule(path), _BatchNorm)


def _per_unit(module: nn.Module, member: Member) -> Array:
    scale = np.abs(tensor_named(module, member.name).detach().double().cpu().numpy())
    return np.asarray(scale[member.indices].mean(axis=1))
