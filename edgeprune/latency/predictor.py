"""The predictor: what a whole model takes at any widths, from the table alone, and how far to trust that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median

from scipy.stats import t as student

from edgeprune.errors import UsageError
from edgeprune.graph.operations import COUNTED_BEFORE, OpSignature
from edgeprune.latency.cost import RESOLUTION, LatencyCost, shape_of, total
from edgeprune.latency.curve import fit_line
from edgeprune.latency.in_place import model_key, placed
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.rows import parse_key
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.latency.transfer import TransferredCost, transfer
from edgeprune.records import Record
from edgeprune.space.units import Layer

CONFIDENCE = 0.95
LEAST_FOR_A_LINE = 4
ALONE = "alone"  # the base of a whole run whose operations were timed alone


class Prediction(Record):
    """Seconds for one inference, never measured. `extrapolates` names the layers that are outside of what was."""

    seconds: float
    unpruned_s: float  # of the model with nothing removed, predicted too
    low_s: float | None  # 95 % interval for one model; None where too little was measured to state one
    high_s: float | None
    extrapolates: tuple[str, ...]
    basis: str  # what it rests on, in words

    @property
    def words(self) -> str:
        """`12.345 ms (12.100-12.600)`, or why there is no interval."""
        if self.low_s is None or self.high_s is None:
            return f"{self.seconds * 1e3:.3f} ms (no interval: too few runs)"
        return f"{self.seconds * 1e3:.3f} ms ({self.low_s * 1e3:.3f}-{self.high_s * 1e3:.3f})"


@dataclass(frozen=True)
class Predictor:
    """Predicts one base model's pruned forms: whole = constant + scale * sum of the layers' costs.

    `misses` are ln(predicted / measured) of whole models that were left out of the fit, one after the other;
    `layer_misses` the same of their layers, as a root mean square for each curve (`cost.shape_of`).
    """

    layers: tuple[Layer, ...]
    sizes: Mapping[str, int]  # units of each group, none removed
    costs: LatencyCost | TransferredCost
    scale: float
    constant_s: float
    misses: tuple[float, ...]
    layer_misses: Mapping[OpSignature, float]
    basis: str

    def whole(self, cost: float) -> float:
        """Seconds of a model whose layers cost so much together."""
        return self.constant_s + self.scale * cost

    @cached_property
    def unpruned_s(self) -> float:
        """Seconds of the unpruned model, predicted as any other."""
        return self.whole(total(self.layers, self.sizes, self.costs))

    def seconds_of(self, operation: OpSignature) -> float | None:
        """What one layer adds to the whole; None where it is counted with the layer before it."""
        return None if operation.place == COUNTED_BEFORE else self.scale * self.costs.cost(operation)

    def budget(self, seconds: float) -> float:
        """What the layers may cost together so that the model takes so many seconds; the inverse of `whole`."""
        return (seconds - self.constant_s) / self.scale

    def predict(self, kept: Mapping[str, int], gone: Collection[str] = ()) -> Prediction:
        """Latency of the model whose groups keep so many units, without the layers that are gone.

        Raises:
            UsageError: a layer was never measured.
        """
        stays = [layer for layer in self.layers if layer.name not in gone]
        seconds = self.whole(total(stays, kept, self.costs))
        outside = tuple(layer.name for layer in stays if layer.signature(kept).key() in self.costs.extrapolates)
        spread = self._spread(stays, kept)
        low, high = (None, None) if spread is None else (seconds * math.exp(x) for x in (-spread, spread))
        return Prediction(
            seconds=seconds,
            unpruned_s=self.unpruned_s,
            low_s=low,
            high_s=high,
            extrapolates=outside,
            basis=self.basis,
        )

    @cached_property
    def spread(self) -> float | None:
        """Half the width of the unpruned model's 95 % interval in the logarithm, so 0.05 is about 5 %."""
        return self._spread(self.layers, self.sizes)

    def _spread(self, layers: Sequence[Layer], kept: Mapping[str, int]) -> float | None:
        """Half the width of the interval: Student's t for one more model beside those that were left out, times the
        greater of what those missed and what their layers' misses make of these layers. None where fewer than three
        were left out.

        Whole models show what all layers share, as a machine that is slower by now. But few were left out, and what
        cancelled in them need not cancel here: so the misses of single layers count as well, each curve's added up
        over its layers, those of different curves as independent.
        """
        count = len(self.misses)
        if count < 3:
            return None
        of_models = math.sqrt(sum(miss * miss for miss in self.misses) / count)
        by_curve: dict[OpSignature, float] = {}
        for layer in layers:
            operation = layer.signature(kept)
            shape = shape_of(operation)
            by_curve[shape] = by_curve.get(shape, 0.0) + self.costs.cost(operation)
        worst = max(self.layer_misses.values(), default=0.0)  # for a place that was never measured
        squares = sum((self.layer_misses.get(shape, worst) * cost) ** 2 for shape, cost in by_curve.items())
        of_layers = self.scale * math.sqrt(squares) / self.whole(sum(by_curve.values()))
        return float(student.ppf((1 + CONFIDENCE) / 2, count)) * max(of_models, of_layers) * math.sqrt(1 + 1 / count)


