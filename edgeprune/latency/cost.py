"""Costs of operations: measured latency, multiply-accumulates, parameters, size."""

from __future__ import annotations

import ast
import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol, cast

from edgeprune.errors import UsageError
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.structure.operations import Kind, OpSignature
from edgeprune.structure.units import Layer

Point = tuple[float, float]  # input channels, effective output channels


class CostModel(Protocol):
    """What an operation costs; more channels never cost less."""

    def cost(self, operation: OpSignature) -> float: ...


def total(layers: Sequence[Layer], kept: Mapping[str, int], model: CostModel) -> float:
    """The cost of all layers when each group keeps so many units."""
    return sum(model.cost(layer.signature(kept)) for layer in layers)


class MacsCost:
    """Multiply-accumulates."""

    def cost(self, operation: OpSignature) -> float:
        return float(operation.macs)


class ParameterCost:
    """Parameters, batch norm folded."""

    def cost(self, operation: OpSignature) -> float:
        return float(operation.parameters)


class SizeCost:
    """Bytes of the parameters in float32."""

    def cost(self, operation: OpSignature) -> float:
        return 4.0 * operation.parameters


class LatencyCost:
    """Seconds, interpolated in the latency table of one device, runtime build and thread count.

    Between measured widths the cost is bilinear (linear where both sides are one axis) in the input channels and
    the effective output channels, as kernels work on whole tiles (see `Staircase`). Measured costs are first made
    monotone: halfway between the largest cost among narrower points and the smallest among wider ones.

    `extrapolates` holds the operations asked for outside of what was measured; `unmeasured` those that cannot be
    measured, with the reason: they count nothing.
    """

    def __init__(self, table: LatencyTable, device: str, build: str, threads: int) -> None:
        setting = Setting(device, build, threads)
        self._where = f"{table.path} ({build}, {threads} threads)"
        self._stairs = table.staircases(setting)
        self._refused = table.unsupported(setting)
        measured: dict[OpSignature, list[tuple[OpSignature, float]]] = {}
        for key, seconds in table.medians(setting).items():
            operation = parse_key(key)
            measured.setdefault(shape_of(operation), []).append((operation, seconds))
        self._grids = {shape: self._grid(shape, points) for shape, points in measured.items()}
        self._cache: dict[OpSignature, float] = {}
        self.extrapolates: set[str] = set()
        self.unmeasured: dict[str, str] = {}

    def cost(self, operation: OpSignature) -> float:
        """Seconds for one operation.

        Raises:
            UsageError: no width of this operation was measured.
        """
        seconds = self._cache.get(operation)
        if seconds is None:
            seconds = self._cache[operation] = self._compute(operation)
        return seconds

    def _compute(self, operation: OpSignature) -> float:
        grid = self._grids.get(shape_of(operation))
        if grid is None:
            if reason := self._refusal(operation):
                self.unmeasured[operation.key()] = reason
                return 0.0
            raise UsageError(
                f"the operation was never measured: {operation.key()}",
                where=self._where,
                hint="probe the model on this device with this runtime first",
            )
        seconds, inside = grid.at(self._point(operation))
        if not inside:
            self.extrapolates.add(operation.key())
        return seconds

    def _refusal(self, operation: OpSignature) -> str | None:
        """Why any width of this operation was refused."""
        shape = shape_of(operation)
        return next((why for key, why in self._refused.items() if shape_of(parse_key(key)) == shape), None)

    def _point(self, operation: OpSignature) -> Point:
        """Where an operation lies in its grid."""
        stairs = self._stairs.get(stair_kind(operation))
        out = stairs.at(operation.out_channels) if stairs else float(operation.out_channels)
        return (out if operation.is_square else float(operation.in_channels), out)

    def _grid(self, shape: OpSignature, points: Iterable[tuple[OpSignature, float]]) -> Grid:
        """Of widths that lie on one stair, the fastest counts: noise only ever adds."""
        costs: dict[Point, float] = {}
        for operation, seconds in points:
            point = self._point(operation)
            costs[point] = min(seconds, costs.get(point, seconds))
        return Grid(monotone(costs), square=shape.is_square)


