"""The whole way: real files, exported by the toolkits, run on this machine and judged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import export
from facts import refused
from listening import Listening
from small_nets import randomize
from torch import Tensor, nn

from edgeprune.artifacts.manifest import Manifest
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DataError, RunError, UsageError
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import Target, VerdictLimits
from edgeprune.tasks.objective import CLASSIFYING
from edgeprune.verify.check import verify
from edgeprune.verify.execute import REFERENCE_EXECUTION, run_file
from edgeprune.verify.parity import sqnr_db, top1_agreement
from edgeprune.verify.verdict import Verdict, exit_code

pytestmark = pytest.mark.slow

LIMITS = VerdictLimits(accuracy_drop=0.5, size_bytes=1e6, peak_memory_bytes=1e10)


class Saying(Silent):
    """Keeps what is said."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)


class Images:
    """Random images, labelled by the net itself: its accuracy is 1 by construction."""

    def __init__(self, net: nn.Module, count: int) -> None:
        self.images = torch.randn(count, 3, 12, 16, generator=torch.Generator().manual_seed(7))
        with torch.inference_mode():
            self.labels = net(self.images).argmax(1)
        assert len(self.labels.unique()) > 2  # else agreement would prove nothing

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True)


class Exported:
    """A net (not square, so that a wrong layout shows), its files, and images."""

    def __init__(self, folder: Path) -> None:
        net = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1, groups=16), nn.ReLU6())
        self.net = randomize(nn.Sequential(*net, nn.Flatten(), nn.Linear(16 * 6 * 8, 5)))
        spec = ModelSpec(
            source="tests:net",
            input_size=(3, 12, 16),
            num_classes=5,
            preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3),
        )
        self.folder = folder
        self.test = Images(self.net, 90)
        self.manifests = export(
            Model(spec, self.net),
            folder,
            formats=("tflite", "coreml", "onnx"),
            int8=True,
            calibration=self.test.images[:64],
            reference_input=self.test.images[:4],
        )

    def answers(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.net(torch.from_numpy(images)).numpy()

    def manifest(self, file_format: str, precision: str) -> Manifest:
        return next(m for m in self.manifests if (m.format, m.precision) == (file_format, precision))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    for toolkit in ("litert_torch", "ai_edge_quantizer", "coremltools", "onnx", "onnxruntime"):
        pytest.importorskip(toolkit)
    return Exported(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> LocalDevice:
    return LocalDevice(tmp_path_factory.mktemp("device"))


def check(exported: Exported, device: LocalDevice, **changes: Any) -> Verdict:
    original = exported.folder / exported.manifest("tflite", "fp32").file
    settings: dict[str, Any] = {
        "manifests": exported.manifests,
        "folder": exported.folder,
        "device": device,
        "float_outputs": lambda images: (exported.answers(images),),
        "test": exported.test,
        "limits": LIMITS,
        "target": Target.parse("1000x"),
        "original_file": original,
        "runtime": "litert",
        "threads": 1,
        "protocol": "quick",
        "images": None,
        "objective": CLASSIFYING,
        "rows": dict.fromkeys(("original", "merged"), np.stack([exported.test.labels.numpy()] * 2, 1).astype(float)),
    }
    return verify(**{**settings, **changes})


def test_every_file_is_run_and_judged(exported: Exported, device: LocalDevice) -> None:
    said: list[str] = []
    verdict = check(exported, device, progress=Saying(said))
    assert [f.file for f in verdict.files] == [m.file for m in exported.manifests]
    assert verdict.test_images == 90
    assert any("test images 1 to 90 of 90" in line for line in said)
    for file in verdict.files:
        checks = {c.name: c for c in file.checks}
        assert checks["top-1 accuracy"].value == checks["top-1 agreement"].value  # the labels are the net's own
        assert checks["file size"].outcome == "pass"
        on_device = file.format != "coreml"
        assert ("no device" in file.executed_on) is not on_device
        assert (file.latency is not None) is on_device
        assert ("peak memory" in checks) is on_device
        assert (file.against_original is not None) is on_device  # every one that the device runs, whatever its runtime
        if file.precision == "fp32":
            assert checks["SQNR"].outcome == "pass"
            assert checks["top-1 agreement"].value == 1.0
        assert checks["SQNR"].value > {"fp32": 100, "fp16": 45, "int8": 15}[file.precision]
    judged = exported.manifest("tflite", "fp32").file
    for file in verdict.files:
        latency = {c.name: c.outcome for c in file.checks}.get("latency")
        assert latency == ("pass" if file.file == judged else "info" if file.format != "coreml" else None)
    assert {one.runtime for one in verdict.shipping} == {"litert", "onnxruntime", "coreml"}
    passing = {f.file for f in verdict.files if f.passes}
    assert all(one.file in passing for one in verdict.shipping if one.file)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_target_that_cannot_be_met_fails_the_verdict(exported: Exported, device: LocalDevice) -> None:
    manifest = exported.manifest("tflite", "fp32")
    verdict = check(
        exported, device, manifests=[manifest], target=Target.parse("0.001us"), original_file=None, images=5
    )
    latency = next(c for c in verdict.files[0].checks if c.name == "latency")
    assert verdict.test_images == 5
    assert (latency.outcome, latency.unit) == ("fail", "s")
    assert verdict.outcome == "fail"
    assert exit_code(verdict) == (4 if latency.uncertain else 1)


def test_eight_images_prove_no_gate_of_int8(exported: Exported, device: LocalDevice) -> None:
    manifest = exported.manifest("tflite", "int8")
    verdict = check(
        exported, device, manifests=[manifest], target=None, original_file=None, images=8, limits=VerdictLimits()
    )
    checks = {c.name: c for c in verdict.files[0].checks}
    outcomes = {checks[name].outcome for name in ("top-1 agreement", "accuracy drop against the float model")}
    assert outcomes <= {"undecided", "fail"}
    assert exit_code(verdict) in (1, 4)
    assert checks["top-1 agreement"].interval is not None
    low, high = verdict.accuracy_intervals["original"]
    assert (high, low) == (1.0, pytest.approx(0.6756, abs=1e-3))
    low, high = verdict.changes["merged"]
    assert low < -0.1 < 0.1 < high


def test_int8_files_take_their_own_layout_and_steps(exported: Exported, device: LocalDevice) -> None:
    """Quantized input and output, NHWC: a transposed or wrongly scaled image would not agree."""
    manifest = exported.manifest("tflite", "int8")
    assert (manifest.inputs[0].dtype, manifest.outputs[0].dtype, manifest.inputs[0].layout) == ("int8", "int8", "NHWC")
    images = exported.test.images.numpy()
    progress = Listening()
    execution = run_file(device, exported.folder / manifest.file, manifest, images, progress=progress)
    assert progress.told[-1] == (f"{manifest.file} on local", len(images), len(images))
    reference = exported.answers(images)
    (outputs,) = execution.outputs
    assert outputs.dtype == np.float32
    assert execution.executed_on.startswith("local, litert")
    assert top1_agreement(reference, outputs) >= 0.9
    assert sqnr_db(reference, outputs) >= 15
    flipped = run_file(device, exported.folder / manifest.file, manifest, images[:, :, ::-1].copy())
    assert sqnr_db(reference, flipped.outputs[0]) < 10


def test_core_ml_is_marked_as_run_on_no_device(exported: Exported, device: LocalDevice) -> None:
    manifest = exported.manifest("coreml", "fp16")
    execution = run_file(device, exported.folder / manifest.file, manifest, exported.test.images[:2].numpy())
    assert execution.executed_on == REFERENCE_EXECUTION
    assert execution.peak_memory_bytes is None


@pytest.mark.parametrize("file_format", ["onnx", "coreml"])
def test_a_changed_file_is_noticed(exported: Exported, device: LocalDevice, tmp_path: Path, file_format: str) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "copy")
    manifest = next(m for m in exported.manifests if m.format == file_format)
    file = folder / manifest.file
    if file.is_dir():
        file = next(p for p in sorted(file.rglob("*")) if p.is_file())
    file.write_bytes(file.read_bytes() + b"\n")
    with refused(RunError, folder, "exported"):
        check(exported, device, folder=folder)
    shutil.rmtree(folder)
    with refused(RunError, folder):
        check(exported, device, folder=folder)


def test_what_cannot_be_judged_is_refused(exported: Exported, device: LocalDevice) -> None:
    with refused(RunError, "exported"):
        check(exported, device, manifests=[])
    one = [exported.manifest("onnx", "fp32")]
    with refused(UsageError, "original"):
        check(exported, device, manifests=one, original_file=None, images=1)
    empty = Images(exported.net, 90)
    empty.images, empty.labels = empty.images[:0], empty.labels[:0]
    with refused(DataError, "images"):
        check(exported, device, manifests=one, test=empty)
    with refused(DataError, 4):
        check(
            exported,
            device,
            manifests=one,
            float_outputs=lambda images: (np.zeros((len(images), 4), np.float32),),
            images=1,
        )
