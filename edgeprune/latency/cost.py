"""Costs of operations: measured latency, multiply-accumulates, parameters, size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from edgeprune.errors import UsageError
from edgeprune.graph.operations import COUNTED_BEFORE, OpSignature
from edgeprune.latency.curve import Curve, Point, fit_curve
from edgeprune.latency.rows import parse_key
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.space.units import Layer

RESOLUTION = 1e-6  # seconds: the profiler counts whole microseconds


class CostModel(Protocol):
    """What an operation costs; more channels never cost less."""

    def cost(self, operation: OpSignature) -> float: ...


def total(layers: Sequence[Layer], kept: Mapping[str, int], model: CostModel) -> float:
    """The cost of all layers when each group keeps so many units; the same in whatever order they come."""
    return math.fsum(model.cost(layer.signature(kept)) for layer in layers)


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
    """Seconds, from the latency table of one setting: device, runtime build, threads, precision.

    Each operation's measured widths give a curve (see `Curve`) over the input channels and the effective output
    channels, as kernels work on whole tiles (see `Staircase`). What was timed inside of models and what was timed
    alone never share a curve: their `place` differs.

    `extrapolates` holds the operations asked for outside of what was measured, or in a place where none was;
    `unmeasured` those that cannot be measured, with the reason: each costs a line above all operations of its kind that
    were measured, or above all where none of its kind was. `without` leaves one model's run out, by its key.
    """

    def __init__(self, table: LatencyTable, setting: Setting, *, without: str | None = None) -> None:
        self._where = f"{table.path} ({setting.words})"
        self._stairs = table.staircases(setting)
        self._refused = table.unsupported(setting)
        alone = table.medians(setting).items()
        inside = [row[1:] for key, rows in table.model_layers(setting).items() if key != without for row in rows]
        self._points: dict[OpSignature, list[tuple[Point, float]]] = {}
        for key, seconds in (*alone, *inside):
            operation = parse_key(key)
            self._points.setdefault(shape_of(operation), []).append((self._point(operation), seconds))
        self._curves: dict[OpSignature, Curve] = {}
        self._cache: dict[OpSignature, float] = {}
        self._bounds: dict[str, tuple[float, float]] = {}
        self._held = 1.0  # share of the bounds that counts
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

    def hold_bounds(self, layers: Sequence[Layer], kept: Mapping[str, int], whole_s: float) -> None:
        """Make what could not be measured take no more than a whole model that was measured leaves for it."""
        self._held = 1.0
        self._cache.clear()
        costs = {layer.name: (self.cost(operation := layer.signature(kept)), operation.key()) for layer in layers}
        bounds = math.fsum(cost for cost, key in costs.values() if key in self.unmeasured)
        left = whole_s - math.fsum(cost for cost, key in costs.values() if key not in self.unmeasured)
        if bounds > max(0.0, left):
            self._held = max(0.0, left) / bounds
            self._cache.clear()

    def _compute(self, operation: OpSignature) -> float:
        if operation.place == COUNTED_BEFORE:
            return 0.0
        shape = shape_of(operation)
        exact = shape in self._points
        curve = self._curve(shape if exact else self._in_another_place(shape))
        if curve is None:
            if reason := self._refusal(operation):
                self.unmeasured[operation.key()] = reason
                return self._above(operation, reason)
            raise UsageError(
                f"the operation was never measured: {operation.key()}",
                where=self._where,
                hint="probe the model on this device with this runtime first",
            )
        point = self._point(operation)
        if not (exact and curve.covers(point)):
            self.extrapolates.add(operation.key())
        return curve.at(point)

    def _curve(self, shape: OpSignature | None) -> Curve | None:
        if shape is None:
            return None
        if shape not in self._curves:
            points = self._points[shape]
            self._curves[shape] = fit_curve(points, square=shape.is_square, resolution=RESOLUTION)
        return self._curves[shape]

    def _in_another_place(self, shape: OpSignature) -> OpSignature | None:
        """The same shape in the place that was measured most often, where its own was not."""
        anywhere = replace(shape, place="")
        like = [known for known in self._points if known.place and replace(known, place="") == anywhere]
        return max(like, key=lambda known: len(self._points[known])) if shape.place and like else None

    def _above(self, operation: OpSignature, reason: str) -> float:
        """An upper bound for an operation that cannot be measured: what cannot be measured is never free.

        Raises:
            UsageError: nothing was measured that it could be taken from.
        """
        if operation.kind not in self._bounds:
            every = [(shape, point, seconds) for shape, points in self._points.items() for point, seconds in points]
            if not every:
                raise UsageError(
                    f"the operation cannot be measured ({reason}), and no other was: {operation.key()}",
                    where=self._where,
                    hint="probe the model on this device with this runtime first",
                )
            alike = [one for one in every if one[0].kind == operation.kind] or every
            self._bounds[operation.kind] = line_above(
                [(work_of(shape.with_channels(round(x), round(y))), seconds) for shape, (x, y), seconds in alike]
            )
        fixed, rate = self._bounds[operation.kind]
        return self._held * (fixed + rate * work_of(operation))

    def _refusal(self, operation: OpSignature) -> str | None:
        """Why any width of this operation was refused."""
        shape = shape_of(operation)
        return next((why for key, why in self._refused.items() if shape_of(parse_key(key)) == shape), None)

    def _point(self, operation: OpSignature) -> Point:
        """Where an operation lies on its curve."""
        stairs = self._stairs.get(stair_kind(operation))
        out = stairs.at(operation.out_channels) if stairs else float(operation.out_channels)
        return (out if operation.is_square else float(operation.in_channels), out)


def work_of(operation: OpSignature) -> float:
    """Multiply-accumulates, and the numbers that are read and written."""
    pixels = operation.height * operation.width
    return float(operation.macs + pixels * (operation.in_channels + operation.out_channels))


def line_above(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(seconds, seconds for each unit of work) of a line that no point lies above: as steep as the slowest of the
    larger half, where overheads say least, and raised until it covers all."""
    larger = sorted(points)[len(points) // 2 :]
    rate = max(seconds / work for work, seconds in larger)
    return max(0.0, *(seconds - rate * work for work, seconds in points)), rate


def shape_of(operation: OpSignature) -> OpSignature:
    """The operation without its widths: what shares a curve."""
    groups = 0 if operation.groups == operation.in_channels > 1 else operation.groups
    return replace(operation, in_channels=0, out_channels=0, groups=groups)


def stair_kind(operation: OpSignature) -> str:
    """What shares a staircase: runtimes have kernels of their own for 1x1 convolutions, for linear layers, and for
    each size of a depthwise one."""
    if operation.kind == "conv2d" and operation.groups == 1:
        return "conv2d 1x1" if operation.kernel == (1, 1) else "conv2d"
    if operation.kind == "depthwise_conv2d":
        return f"depthwise_conv2d {operation.kernel[0]}x{operation.kernel[1]}"
    return "linear" if operation.kind == "linear" else ""