class Grid:
    """Costs of one operation at measured widths."""

    def __init__(self, costs: Mapping[Point, float], *, square: bool) -> None:
        self._costs, self._square = costs, square
        self._ins, self._outs = sorted({p[0] for p in costs}), sorted({p[1] for p in costs})

    def at(self, point: Point) -> tuple[float, bool]:
        """(cost, whether it lies within what was measured). Wider than measured costs in proportion."""
        inner = (_clamped(point[0], self._ins), _clamped(point[1], self._outs))
        scale = max(1.0, point[1] / inner[1]) * (1.0 if self._square else max(1.0, point[0] / inner[0]))
        value = self._line(inner[1]) if self._square else self._bilinear(inner)
        if value is None:
            return self._nearest(point), False
        return value * scale, inner == point

    def _line(self, width: float) -> float:
        low, high = _around(width, self._outs)
        part = _part(width, low[0], high[0])
        return self._costs[low[0], low[0]] * (1 - part) + self._costs[high[0], high[0]] * part

    def _bilinear(self, point: Point) -> float | None:
        """In the smallest rectangle of measured corners around the point; None where there is none."""
        (i, o), costs = point, self._costs
        ins, outs = _around(i, self._ins), _around(o, self._outs)
        best, corners = float("inf"), None
        for i0, i1 in product(*ins):
            for o0, o1 in product(*outs):
                area = (i1 - i0 + 1.0) * (o1 - o0 + 1.0)
                if area < best and (i0, o0) in costs and (i0, o1) in costs and (i1, o0) in costs and (i1, o1) in costs:
                    best, corners = area, (i0, i1, o0, o1)
        if corners is None:
            return None
        i0, i1, o0, o1 = corners
        u, v = _part(i, i0, i1), _part(o, o0, o1)
        below = costs[i0, o0] * (1 - v) + costs[i0, o1] * v
        above = costs[i1, o0] * (1 - v) + costs[i1, o1] * v
        return below * (1 - u) + above * u

    def _nearest(self, point: Point) -> float:
        """The nearest point's cost, scaled by the work."""
        near = min(self._costs, key=lambda p: (abs(p[0] / point[0] - 1) + abs(p[1] / point[1] - 1), p))
        return self._costs[near] * (point[0] * point[1]) / (near[0] * near[1])


def _clamped(width: float, measured: Sequence[float]) -> float:
    return min(max(width, measured[0]), measured[-1])


def _around(width: float, measured: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Measured widths up to this one and from this one on, nearest first; where it was measured it is in both."""
    return measured[: bisect.bisect_right(measured, width)][::-1], measured[bisect.bisect_left(measured, width) :]


def _part(width: float, low: float, high: float) -> float:
    return 0.0 if low == high else (width - low) / (high - low)


def monotone(costs: Mapping[Point, float]) -> dict[Point, float]:
    """Costs that never fall when a side grows: halfway between the tightest bounds from below and from above."""

    def smoothed(point: Point) -> float:
        i, o = point
        narrower = max(cost for (a, b), cost in costs.items() if a <= i and b <= o)
        wider = min(cost for (a, b), cost in costs.items() if a >= i and b >= o)
        return (narrower + wider) / 2

    return {point: smoothed(point) for point in costs}


def shape_of(operation: OpSignature) -> OpSignature:
    """The operation without its widths: what shares a grid."""
    groups = 0 if operation.kind == "depthwise_conv2d" else operation.groups
    return replace(operation, in_channels=0, out_channels=0, groups=groups)


def stair_kind(operation: OpSignature) -> str:
    """What shares a staircase: the kernels differ for 1x1 convolutions, others and linear layers."""
    if operation.kind == "conv2d" and operation.groups == 1:
        return "conv2d 1x1" if operation.kernel == (1, 1) else "conv2d"
    return operation.kind if operation.kind in ("linear", "depthwise_conv2d") else ""


def parse_key(key: str) -> OpSignature:
    """The operation of a key, the inverse of `OpSignature.key`."""
    fields = dict(part.split("=", 1) for part in key.split(";"))
    kind, function = cast(Kind, fields.pop("kind")), fields.pop("function")
    return OpSignature(kind=kind, function=function, **{name: ast.literal_eval(text) for name, text in fields.items()})
