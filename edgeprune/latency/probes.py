"""Probes: a model's operations, each in a file of its own, timed at several widths for the latency table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeprune.devices.events import Visit
from edgeprune.devices.jobs import Case, CaseResult, Job, JobBroken, JobResult, runtime_build
from edgeprune.errors import DeviceError
from edgeprune.graph.operations import OpSignature
from edgeprune.installed import OWN_PROBES
from edgeprune.latency.bench import Bench
from edgeprune.latency.cost import stair_kind
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.presets import PROTOCOLS
from edgeprune.latency.protocol import measurement_of
from edgeprune.latency.staircase import SWEEP, fit_staircase
from edgeprune.latency.table import Setting
from edgeprune.latency.tflite_probes import EMPTY, copies_of, repeated
from edgeprune.latency.tflite_writer import Unsupported
from edgeprune.scratch import scratch_folder
from edgeprune.space.units import Layer, Width

POINTS = 4  # widths measured along a free axis
BATCH = 48  # operations in one runner process; their results are kept when it has ended
AGREE = 0.03  # the two quietest rounds of a probe agree so well, or it is measured once more
ROUNDS_TO_KEEP = 2  # of a job that was broken off: with one, nobody can tell whether rounds agree


def find_staircases(bench: Bench, layers: Sequence[Layer]) -> None:
    """Measure how the runtime's kernels grow with output channels (see `Staircase`), as far as the table lacks it:
    for each kind of kernel one of the layers, at many widths.

    Raises:
        DeviceError: the device is in use or was lost; what was measured before is kept.
    """
    prober, table = _Prober(bench), bench.table
    known = table.staircases(prober.setting)
    sweeps = {kind: sweep for kind, sweep in stair_sweeps(layers).items() if kind not in known}
    for number, (kind, sweep) in enumerate(sweeps.items()):
        bench.progress.update(f"finding how {kind} grows with its channels", number, len(sweeps))
        times = prober.times(sweep)
        if len(times) == len(SWEEP):
            table.put_staircase(prober.setting, kind, fit_staircase({op.out_channels: s for op, s in times.items()}))


def time_probes(bench: Bench, layers: Sequence[Layer], sizes: Mapping[str, int]) -> None:
    """Measure what the table lacks of these layers' operations, each alone, at a grid of widths from the least to full,
    on the steps of the staircases that the table knows.

    `sizes` are the units of each group with none removed. Each operation is timed in three rounds between the others;
    the quietest counts, the cost of an empty graph subtracted. What cannot be measured is kept in the table with the
    reason, and tried again the next time.

    Raises:
        UsageError: the runtime cannot be probed.
        DeviceError: the device is in use or was lost; what was measured before is kept.
    """
    prober, table = _Prober(bench), bench.table
    steps = {kind: stairs.step for kind, stairs in table.staircases(prober.setting).items()}
    needed = grid(layers, sizes, bench.granularity, steps)
    known = table.medians(prober.setting).keys()
    missing = [operation for operation in needed if operation.key() not in known]
    for start in range(0, len(missing), BATCH):
        bench.progress.update(f"{len(needed)} operations, {len(missing)} to measure", start, len(missing))
        prober.measure(missing[start : start + BATCH])
    bench.progress.update("measured", len(missing), len(missing))


def grid(
    layers: Sequence[Layer], sizes: Mapping[str, int], granularity: int, steps: Mapping[str, int]
) -> list[OpSignature]:
    """The operations to measure, each once: about four widths along each axis that can be pruned."""
    found: dict[OpSignature, None] = {}
    for layer in layers:
        step = math.lcm(granularity, steps.get(stair_kind(layer.operation), 1))
        outs = widths(layer.out_width, sizes, granularity, step)
        if layer.operation.is_square:
            found |= {layer.operation.with_channels(c, c): None for c in outs}
            continue
        ins = widths(layer.in_width, sizes, granularity, granularity)
        found |= {layer.operation.with_channels(i, o): None for i in ins for o in outs if _divides(layer, i, o)}
    return list(found)


def widths(width: Width, sizes: Mapping[str, int], granularity: int, step: int) -> list[int]:
    """The smallest and the full width and about two between, on the step; one width where nothing can be pruned."""
    full = width.at(sizes)
    smallest = width.at({group: min(size, granularity) for group, size in sizes.items()})
    between = (smallest + (full - smallest) * part / (POINTS - 1) for part in range(1, POINTS - 1))
    rounded = (round(point / step) * step for point in between)
    return sorted({smallest, full, *(point for point in rounded if smallest < point < full)})


def _divides(layer: Layer, ins: int, outs: int) -> bool:
    groups = layer.operation.groups
    return ins % groups == 0 and outs % groups == 0


def stair_sweeps(layers: Sequence[Layer]) -> dict[str, list[OpSignature]]:
    """For each kind that works on tiles of output channels, one of the layers at many widths.

    The layer is a small one, but large enough to be timed well (0.2 million multiply-accumulates at 32 channels).
    """
    sweeps: dict[str, list[OpSignature]] = {}
    narrow = sorted(
        (layer.operation.with_channels(min(32, layer.operation.in_channels), 32) for layer in layers if _tiled(layer)),
        key=lambda operation: abs(math.log(max(operation.macs, 1) / 2e5)),
    )
    for operation in narrow:
        sweeps.setdefault(
            stair_kind(operation),
            [
                replace(operation, out_channels=c) if not operation.is_square else operation.with_channels(c, c)
                for c in SWEEP
            ],
        )
    return sweeps


def _tiled(layer: Layer) -> bool:
    return bool(stair_kind(layer.operation)) and bool(layer.out_width.groups)


class _Prober:
    """Builds, times and keeps operations for one setting."""

    def __init__(self, bench: Bench) -> None:
        self._device, self._table, self._runtime = bench.device, bench.table, bench.runtime
        build = runtime_build(bench.device, bench.runtime)
        self.setting = Setting(bench.device.facts().fingerprint, build.id, bench.threads, bench.precision)

    @property
    def _borders(self) -> bool:
        """Whether probes may begin and end in another precision than the operation, as whole models do once."""
        return self.setting.precision != "fp32" and self._runtime not in OWN_PROBES

    def times(self, operations: Sequence[OpSignature]) -> dict[OpSignature, float]:
        """Seconds of each operation that could be measured."""
        self.measure(operations)
        medians = self._table.medians(self.setting)
        return {op: medians[op.key()] for op in operations if op.key() in medians}

    def measure(self, operations: Sequence[OpSignature]) -> None:
        """Measure and keep operations; those whose rounds disagree once more."""
        with scratch_folder("probes") as scratch:
            files = self._build_files(operations, scratch)
            visits: dict[OpSignature, list[Visit]] = {}
            todo = [op for op in operations if op in files]
            for _ in range(2):
                if not todo:
                    break
                try:
                    result = self._run(files, todo)
                except JobBroken as broken:
                    self._keep_finished(broken.result, todo, visits)
                    raise
                for op in todo:
                    overhead = _overhead(op, result)
                    self._keep(op, result, result.cases[op.key()], visits.setdefault(op, []), overhead)
                todo = [op for op in todo if visits[op] and not _agree(visits[op])]

    def _keep_finished(
        self, result: JobResult, operations: Sequence[OpSignature], visits: dict[OpSignature, list[Visit]]
    ) -> None:
        """Keep what a job had measured before its device was lost: operations with two rounds at least."""
        empty = result.cases[EMPTY.key()].visits
        if len(empty) < ROUNDS_TO_KEEP:
            return
        for op in operations:
            case = result.cases[op.key()]
            if case.failure is not None or len(case.visits) >= ROUNDS_TO_KEEP:
                self._keep(op, result, case, visits.setdefault(op, []), _overhead(op, result))

    def _run(self, files: Mapping[OpSignature, Path], operations: Iterable[OpSignature]) -> JobResult:
        operations = list(operations)
        borders = [border for op in operations for border in borders_of(op)] if self._borders else []
        cases = tuple(Case(op.key(), files[op]) for op in (EMPTY, *borders, *operations) if op in files)
        timing = PROTOCOLS["probe"].timing
        result = timed_job(
            self._device, Job(self._runtime, tuple({c.id: c for c in cases}.values()), self.setting.threads, timing)
        )
        if result.build.id != self.setting.build:
            raise DeviceError("the runtime was changed while probing", where=self._device.id, hint="probe again")
        if EMPTY.key() not in result.cases or result.cases[EMPTY.key()].failure:
            raise DeviceError(f"the runtime {self._runtime} does not run an empty graph", where=self._device.id)
        return result

    def _keep(self, op: OpSignature, result: JobResult, case: CaseResult, visits: list[Visit], overhead: float) -> None:
        if case.failure is not None:
            self._table.put_unsupported(self.setting, op, case.failure)
            return
        visits += case.visits
        self._table.put(self.setting, op, self._measurement(op, result, visits, overhead))

    def _measurement(self, op: OpSignature, result: JobResult, visits: list[Visit], overhead: float) -> Measurement:
        """The quietest round, for one operation alone."""
        copies = copies_of(op) if self._runtime == "litert" else 1
        best, _ = _quietest(visits)
        measurement = measurement_of(
            [best],
            file=op.key(),
            device=self.setting.device,
            build=result.build,
            threads=self.setting.threads,
            watched=[result.watched],
            cores=self._device.facts().cores,
            divide=lambda seconds: max((seconds - overhead) / copies, 1e-9),
        )
        medians = ", ".join(f"{1e6 * _median(v):.1f}" for v in visits)
        words = (
            f"quietest of the rounds {medians} us of a graph with {copies} such operations, "
            f"{1e6 * overhead:.1f} us of an empty graph{' and of borders in float' if self._borders else ''} subtracted"
        )
        return measurement.model_copy(update={"quality": "stable" if _agree(visits) else "noisy", "evidence": words})

    def _build_files(self, operations: Sequence[OpSignature], folder: Path) -> dict[OpSignature, Path]:
        """A file for each operation that can be built; the others are kept with the reason."""
        wanted = list(dict.fromkeys((EMPTY, *operations)))
        precision = self.setting.precision
        if (self._runtime, precision) == ("litert", "fp32"):
            return self._write_tflite(wanted, folder)
        from edgeprune.artifacts.probes import build_probes

        borders = [border for op in operations for border in borders_of(op)] if self._borders else []
        built = build_probes(self._runtime, [*wanted, *borders], folder, precision)
        for op in wanted:
            if op.key() not in built:
                why = f"the exporter of {self._runtime} cannot build it in {precision}"
                self._table.put_unsupported(self.setting, op, why)
        return {op: built[op.key()] for op in (*wanted, *borders) if op.key() in built}

    def _write_tflite(self, operations: Sequence[OpSignature], folder: Path) -> dict[OpSignature, Path]:
        files = {}
        for number, op in enumerate(operations):
            try:
                content = repeated(op, copies_of(op))
            except Unsupported as error:
                self._table.put_unsupported(self.setting, op, error.what)
                continue
            files[op] = folder / f"{number}.tflite"
            files[op].write_bytes(content)
        return files


def borders_of(op: OpSignature) -> tuple[OpSignature, OpSignature]:
    """Where an int8 probe takes and gives float32: images of the size of its input, and of its output, that are only
    quantized and made float again."""
    height, width = op.out_hw
    return (
        OpSignature("activation", op.in_channels, op.in_channels, op.height, op.width),
        OpSignature("activation", op.out_channels, op.out_channels, height, width),
    )


def _overhead(op: OpSignature, result: JobResult) -> float:
    """Seconds of a probe that are not the operation's: invoking, and where the probe has borders (see `borders_of`)
    half of each, for one side of it."""
    empty = _quietest(result.cases[EMPTY.key()].visits)[1]
    sides = [case for border in borders_of(op) if (case := result.cases.get(border.key())) and case.visits]
    return empty + sum(max(0.0, _quietest(case.visits)[1] - empty) / 2 for case in sides)


def _median(visit: Visit) -> float:
    return float(np.median(visit.clean or visit.seconds))


def _quietest(visits: Sequence[Visit]) -> tuple[Visit, float]:
    best = min(visits, key=_median)
    return best, _median(best)


def _agree(visits: Sequence[Visit]) -> bool:
    """Whether the two quietest rounds agree, to 3 % or a tenth of a microsecond, with nobody taking the core away."""
    first, second = sorted(visits, key=_median)[:2]
    near = _median(second) - _median(first) <= max(AGREE * _median(first), 1e-7)
    return near and bool(first.clean) and bool(second.clean)
