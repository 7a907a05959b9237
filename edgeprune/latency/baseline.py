"""The baseline: the unpruned model on the device, and what its pruned forms are predicted to take there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.jobs import runtime_build
from edgeprune.devices.runtimes import SUFFIX_OF
from edgeprune.errors import ConversionError, DeviceError, ToolkitMissing
from edgeprune.latency.bench import Bench
from edgeprune.latency.in_place import NotInPlace
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.predictor import Predictor, forget_alone, keep_alone, predictor_of
from edgeprune.latency.probes import find_staircases, time_probes
from edgeprune.latency.table import Setting
from edgeprune.latency.whole_models import missing_variants, run_variants
from edgeprune.models.spec import Model
from edgeprune.reparam.merge import merge
from edgeprune.scratch import scratch_folder
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.units import Structure


@dataclass(frozen=True)
class Baseline:
    """What pruning starts from."""

    structure: Structure
    file: Path  # the unpruned model, merged, in the format and precision that the target is about
    measurement: Measurement


def measure_original(model: Model, folder: Path, bench: Bench, *, keep: tuple[str, ...] = ()) -> Baseline:
    """Find the model's structure, write it for the runtime into `folder` and measure it whole.

    Raises:
        ModelError: the model cannot be traced or nothing in it can be removed.
        DeviceError: the device is unavailable.
    """
    structure = hold(find_structure(model.module, model.example_input()), keep)
    file = write_original(model, folder, bench)
    return Baseline(structure, file, bench.measure(file))


def write_original(model: Model, folder: Path, bench: Bench) -> Path:
    """Write the unpruned model for the runtime: batch norms folded, fp32."""
    file = folder / f"original{SUFFIX_OF[bench.runtime]}"
    bench.exporter.write(_merged(model), file)
    return file


def fill_table(model: Model, baseline: Baseline, bench: Bench) -> Predictor:
    """Measure what the table lacks to predict the model's pruned forms; returns the predictor.

    LiteRT tells what each kernel takes inside of a model, so there the model runs whole at a few widths. ExecuTorch
    tells none: there the same models run whole, and the layers' shares are taken from LiteRT on the same device.
    Where LiteRT is not at hand, or the exporter rewrote layers so that kernels and layers cannot be matched,
    operations are timed alone; the message says so.

    Raises:
        DeviceError: the device is in use or was lost, or has another build of the runtime than the baseline was
            measured with; what was measured before is kept.
    """
    structure, measurement = baseline.structure, baseline.measurement
    setting = Setting(measurement.device, measurement.runtime.id, measurement.threads, bench.precision)
    if (build := runtime_build(bench.device, bench.runtime).id) != setting.build:
        raise DeviceError(
            f"the model was measured with {setting.build}, the device has {build} now",
            where=bench.device.id,
            hint=f"measure it anew: delete {baseline.file.parent} and go on with --resume",
        )
    try:
        if bench.runtime == "litert":
            find_staircases(bench, structure.layers)
        else:
            _profile_in_litert(model, baseline, bench)
        run_variants(model, structure, baseline.file, measurement, bench)
        forget_alone(bench.table, setting, structure.layers, structure.sizes)
    except (NotInPlace, ToolkitMissing) as error:
        bench.progress.say(f"operations are timed alone: {error}")
        keep_alone(bench.table, setting, structure.layers, structure.sizes, measurement)
        if bench.runtime != "litert":
            find_staircases(bench, structure.layers)
        time_probes(bench, structure.layers, structure.sizes)
    return predictor_of(bench.table, setting, structure.layers, structure.sizes, measurement)


def _profile_in_litert(model: Model, baseline: Baseline, bench: Bench) -> None:
    """Fill the table for LiteRT on the same device, as far as it lacks the model."""
    build = runtime_build(bench.device, "litert")
    setting = Setting(baseline.measurement.device, build.id, bench.threads, bench.precision)
    if not missing_variants(baseline.structure, bench, setting):
        return
    images = bench.exporter.calibration
    with (
        MeasuringExporter("litert", bench.precision, calibration=images) as exporter,
        scratch_folder("litert") as scratch,
    ):
        there = replace(bench, runtime="litert", exporter=exporter)
        try:
            file = there.exporter.write(_merged(model), scratch / "original.tflite")
        except ConversionError as error:
            raise NotInPlace(f"LiteRT, which tells its kernels, has no file of this model: {error.what}") from error
        find_staircases(there, baseline.structure.layers)
        run_variants(model, baseline.structure, file, there.measure(file), there)


def _merged(model: Model) -> Model:
    return model.with_module(merge(model.module, model.example_input()))
