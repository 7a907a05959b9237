"""Importing this package registers every operation."""

from __future__ import annotations

from edgeprune.verify.mil.operations import (
    activations,
    constexpr,
    elementwise,
    layers,
    pooling,
    reductions,
    resizing,
    shapes,
)

__all__ = ["activations", "constexpr", "elementwise", "layers", "pooling", "reductions", "resizing", "shapes"]
