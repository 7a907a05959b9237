"""A latency target that is about the int8 file: everything that is measured is int8, and every record says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from facts import refused
from small_jobs import Hearer
from typer.testing import CliRunner

import edgeprune
from edgeprune.artifacts.measuring import MeasuringExporter
from edgeprune.cli.app import app
from edgeprune.errors import RecipeError, UsageError
from edgeprune.latency.in_place import model_key
from edgeprune.latency.table import LatencyTable
from edgeprune.models.spec import Model
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe, read_recipe
from edgeprune.runs import create_run, settings_hash
from edgeprune.space.find import find_structure
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.target_file import said as told_of_target
from edgeprune.target_file import target_file

pytestmark = pytest.mark.slow
NET = f"{Path(__file__).with_name('three_convolutions.py')}:net"
TREE: dict[str, Any] = {
    "model": {"factory": NET, "input_size": (1, 16, 16), "untrained": True},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "0.7x", "target_file": "tflite-int8", "method": "magnitude", "tolerance": 0.9},
    "tune": {"epochs": 0},
    "export": {"formats": ("tflite",)},
    "verify": {"images": 16, "gates": {"latency_tolerance": 9.0}},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    return parse_recipe({name: {**TREE.get(name, {}), **sections.get(name, {})} for name in {**TREE, **sections}})


def precision_of(file: Path) -> str:
    (entry,) = Interpreter(str(file)).get_input_details()
    return {"int8": "int8", "float32": "fp32"}[entry["dtype"].__name__]


class UntilPruned(Hearer):
    """Stops a job when the model is pruned."""

    def stage(self, name: str) -> None:
        super().stage(name)
        if name == "tune":
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def written() -> list[tuple[str, int]]:
    """Of every file that is written to be measured, its precision and how many images it was quantized with."""
    return []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, int]]) -> edgeprune.Outcome:
    write = MeasuringExporter.write

    def noted(self: MeasuringExporter, model: Model, file: Path) -> Path:
        done = write(self, model, file)
        written.append((precision_of(done), 0 if self.calibration is None else len(self.calibration)))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeasuringExporter, "write", noted)
        return edgeprune.run(recipe(), tmp_path_factory.mktemp("int8") / "run")


def test_all_that_is_measured_is_int8(whole: edgeprune.Outcome, written: list[tuple[str, int]]) -> None:
    """The unpruned model, its variants and the candidates, quantized with the run's calibration images."""
    assert len(written) >= 4
    assert set(written) == {("int8", 20)}
    assert precision_of(whole.folder / "probe" / "original.tflite") == "int8"
    table = LatencyTable()
    assert {row.precision for row in table.rows()} == {"int8"}
    (setting,) = table.settings()
    runs = table.models(setting)
    assert len(runs) == 3
    assert all(len(run.layers) == 4 for run in runs.values())  # each timed in its place


def test_the_records_say_which_file(whole: edgeprune.Outcome) -> None:
    pruned = PruneRecord.model_validate_json((whole.folder / "prune" / "prune.json").read_bytes())
    assert pruned.target_file == "tflite-int8"
    (int8,) = (file for file in whole.verdict.files if file.precision == "int8")
    (fp32,) = (file for file in whole.verdict.files if file.precision == "fp32")
    latency = {file.file: next(c for c in file.checks if c.name == "latency") for file in (int8, fp32)}
    assert (latency[int8.file].outcome, latency[int8.file].unit) == ("pass", "x")
    assert "int8" in latency[int8.file].why
    assert (latency[fp32.file].outcome, latency[fp32.file].unit) == ("info", "s")
    assert int8.against_original is not None
    assert "the int8 tflite file" in whole.page.read_text()
    assert "the int8 tflite file" in json.loads((whole.folder / "report" / "report.json").read_text())["target"]["why"]


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(recipe(), tmp_path / "run", progress=Hearer([], stop_at="attempt 1"))
    measured = (tmp_path / "run" / "probe" / "measurement.json").read_bytes()
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(recipe(), tmp_path / "run", resume=True, progress=UntilPruned(said))
    assert (tmp_path / "run" / "probe" / "measurement.json").read_bytes() == measured
    assert not any("other settings" in line for line in said)
    assert (tmp_path / "run" / "prune" / "stage.json").exists()


