"""Costs of a runtime that tells no kernels, from one that does, on the same device.

ExecuTorch's package has no profiler. Its XNNPACK runs the same kinds of kernels as LiteRT's, so what each layer takes
in place there is taken over, times a factor for each kind of kernel: the factors with which whole models, measured in
the runtime itself, come out right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from edgeprune.graph.operations import OpSignature
from edgeprune.latency.cost import LatencyCost, stair_kind

PULL = 0.1  # towards one factor for all kinds, where few models say little of each


@dataclass(frozen=True)
class TransferredCost:
    """Costs of one runtime times factors, by kind of kernel (`cost.stair_kind`)."""

    costs: LatencyCost
    factors: Mapping[str, float]
    other: float  # the factor of what is not named

    def cost(self, operation: OpSignature) -> float:
        return self.factors.get(stair_kind(operation), self.other) * self.costs.cost(operation)

    @property
    def extrapolates(self) -> set[str]:
        return self.costs.extrapolates

    @property
    def unmeasured(self) -> dict[str, str]:
        return self.costs.unmeasured


def transfer(
    models: Sequence[tuple[Sequence[OpSignature], float]], costs: LatencyCost
) -> tuple[TransferredCost, float]:
    """(costs, seconds that every model takes beside) with which whole models come out as measured.

    Args:
        models: at least one, each as (operations, seconds measured in the runtime that tells no kernels).
        costs: of the runtime that does.
    """
    kinds = sorted({stair_kind(operation) for operations, _ in models for operation in operations})

    def by_kind(operations: Sequence[OpSignature]) -> list[float]:
        return [sum(costs.cost(op) for op in operations if stair_kind(op) == kind) for kind in kinds]

    sums = np.array([by_kind(operations) for operations, _ in models])
    seconds = np.array([measured for _, measured in models])
    other = float(np.median(seconds / sums.sum(axis=1)))
    # Relative misses, and a pull of each factor towards the common one, the stronger the smaller the kind's share.
    shares = np.maximum((sums / seconds[:, None]).mean(axis=0), 1e-3)
    pull = np.diag(PULL * np.sqrt(shares))
    terms = np.vstack(
        [
            np.column_stack([sums / seconds[:, None], 1.0 / seconds]),
            np.column_stack([pull, np.zeros(len(kinds))]),
        ]
    )
    solution = nnls(terms, np.concatenate([np.ones(len(seconds)), pull @ np.full(len(kinds), other)]))[0]
    factors = {kind: float(factor) for kind, factor in zip(kinds, solution[:-1], strict=True)}
    return TransferredCost(costs, factors, other), float(solution[-1])