def predictor_of(
    table: LatencyTable,
    setting: Setting,
    layers: Sequence[Layer],
    sizes: Mapping[str, int],
    measurement: Measurement | None = None,
) -> Predictor:
    """The predictor that a table gives for a model.

    Where whole models of it ran under the profiler, it rests on them. Where they ran without one, and in another
    runtime of the device with one, see `edgeprune.latency.transfer`. Else it sums up operations that were timed alone;
    what the model takes beyond that sum is taken as constant, which needs the model's own measurement.

    Args:
        layers, sizes: of the unpruned model's structure.
        measurement: of the unpruned model, with this runtime build, number of threads and precision.

    Raises:
        UsageError: the table lacks what is needed.
    """
    base = model_key(layers, sizes)
    runs, alone = runs_of(table, setting, base), table.get_model(setting, f"{ALONE} {base}")
    if alone is None and any(run.layers for run in runs.values()):
        return _in_place(table, setting, layers, sizes, runs)
    if alone is None and runs and (source := profiled_setting(table, setting, base)) is not None:
        return _transferred(table, source, layers, sizes, runs)
    if measurement is None:
        if alone is None:
            raise UsageError(
                "the latency table has no whole run of this model",
                where=f"{table.path} ({setting.words})",
                hint="probe it on this device first: edgeprune probe MODEL",
            )
        measurement = alone.measurement
    costs = _costs(table, setting)
    costs.hold_bounds(layers, sizes, measurement.median_s)
    constant = measurement.median_s - total(layers, sizes, costs)
    basis = "operations timed alone, and the whole unpruned model"
    return Predictor(tuple(layers), sizes, costs, 1.0, constant, (), {}, basis)


def keep_alone(
    table: LatencyTable, setting: Setting, layers: Sequence[Layer], sizes: Mapping[str, int], measurement: Measurement
) -> None:
    """Note that a model is predicted from operations timed alone, whatever whole runs there are, with its latency."""
    run = ModelRun(base=ALONE, measurement=measurement, before_s=0.0, layers=())
    table.put_model(setting, f"{ALONE} {model_key(layers, sizes)}", run)


def forget_alone(table: LatencyTable, setting: Setting, layers: Sequence[Layer], sizes: Mapping[str, int]) -> None:
    """Undo `keep_alone`: whole models tell enough by now."""
    table.delete_model(setting, f"{ALONE} {model_key(layers, sizes)}")


def runs_of(table: LatencyTable, setting: Setting, base: str) -> dict[str, ModelRun]:
    """The runs of a model's forms, by key; `base` is the key of the unpruned one."""
    return {key: run for key, run in table.models(setting).items() if run.base == base}


def unpruned_run(table: LatencyTable, setting: Setting, base: str) -> ModelRun | None:
    """The run of the unpruned model that its pruned forms are predicted beside, whole or with operations alone."""
    return runs_of(table, setting, base).get(base) or table.get_model(setting, f"{ALONE} {base}")


def profiled_setting(table: LatencyTable, setting: Setting, base: str) -> Setting | None:
    """Another runtime build of the device in which whole runs of a model, in the same precision, were profiled: the
    newest."""
    found = [
        (max(run.measurement.after.time for run in runs.values()), other.build, other)
        for other in table.settings()
        if (other.device, other.threads, other.precision) == (setting.device, setting.threads, setting.precision)
        and (runs := {key: run for key, run in runs_of(table, other, base).items() if run.layers})
    ]
    return max(found)[-1] if found else None