def test_another_file_is_measured_anew_and_tables_do_not_mix(whole: edgeprune.Outcome, tmp_path: Path) -> None:
    """The same run with the float file as target: the unpruned model, the table and the verdict are of that file."""
    said: list[str] = []
    before = {row.precision: len(LatencyTable().rows()) for row in LatencyTable().rows()}
    shutil.copytree(whole.folder, tmp_path / "run")
    fp32_target = recipe(prune={"target_file": "tflite-fp32"})
    outcome = edgeprune.run(fp32_target, tmp_path / "run", resume=True, progress=Hearer(said))
    assert "`probe` was finished with other settings than the recipe has now: it is done again" in said
    assert precision_of(tmp_path / "run" / "probe" / "original.tflite") == "fp32"
    assert all(file.against_original is not None for file in outcome.verdict.files)  # in turns, whichever is judged
    latency = {file.precision: next(c for c in file.checks if c.name == "latency") for file in outcome.verdict.files}
    assert {precision: check.unit for precision, check in latency.items()} == {"fp32": "x", "int8": "s"}
    rows = LatencyTable().rows()
    assert sum(row.precision == "int8" for row in rows) == before["int8"]
    assert {row.precision for row in rows} == {"fp32", "int8"}
    model = edgeprune.load(NET, input_size=(1, 16, 16))
    structure = find_structure(model.module, model.example_input())
    key = model_key(structure.layers, structure.sizes)
    int8, fp32 = sorted(LatencyTable().settings(), key=lambda setting: setting.precision == "fp32")
    assert (int8, fp32) == (replace(fp32, precision="int8"), replace(int8, precision="fp32"))
    measured = {s.precision: LatencyTable().models(s)[key].measurement.median_s for s in (int8, fp32)}
    for precision, seconds in measured.items():
        predicted = edgeprune.predict(model, precision=precision)
        assert predicted.seconds == pytest.approx(seconds, rel=0.5)
    shown = json.loads(CliRunner().invoke(app, ["table", "show", "--precision", "int8", "--json"]).stdout)
    assert [line["precision"] for line in shown] == ["int8"]
    command = ["predict", NET, "--input-size", "1,16,16", "--precision", "int8", "--json"]
    told = json.loads(CliRunner().invoke(app, command).stdout)
    assert told["seconds"] == edgeprune.predict(model, precision="int8").seconds


def test_the_target_is_of_the_float_file_unless_said_and_it_is_said() -> None:
    plain = recipe(prune={"target_file": None})
    assert str(target_file(plain)) == "tflite-fp32"
    assert "the fp32 tflite file" in told_of_target(plain)
    assert 'prune.target_file = "tflite-int8"' in told_of_target(plain)
    assert "target_file" not in told_of_target(recipe(prune={"target_file": None}, quantize={"enabled": False}))
    assert told_of_target(recipe()) == "the target 0.7x is of the int8 tflite file"


def test_what_a_run_of_before_read_is_what_it_reads_now() -> None:
    """A recipe without the key has the hash that it had: finished stages stay finished."""
    plain = recipe(prune={"target_file": None})
    sections = ("model", "data", "device", "prune.target_file")
    assert settings_hash(plain, sections) == settings_hash(plain, sections[:-1])
    assert settings_hash(recipe(), sections) != settings_hash(plain, sections)
    assert settings_hash(recipe(), (*sections, "prune")) != settings_hash(plain, (*sections, "prune"))


