"""A toolkit that cannot write a file: told before anything is trained, and at export no other file goes with it."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_job import inside, stamps, write_job

from edgeprune.artifacts.toolkits import Toolkits

# A distribution that stands before ours on the path: its entry points are found in the place of ours.
BROKEN = """
from exporters.onnx import OnnxExporter

class Broken(OnnxExporter):
    precisions = ("fp32", "int8")

    def convert(self, program, outputs, calibration):
        for output in outputs:
            if output.precision == "int8":
                raise ValueError("cannot quantize the operator FLUX_CAPACITOR")
            yield from super().convert(program, [output], calibration)
"""
POINTS = """
[edgeprune.exporters]
tflite = exporters.tflite:TFLiteExporter
onnx = broken_exporter:Broken

[edgeprune.methods]
taylor = edgeprune.methods.taylor:Taylor

[edgeprune.tasks]
classification = edgeprune.tasks.classification:Classification
"""


@pytest.fixture
def broken_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    information = site / "edgeprune-9.9.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: edgeprune\nVersion: 9.9\n")
    (information / "entry_points.txt").write_text(POINTS)
    (site / "broken_exporter.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    importlib.invalidate_caches()
    with Toolkits():  # children that other tests began have the whole exporter
        yield


@pytest.mark.usefixtures("broken_onnx")
def test_int8_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    recipe = write_job(tmp_path / "job", export={"formats": ["onnx"]})
    run = tmp_path / "run"
    inside("run", recipe, "--out", run).refused("model_int8.onnx", "FLUX_CAPACITOR", "quantize.enabled")
    assert set(stamps(run)) == {"load"}


@pytest.mark.usefixtures("broken_onnx")
def test_file_that_fails_takes_no_other_along(copied: Path) -> None:
    done = inside("export", copied, "--format", "tflite", "--format", "onnx", "--json")
    assert done.code == 1, done.err
    assert set(done.json["files"]) == {"model_fp32.tflite", "model_int8.tflite", "model_fp32.onnx"}
    (failed,) = done.json["not_written"]
    assert failed["file"] == "model_int8.onnx"
    assert "FLUX_CAPACITOR" in failed["why"]
    verdict = inside("verify", copied, "--json")
    assert verdict.code == 1, verdict.err
    outcomes = {file["file"]: [check["outcome"] for check in file["checks"]] for file in verdict.json["files"]}
    assert outcomes["model_int8.onnx"] == ["fail"]
    assert "fail" not in outcomes["model_fp32.tflite"] + outcomes["model_fp32.onnx"]
    assert json.loads((copied / "export" / "model_fp32.tflite.json").read_text())["format"] == "tflite"


def test_int8_of_what_is_not_exported_or_has_none(tmp_path: Path) -> None:
    recipe = write_job(tmp_path / "a", export={"formats": ["tflite"]}, quantize={"formats": ["pte"]})
    inside("run", recipe, "--out", tmp_path / "run").refused("quantize.formats", "pte")
    recipe = write_job(tmp_path / "b", export={"formats": ["tflite", "onnx"]}, quantize={"formats": ["onnx"]})
    inside("run", recipe, "--out", tmp_path / "run").refused("quantize.formats", "onnx")
