"""Exporters that end otherwise than they should: what was written stays, what was not is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.artifacts.export import Exported, export_each
from edgeprune.artifacts.toolkits import Toolkits
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.recipe import Format

# In the place of the product's own exporters: a distribution of its name that is found first.
CODE = """
from edgeprune.artifacts.jobs import Converted
from edgeprune.artifacts.manifest import TensorSpec

class Base:
    suffix, precisions, runtime, packages, extra = ".bin", ("fp32", "int8"), None, (), "none"
    def load(self): pass
    def write(self, outputs):
        for output in outputs:
            output.file.write_bytes(b"whole")
            image = TensorSpec(name="x", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW")
            answer = TensorSpec(name="y", shape=(1, 4), dtype="float32", layout="NC")
            yield Converted(weights_precision=output.precision, input=image, output=answer)

class Short(Base):
    name = "tflite"
    def convert(self, program, outputs, calibration):
        return self.write([output for output in outputs if output.precision == "fp32"])

class Once(Base):
    name, suffix, jobs = "pte", ".once.bin", 0
    def convert(self, program, outputs, calibration):
        Once.jobs += 1
        if Once.jobs > 1:
            raise ValueError("one job is all I can do")
        yield from self.write(outputs)

class Late(Base):
    name, suffix, packages = "onnx", ".late.bin", ("exporters",)  # a package that no distribution of this name installs
    def convert(self, program, outputs, calibration):
        yield from self.write(outputs)
        raise ValueError("too late to fail")
"""
POINTS = """
[edgeprune.exporters]
tflite = odd_exporters:Short
pte = odd_exporters:Once
onnx = odd_exporters:Late
"""


@pytest.fixture(scope="module", autouse=True)
def _odd_exporters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    site = tmp_path_factory.mktemp("odd") / "site"
    information = site / "edgeprune-9.9.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: edgeprune\nVersion: 9.9\n")
    (information / "entry_points.txt").write_text(POINTS)
    (site / "odd_exporters.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
        yield


def export_to(folder: Path, *formats: Format) -> Exported:
    images = torch.randn(2, 3, 8, 8)
    spec = ModelSpec(
        source="tests:tiny", input_size=(3, 8, 8), num_classes=4, preprocessing=Preprocessing(mean=(0.5,), std=(0.5,))
    )
    model = Model(spec, nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval())
    return export_each(model, folder, formats=formats, int8=formats, calibration=images, reference_input=images)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, _odd_exporters: None) -> Exported:
    return export_to(tmp_path_factory.mktemp("out"), "tflite", "onnx")


def test_a_file_that_an_exporter_does_not_give_is_told_and_takes_none_along(exported: Exported) -> None:
    assert [(one.format, one.precision) for one in exported.not_written] == [("tflite", "int8")]
    assert [m.precision for m in exported.manifests if m.format == "tflite"] == ["fp32"]


def test_an_exporter_that_fails_after_its_last_file_has_written_all(exported: Exported) -> None:
    assert [m.precision for m in exported.manifests if m.format == "onnx"] == ["fp32", "int8"]


def test_a_package_without_a_version_is_no_failure(exported: Exported) -> None:
    (one, _) = (m for m in exported.manifests if m.format == "onnx")
    assert one.toolkit["exporters"] == "unknown"


def test_what_one_childs_earlier_job_spoils_is_written_by_a_new_one(tmp_path: Path) -> None:
    with Toolkits():
        for number in range(3):
            done = export_to(tmp_path / str(number), "pte", "tflite")
            assert [(one.format, one.precision) for one in done.not_written] == [("tflite", "int8")]
            assert [m.precision for m in done.manifests if m.format == "pte"] == ["fp32", "int8"]