@pytest.mark.parametrize(
    ("sections", "facts"),
    [
        ({"prune": {"target_file": "tflite"}}, ("prune.target_file", "'tflite'", "tflite-int8")),
        ({"prune": {"target_file": "tflite-int4"}}, ("prune.target_file", "'tflite-int4'")),
        ({"prune": {"target_file": "tflit-int8"}}, ("prune.target_file", "'tflit-int8'", "tflite-int8")),
        ({"prune": {"target_file": "onnx-int8"}}, ("prune.target_file", "'onnx-int8'")),
        ({"prune": {"target_file": "pte-int8"}}, ("prune.target_file", "pte", "device.runtime", "executorch")),
        ({"device": {"runtime": "executorch"}}, ("prune.target_file", "tflite", "device.runtime", "pte-int8")),
        ({"prune": {"target_file": "coreml-fp16"}}, ("prune.target_file", "coreml", "tflite-int8")),
        (
            {"sparse": {"target": "0.4x"}, "prune": {"target": "0.6x"}},
            ("sparse.target", "prune.target_file", "tflite-int8"),
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_at_once(sections: dict[str, Any], facts: tuple[object, ...]) -> None:
    with refused(RecipeError, *facts):
        recipe(**sections)


@pytest.mark.parametrize(
    ("lines", "facts"),
    [
        ('export.formats = ["pte"]', ("export.formats", "tflite-int8")),
        ("quantize.enabled = false", ("quantize.enabled", "tflite-int8")),
        ('export.formats = ["pte", "tflite"]\nquantize.formats = ["pte"]', ("quantize.formats", "tflite-int8")),
    ],
)
def test_a_file_that_is_not_exported_is_refused_at_its_line(
    tmp_path: Path, lines: str, facts: tuple[object, ...]
) -> None:
    file = tmp_path / "recipe.toml"
    begin = f'model.factory = "{NET}"\nmodel.input_size = [1, 16, 16]\ndata.source = "digits"\n'
    file.write_text(f'{begin}prune.target_file = "tflite-int8"\n{lines}\n')
    with refused(RecipeError, f"{file}:4", "prune.target_file", *facts):
        read_recipe(file)
    file.write_text(f"{begin}{lines}\n")
    assert read_recipe(file).prune.target_file is None


def test_a_recipe_made_in_python_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    off = recipe(quantize={"enabled": False})
    with refused(RecipeError, "prune.target_file", "quantize.enabled"):
        edgeprune.run(off, tmp_path / "run")
    assert not (tmp_path / "run" / "load").exists()


def test_the_command_refuses_a_file_that_the_run_there_does_not_export(tmp_path: Path) -> None:
    create_run(tmp_path / "run", recipe(prune={"target_file": None}, export={"formats": ("onnx",)}), {})
    options: dict[str, Any] = {"input_size": (1, 16, 16), "untrained": True, "target": "0.7x"}
    with refused(RecipeError, "prune.target_file", "export.formats"):
        edgeprune.prune(NET, data="digits", out=tmp_path / "run", target_file="tflite-int8", **options)
    command = ["prune", NET, "--target", "0.7x", "--target-file", "coreml-int8", "--data", "digits", "--untrained"]
    result = CliRunner().invoke(app, [*command, "--input-size", "1,16,16", "--out", str(tmp_path / "other")])
    assert isinstance(result.exception, RecipeError)


def test_int8_of_a_typical_table_is_refused(tmp_path: Path) -> None:
    source = f"{Path(__file__).resolve().parents[2] / 'examples' / 'cifar_resnet.py'}:resnet20"
    images = np.random.default_rng(0).integers(0, 255, (120, 32, 32, 3), np.uint8)
    labels = np.arange(60) % 10
    arrays = {"train_images": images[:60], "test_images": images[60:], "train_labels": labels, "test_labels": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    options: dict[str, Any] = {"input_size": (3, 32, 32), "untrained": True, "target": "0.7x"}
    with refused(UsageError, "int8", "fp32", "profile:lab-cortex-a76"):
        edgeprune.prune(
            source,
            data=f"npz:{tmp_path / 'data.npz'}",
            out=tmp_path / "run",
            target_file="tflite-int8",
            device="profile:lab-cortex-a76",
            **options,
        )


def test_a_precision_that_is_not_there_is_refused_by_commands() -> None:
    for command in (["predict", "resnet18"], ["probe", "resnet18"], ["table", "show"]):
        result = CliRunner().invoke(app, [*command, "--precision", "int4"])
        assert isinstance(result.exception, UsageError)
    with refused(UsageError, "fp16", "litert", "int8"):
        edgeprune.probe(edgeprune.load(NET, input_size=(1, 16, 16)), precision="fp16")