def _transferred(
    table: LatencyTable,
    source: Setting,
    layers: Sequence[Layer],
    sizes: Mapping[str, int],
    runs: Mapping[str, ModelRun],
) -> Predictor:
    base = next(iter(runs.values())).base
    profiled = runs_of(table, source, base)
    places = _places(profiled)
    both = {
        key: (_operations(profiled[key], places), run.measurement.median_s)
        for key, run in runs.items()
        if key in profiled
    }
    if not both:
        raise UsageError(
            f"no model was measured both here and with {source.build}, which tells its kernels",
            where=f"{table.path} ({source.words})",
            hint="probe the model again: edgeprune probe MODEL --runtime executorch",
        )
    misses, without = [], _costs_without(table, source, profiled)
    for key, (operations, seconds) in both.items():
        if key != base and len(both) > 1:
            others = [model for other, model in both.items() if other != key]
            costs, constant = transfer(others, without[key])
            misses.append(math.log((constant + sum(map(costs.cost, operations))) / seconds))
    costs, constant = transfer(list(both.values()), _costs(table, source))
    basis = f"{len(both)} whole models, their layers' shares taken from {source.build}, which tells its kernels"
    missed = _layer_misses(profiled, places, without)
    return Predictor(placed(layers, places), sizes, costs, 1.0, constant, tuple(misses), missed, basis)


def _in_place(
    table: LatencyTable,
    setting: Setting,
    layers: Sequence[Layer],
    sizes: Mapping[str, int],
    runs: Mapping[str, ModelRun],
) -> Predictor:
    places = _places(runs)
    misses, without = [], _costs_without(table, setting, runs)
    for key, run in runs.items():
        if key == run.base:
            continue
        others = [other for name, other in runs.items() if name != key]
        constant, scale = _beyond_kernels(others)
        predicted = constant + scale * sum(map(without[key].cost, _operations(run, places)))
        misses.append(math.log(predicted / run.measurement.median_s))
    constant, scale = _beyond_kernels(list(runs.values()))
    basis = f"{len(runs)} whole models, each layer timed in its place"
    costs = _costs(table, setting)
    missed = _layer_misses(runs, places, without)
    return Predictor(placed(layers, places), sizes, costs, scale, constant, tuple(misses), missed, basis)


def _layer_misses(
    runs: Mapping[str, ModelRun], places: Mapping[str, str], costs: Mapping[str, LatencyCost]
) -> dict[OpSignature, float]:
    """Root mean square of ln(predicted / measured) over the layers of each curve, each run predicted by its costs."""
    found: dict[OpSignature, list[float]] = {}
    for key, run in runs.items():
        for operation, (_, _, seconds) in zip(_operations(run, places), run.layers, strict=True):
            sides = (max(side, RESOLUTION) for side in (costs[key].cost(operation), seconds))
            found.setdefault(shape_of(operation), []).append(math.log(next(sides) / next(sides)))
    return {shape: math.sqrt(fmean(miss * miss for miss in misses)) for shape, misses in found.items()}


def _costs_without(table: LatencyTable, setting: Setting, runs: Mapping[str, ModelRun]) -> dict[str, LatencyCost]:
    """For each run the costs that the others give; for the unpruned model those of all: without it, every full width
    would be beyond what was measured."""
    return {key: _costs(table, setting, without=None if key == run.base else key) for key, run in runs.items()}


def _beyond_kernels(runs: Sequence[ModelRun]) -> tuple[float, float]:
    """(constant seconds, scale) that make of the layers' sum what a model takes by itself: there is a little between
    kernels, and the profiler's own time is not in it."""
    before = median(run.before_s for run in runs)
    wholes = [(max(run.sum_s, RESOLUTION), run.measurement.median_s) for run in runs]
    fixed, scale = fit_line(wholes, resolution=RESOLUTION) if len(wholes) >= LEAST_FOR_A_LINE else (0.0, 0.0)
    if scale <= 0:  # too few, or all of them mere overhead
        fixed, scale = 0.0, median(y / x for x, y in wholes)
    return fixed + scale * before, scale


def _operations(run: ModelRun, places: Mapping[str, str]) -> list[OpSignature]:
    """A run's operations as they would be predicted: in the place that the layer has in most runs."""
    return [replace(parse_key(text), place=places[name]) for name, text, _ in run.layers]


def _places(runs: Mapping[str, ModelRun]) -> dict[str, str]:
    """The place of each layer in most of the pruned models (code that lets widths differ can look otherwise)."""
    seen: dict[str, Counter[str]] = {}
    pruned = {key: run for key, run in runs.items() if key != run.base}
    for run in (pruned or runs).values():
        for name, text, _ in run.layers:
            seen.setdefault(name, Counter())[parse_key(text).place] += 1
    return {name: counter.most_common(1)[0][0] for name, counter in seen.items()}


def _costs(table: LatencyTable, setting: Setting, *, without: str | None = None) -> LatencyCost:
    return LatencyCost(table, setting, without=without)
