"""A model run whole at a few widths: the table it leaves, resuming, and what is predicted from it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from bench_here import bench_in
from facts import refused
from listening import Listening
from torch import Tensor, nn

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.errors import ConversionError, UsageError
from edgeprune.graph.operations import COUNTED_BEFORE
from edgeprune.latency import whole_models
from edgeprune.latency.baseline import Baseline, fill_table, measure_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.in_place import model_key
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.predictor import Predictor, predictor_of, runs_of
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.latency.whole_models import VARIANTS, disturbed, variant_widths
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.space.find import find_structure

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """A stem, a residual branch that may go, a squeeze-and-excitation gate, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, 2, 1)
        self.conv1 = nn.Conv2d(48, 64, 3, 1, 1)
        self.conv2 = nn.Conv2d(64, 48, 1)
        self.gate = nn.Conv2d(48, 48, 1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.conv2(torch.relu(self.conv1(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))


class Rewritten(nn.Module):
    """The exporter writes a one-dimensional convolution as a two-dimensional one: no layer of the model is like it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.line = nn.Conv1d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x)).flatten(2)
        return self.head(torch.relu(self.line(x)).mean(2))


def model_of(module: nn.Module) -> Model:
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ModelSpec(source="test:net", input_size=(3, 32, 32), num_classes=10, preprocessing=preprocessing)
    return Model(spec, module.eval())


def setting_of(baseline: Baseline) -> Setting:
    return Setting(baseline.measurement.device, baseline.measurement.runtime.id, 1)


def test_every_group_takes_each_of_its_levels_once() -> None:
    structure = find_structure(Residual().eval(), torch.randn(1, 3, 32, 32))
    variants = variant_widths(structure, granularity=8, minimum=8)
    assert len(variants) == VARIANTS
    for group in structure.groups:
        levels = [variant[group.id] for variant in variants]
        assert min(levels) == 8
        assert max(levels) < group.size
        assert all(width % 8 == 0 for width in levels)
        assert len(set(levels)) == min(VARIANTS, group.size // 8 - 1)
    assert variants == variant_widths(structure, granularity=8, minimum=8)
    assert variants != variant_widths(structure, granularity=8, minimum=8, seed=1)


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs here, no run counts as disturbed."""
    monkeypatch.setattr(whole_models, "DISTURBED", math.inf)


def run_of(whole_s: float, *layers_s: float) -> ModelRun:
    measurement = Measurement.model_construct(median_s=whole_s)
    layers = tuple((f"layer{n}", "", seconds) for n, seconds in enumerate(layers_s))
    return ModelRun.model_construct(base="base", measurement=measurement, before_s=0.0, layers=layers)


def test_a_profile_that_other_work_disturbed_is_known_by_its_sum() -> None:
    """The figures are those of a real table: one profile fell into other work, and the model's own latency did not."""
    shares = {"a": 0.97, "b": 0.94, "c": 0.93, "d": 0.95, "e": 0.997, "f": 2.365, "g": 1.351}
    runs = {key: run_of(1e-3, 0.4e-3 * share, 0.6e-3 * share) for key, share in shares.items()}
    assert disturbed(runs) == {"f", "g"}
    overhead = {key: run_of(1e-3, 1.3e-3 * share) for key, share in shares.items() if share < 1}
    assert disturbed(overhead) == set()  # a profiler that costs time in each run disturbs none of them
    assert disturbed({"x": run_of(1e-3)}) == set()  # a runtime without a profiler


@dataclass(frozen=True)
class Probed:
    """A model that was probed once for all tests: interrupted after some variants, and gone on with."""

    model: Model
    baseline: Baseline
    table: Path
    kept: Mapping[str, ModelRun]  # what the interrupted probe left in the table
    after: Mapping[str, ModelRun]
    answer: Predictor

    @property
    def setting(self) -> Setting:
        return setting_of(self.baseline)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Probed:
    """Whatever else runs here, no run of it counts as disturbed."""
    folder, model = tmp_path_factory.mktemp("probed"), model_of(Residual())

    class Interrupt(Silent):
        def update(self, text: str, done: float, total: float) -> None:
            if text.startswith("the whole model at other widths") and done >= 3:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, MeasuringExporter("litert") as exporter:
        patch.setattr(whole_models, "DISTURBED", math.inf)
        bench = bench_in(folder, exporter)
        baseline = measure_original(model, folder, bench)
        setting = setting_of(baseline)
        with pytest.raises(KeyboardInterrupt):
            fill_table(model, baseline, replace(bench, progress=Interrupt()))
        kept = bench.table.models(setting)
        answer = fill_table(model, baseline, bench)
        return Probed(model, baseline, folder / "t.sqlite", kept, bench.table.models(setting), answer)


@pytest.fixture
def again(probed: Probed, bench: Bench, tmp_path: Path) -> Bench:
    """What is probed, and a table of one's own that has it."""
    shutil.copy(probed.table, tmp_path / "probed.sqlite")
    return replace(bench, table=LatencyTable(tmp_path / "probed.sqlite"))


def test_an_interrupted_probe_goes_on_where_it_was(probed: Probed) -> None:
    assert len(probed.kept) == 4  # the unpruned model and three variants
    assert len(probed.after) == VARIANTS + 1
    assert {key: probed.after[key] for key in probed.kept} == probed.kept


def test_what_was_timed_beside_other_work_is_timed_again(
    probed: Probed, again: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, baseline, setting, progress = probed.model, probed.baseline, probed.setting, Listening()
    key, run = next((key, run) for key, run in again.table.models(setting).items() if key != run.base)
    slow = tuple((name, operation, 50 * seconds) for name, operation, seconds in run.layers)
    again.table.put_model(setting, key, run.model_copy(update={"layers": slow}))
    monkeypatch.setattr(whole_models, "DISTURBED", 10.0)  # what the tests beside this one disturb is far less
    fill_table(model, baseline, replace(again, progress=progress))
    assert progress.said[0].startswith("1 whole model")
    assert again.table.models(setting)[key].sum_s < 0.5 * sum(seconds for _, _, seconds in slow)


def test_one_variant_that_can_never_be_written_does_not_undo_those_that_were(probed: Probed, again: Bench) -> None:
    """It is tried again each time the table is filled, and then it is all that is tried."""
    model, baseline, setting, progress = probed.model, probed.baseline, probed.setting, Listening()
    key = next(key for key, run in again.table.models(setting).items() if key != run.base)
    again.table.delete_model(setting, key)

    class Failing(MeasuringExporter):
        def write(self, model: Model, file: Path) -> Path:
            raise ConversionError("the toolkit failed", where=file.name)

    predictor = fill_table(model, baseline, replace(again, exporter=Failing("litert"), progress=progress))
    assert ["a variant of the model is left out of the table" in text for text in progress.said] == [True]
    assert predictor.basis == probed.answer.basis.replace(str(VARIANTS + 1), str(VARIANTS))


@pytest.mark.usefixtures("calm")
def test_a_probed_model_is_predicted_from_its_layers_in_place(probed: Probed, again: Bench) -> None:
    model, baseline, predictor = probed.model, probed.baseline, probed.answer
    setting, structure = probed.setting, baseline.structure
    runs = runs_of(again.table, setting, model_key(structure.layers, structure.sizes))
    assert len(runs) == VARIANTS + 1
    for run in runs.values():
        assert [name for name, _, _ in run.layers] == ["stem", "conv1", "conv2", "gate", "head"]
        assert run.measurement.file in ("original.tflite", "variant.tflite")
    places = {layer.name: layer.operation.place for layer in predictor.layers}
    assert places["conv1"] == "in place"
    assert "Mean" in places["conv2"]  # of the gate
    assert places["add"] == COUNTED_BEFORE
    assert len(predictor.misses) == VARIANTS
    assert predictor.costs.unmeasured == {}

    whole = predictor.predict(structure.sizes)
    assert whole.low_s is not None
    assert whole.high_s is not None
    assert 0 < whole.low_s < whole.seconds < whole.high_s
    assert whole.extrapolates == ()
    (branch,) = structure.branches
    assert predictor.predict(structure.sizes, branch.layers).seconds < whole.seconds
    half = {name: size // 2 for name, size in structure.sizes.items()}
    assert predictor.predict(half).seconds < whole.seconds
    assert predictor.predict(dict.fromkeys(structure.sizes, 4)).extrapolates
    assert predictor.budget(predictor.whole(1e-3)) == pytest.approx(1e-3)

    # The same table answers without the model's own measurement, and nothing is measured a second time.
    from_table = predictor_of(again.table, setting, structure.layers, structure.sizes)
    assert from_table.predict(half) == predictor.predict(half)
    progress = Listening()
    watched = replace(again, progress=progress)
    assert fill_table(model, baseline, watched).predict(half) == predictor.predict(half)
    assert progress.told == []


def test_few_widths_make_few_variants() -> None:
    structure = find_structure(Residual().eval(), torch.randn(1, 3, 32, 32))
    variants = variant_widths(structure, granularity=32, minimum=32)  # 48 and 64 channels: two widths each
    assert 1 <= len(variants) < VARIANTS
    assert structure.sizes not in variants
    assert len({tuple(variant.values()) for variant in variants}) == len(variants)
    assert variant_widths(structure, granularity=64, minimum=64) == []


def test_layers_that_cannot_be_matched_are_timed_alone_and_that_is_said(bench: Bench, tmp_path: Path) -> None:
    model = model_of(Rewritten())
    progress = Listening()
    talking = replace(bench, progress=progress)
    baseline = measure_original(model, tmp_path, talking)
    predictor = fill_table(model, baseline, talking)
    assert progress.said
    assert progress.said[0].startswith("operations are timed alone: original.tflite: ")
    assert predictor.basis.startswith("operations timed alone")
    prediction = predictor.predict(baseline.structure.sizes)
    assert prediction.seconds == pytest.approx(baseline.measurement.median_s)
    assert prediction.low_s is None
    # Its plans can be predicted all the same, from the table alone.
    setting, structure = setting_of(baseline), baseline.structure
    again = predictor_of(bench.table, setting, structure.layers, structure.sizes)
    assert again.predict(structure.sizes) == prediction
    with refused(UsageError, "litert", "2 threads"):
        predictor_of(bench.table, replace(setting, threads=2), structure.layers, structure.sizes)
