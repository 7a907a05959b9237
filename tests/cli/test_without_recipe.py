"""`edgeprune export MODEL` and `edgeprune verify FILE`: without a recipe and without a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_job import Done, Finished, inside, write_job

import edgeprune
from edgeprune.artifacts.manifest import file_hash, read_manifest
from edgeprune.data.record import read_record
from edgeprune.errors import DataError, RecipeError, RunError, UsageError
from edgeprune.runs import StageRecord

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_measuring")]

OPTIONS = ("--input-size", "1,16,16")
ANY_INT8 = ("--gate", "int8_agreement=0.01", "--gate", "int8_accuracy_drop=0.9")


@dataclass(frozen=True)
class Written:
    factory: str
    folder: Path
    done: Done

    def verify(self, name: str, *more: object) -> Done:
        return inside("verify", self.folder / name, "--untrained", "--images", 48, *more, "--json")

    def copied(self, to: Path) -> Written:
        return Written(self.factory, Path(shutil.copytree(self.folder, to)), self.done)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("without")
    factory = f"{write_job(folder).with_name('tiny.py')}:tiny"
    out = folder / "exported"
    done = inside(
        *("export", factory, *OPTIONS, "--untrained", "--data", "digits", "--format", "tflite", "--format", "onnx"),
        *("--out", out, "--json"),
    )
    return Written(factory, out, done)


def checks(done: Done) -> dict[str, str]:
    (file,) = done.json["files"]
    return {check["name"]: check["outcome"] for check in file["checks"]}


def test_a_model_is_written_as_it_is_with_manifests(written: Written) -> None:
    assert written.done.code == 0, written.done.err
    names = ["model_fp32.onnx", "model_fp32.tflite", "model_int8.tflite"]
    assert sorted(written.done.json["files"]) == names
    for name in names:
        manifest = read_manifest(written.folder / name)
        assert written.done.json["files"][name] == manifest.size_bytes
        assert len(manifest.labels) == 10  # the data's: the model has none of its own
    reference = load_file(written.folder / "reference.safetensors")
    model = edgeprune.load(written.factory, input_size=(1, 16, 16))
    with torch.no_grad():
        answers = model.module(torch.from_numpy(reference["input"])).numpy()
    np.testing.assert_allclose(answers, reference["output"], atol=1e-4)
    assert read_record(written.folder / "data.jsonl").counts()["calibration"] > 0
    left = {path.name for path in written.folder.iterdir()}
    assert left == {*names, *(f"{name}.json" for name in names), "reference.safetensors", "data.jsonl"}


def test_a_float_file_passes_by_its_parity(written: Written) -> None:
    done = written.verify("model_fp32.onnx", "--data", "digits")
    assert done.code == 0, done.err
    assert checks(done)["SQNR"] == "pass"
    assert done.json["test_images"] == 48
    assert checks(done)["top-1 accuracy"] == "info"
    assert "top-1 agreement" not in checks(done)
    (file,) = done.json["files"]
    assert file["latency"]["median_s"] > 0


def test_an_int8_file_is_held_to_the_model_or_to_the_float_file_beside_it(written: Written) -> None:
    by_model = written.verify("model_int8.tflite", "--data", "digits", *ANY_INT8, "--model", written.factory, *OPTIONS)
    beside = written.verify("model_int8.tflite", "--data", "digits", *ANY_INT8)
    for done in (by_model, beside):
        assert done.code == 0, done.err
        assert checks(done)["top-1 agreement"] == checks(done)["accuracy drop against the float model"] == "pass"
    values = [
        {c["name"]: c["value"] for c in done.json["files"][0]["checks"] if c["unit"] == "share"}
        for done in (by_model, beside)
    ]
    assert values[0] == values[1]
    assert any("model_fp32.tflite" in note for note in beside.json["notes"])
    assert by_model.json["notes"] == []


def test_what_cannot_be_held_does_not_pass(written: Written, tmp_path: Path) -> None:
    """No data, no float model, no gate: each ends undecided, never with 0."""
    alone = written.copied(tmp_path / "alone")
    for name in ("model_fp32.tflite", "model_fp32.tflite.json"):
        (alone.folder / name).unlink()
    unasked = alone.verify("model_int8.tflite")
    unheld = alone.verify("model_int8.tflite", "--data", "digits")
    ungated = alone.verify(
        "model_int8.tflite", "--gate", "int8_agreement=false", "--gate", "int8_accuracy_drop=false", "--data", "digits"
    )
    for done in (unasked, unheld, ungated):
        assert (done.code, done.json["outcome"]) == (4, "undecided"), done.err
    assert checks(unasked)["top-1 agreement"] == checks(unheld)["top-1 agreement"] == "undecided"
    assert checks(ungated)["gates"] == "undecided"
    assert "top-1 accuracy" not in checks(unasked)
    assert "top-1 accuracy" in checks(unheld)


def test_a_float_file_whose_own_parity_fails_stands_in_for_nothing(written: Written, tmp_path: Path) -> None:
    copy = written.copied(tmp_path / "other")
    _change_reference(copy.folder)
    broken = copy.verify("model_fp32.tflite", "--data", "digits")
    assert (broken.code, checks(broken)["SQNR"]) == (1, "fail")
    assert copy.verify("model_int8.tflite", "--data", "digits", *ANY_INT8).code == 4
    done = copy.verify("model_int8.tflite", "--data", "digits", "--model", written.factory, *OPTIONS)
    done.fails(UsageError, written.factory)


def test_a_missed_gate_is_exit_code_1(written: Written) -> None:
    done = written.verify("model_fp32.onnx", "--gate", "size_bytes=10")
    assert (done.code, done.json["outcome"], checks(done)["file size"]) == (1, "fail", "fail")


def test_a_file_without_its_manifest_or_changed_is_refused(written: Written, tmp_path: Path) -> None:
    copy = written.copied(tmp_path / "copy")
    (copy.folder / "model_fp32.tflite.json").unlink()
    copy.verify("model_fp32.tflite").fails(UsageError, "model_fp32.tflite.json", "edgeprune export")
    onnx = copy.folder / "model_fp32.onnx"
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    copy.verify("model_fp32.onnx").fails(UsageError, onnx, "sha256")
    copy.verify("nowhere.tflite").fails(UsageError, copy.folder / "nowhere.tflite")
    (copy.folder / "reference.safetensors").unlink()
    copy.verify("model_int8.tflite").fails(UsageError, "reference.safetensors")


def test_images_that_were_calibrated_on_are_not_tested_on(written: Written, tmp_path: Path) -> None:
    """Another seed divides the same digits otherwise; what calibration and training took is left out by its pixels."""
    other = inside(
        "verify", written.folder / "model_fp32.onnx", "--untrained", "--data", "digits", "--seed", 1, "--json"
    )
    assert other.code == 0, other.err
    (note,) = other.json["notes"]
    assert 0 < other.json["test_images"] < 359
    assert note.startswith(f"{359 - other.json['test_images']} of 359 ")
    copy = written.copied(tmp_path / "unrecorded")
    (copy.folder / "data.jsonl").unlink()
    unknown = copy.verify("model_fp32.onnx", "--data", "digits")
    (note,) = unknown.json["notes"]
    assert "recorded" in note
    assert unknown.code == 0


def test_a_file_in_a_run_folder_has_the_runs_record(finished: Finished, written: Written) -> None:
    done = inside(
        *("verify", finished.run / "export" / "model_int8.tflite", "--data", "digits", "--untrained", "--images", 48),
        *(*ANY_INT8, "--model", finished.run, "--trust", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["notes"] == []  # the same data, divided by the same seed: no test image was seen
    assert checks(done)["top-1 agreement"] == "pass"
    record = StageRecord.model_validate_json((finished.run / "export" / "stage.json").read_text())
    for entry in record.files:
        assert file_hash(finished.run / "export" / entry.path) == entry.sha256  # nothing was written there


def test_without_data_the_reference_is_random_and_int8_is_refused(written: Written, tmp_path: Path) -> None:
    export = ("export", written.factory, *OPTIONS, "--untrained", "--format", "onnx", "--out")
    inside(*export, tmp_path / "no", "--int8").fails(UsageError, "--int8", "--data")
    assert not (tmp_path / "no").exists()
    done = inside(*export, tmp_path / "float", "--json")
    assert done.code == 0, done.err
    assert list(done.json["files"]) == ["model_fp32.onnx"]
    assert not (tmp_path / "float" / "data.jsonl").exists()
    again = inside("verify", tmp_path / "float" / "model_fp32.onnx", "--json")
    assert (again.code, checks(again)["SQNR"]) == (0, "pass")


def test_options_that_mean_nothing_are_refused(written: Written, finished: Finished, tmp_path: Path) -> None:
    inside("export", finished.run, "--data", "digits").fails(UsageError, "--data", finished.run)
    inside("export", finished.run, "--pretrained", "--out", tmp_path).fails(UsageError, "--pretrained", "--out")
    inside("verify", finished.run, "--model", "resnet18").fails(UsageError, "--model")
    inside("export", written.factory, *OPTIONS).fails(UsageError, "--out")
    inside("export", written.factory, *OPTIONS, "--out", tmp_path, "--trust").fails(UsageError, "--trust")
    inside("export", written.factory, *OPTIONS, "--out", written.folder).fails(UsageError, written.folder, "--out")
    inside("export", written.factory, *OPTIONS, "--out", tmp_path / "x", "--format", "tiff").fails(
        RecipeError, "'tiff'"
    )
    inside("export", tmp_path / "nowhere").fails(RunError, tmp_path / "nowhere")
    written.verify("model_fp32.onnx", "--explain").fails(UsageError, "--explain")
    written.verify("model_fp32.onnx", *OPTIONS).fails(UsageError, "--input-size", "--model")
    written.verify("model_fp32.onnx", "--gate", "speed=1").fails(RecipeError, "speed")
    written.verify("model_fp32.onnx", "--gate", "size_bytes").fails(UsageError, "size_bytes")
    assert not (tmp_path / "x").exists()


def test_data_that_the_file_has_seen_as_a_whole_are_refused(written: Written, tmp_path: Path) -> None:
    copy = written.copied(tmp_path / "seen")
    record = copy.folder / "data.jsonl"
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    for line in lines[1:]:
        if line[0] == "image":
            line[2] = "calibration"
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    copy.verify("model_fp32.onnx", "--data", "digits").fails(DataError, "digits")


def _change_reference(folder: Path) -> None:
    """The reference of another model."""
    tensors = load_file(folder / "reference.safetensors")
    save_file({**tensors, "output": tensors["output"][:, ::-1].copy()}, folder / "reference.safetensors")


def test_a_file_tells_its_users_own_task_without_where_it_lay(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from edgeprune.tasks.classification import Classification\n\n\nclass Own(Classification):\n    pass\n"
    own, empty = tmp_path / "own", tmp_path / "empty"
    for folder in (own, empty):
        folder.mkdir()
    (own / "own.py").write_text(code)
    out = tmp_path / "out"
    task = ("--task", f"{own / 'own.py'}:Own")
    done = inside("export", written.factory, *OPTIONS, "--untrained", *task, "--format", "onnx", "--out", out)
    assert done.code == 0, done.err
    manifest = out / "model_fp32.onnx.json"
    assert json.loads(manifest.read_text())["task"]["name"] == "own.py:Own"
    assert str(tmp_path) not in manifest.read_text()

    def verified(folder: Path, *more: str) -> Done:
        monkeypatch.chdir(folder)
        return inside("verify", out / "model_fp32.onnx", "--untrained", *more, "--json")

    assert verified(own, "--trust").code == 0, done.err
    assert verified(own).code == 0  # the user has named it in export
    gone = verified(empty, "--trust")
    assert (gone.code, "own.py" in gone.err) == (2, True)
    (own / "own.py").write_text(code + "\n# another\n")
    assert "--trust" in verified(own).err
    assert verified(own, "--trust").code == 0
