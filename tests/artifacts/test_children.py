"""Conversion children that go wrong: the error is clear, the parent lives, nothing half-written stays."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exporting import export
from facts import refused, tells
from torch import nn

from edgeprune.artifacts.child import Child
from edgeprune.artifacts.export import export_each
from edgeprune.artifacts.jobs import Converted, ConvertJob, Output
from edgeprune.artifacts.program import save_program
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import ConversionError, DataError, EdgePruneError, ToolkitMissing, UsageError
from edgeprune.models.spec import Model, ModelSpec, OutputSpec, Preprocessing
from edgeprune.verify.execute import run_file

pytestmark = pytest.mark.usefixtures("strange_exporters")


def tiny(module: nn.Module | None = None) -> Model:
    spec = ModelSpec(
        source="tests:tiny", input_size=(3, 8, 8), num_classes=4, preprocessing=Preprocessing(mean=(0.5,), std=(0.5,))
    )
    return Model(spec, module or nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval())


def try_export(folder: Path, *formats: str, module: nn.Module | None = None, images: int = 2) -> EdgePruneError:
    data = torch.randn(images, 3, 8, 8)
    with pytest.raises(EdgePruneError) as caught:
        export(tiny(module), folder, formats=formats, int8=False, calibration=None, reference_input=data)  # type: ignore[arg-type]
    return caught.value


def left_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("aborting", ("crashed (signal SIGABRT)", "deep trouble in the toolkit", "aborting fp32", "model_fp32.bin")),
        ("raising", ("ValueError: cannot convert a flux capacitor", "chatter on stdout", "chatter from C++")),
        ("hungry", ("ran out of memory", "no room for 9 TB")),
        ("killed", ("signal SIGKILL", "memory runs out")),
        ("leaving", ("exit code 7",)),
    ],
)
def test_a_failing_toolkit_is_one_clear_error_and_leaves_no_file(
    tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "out"
    error = try_export(folder, name)
    assert isinstance(error, ConversionError)
    for word in words:
        assert word in str(error)
    assert left_in(folder) == {"reference.safetensors"}


def test_all_that_failed_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    data = torch.randn(2, 3, 8, 8)
    done = export_each(tiny(), folder, formats=("aborting", "raising"), int8=(), calibration=None, reference_input=data)
    assert done.manifests == ()
    assert [one.file for one in done.not_written] == ["model_fp32.bin", "model_fp32.raised.bin"]
    assert tells(done.not_written[0].error, "SIGABRT")
    assert tells(done.not_written[1].error, "flux capacitor")
    assert left_in(folder) == {"reference.safetensors"}


def test_places_in_a_toolkits_code_are_left_out(tmp_path: Path) -> None:
    error = try_export(tmp_path / "out", "raising")
    assert error.exit_code == 2
    assert "chatter" in str(error)
    for place in ('File "', "Traceback", str(Path(__file__).parents[2]), "^^^"):
        assert place not in str(error)


@pytest.mark.parametrize(("name", "memory"), [("hungry", True), ("killed", True), ("raising", False)])
def test_memory_is_named_where_it_was_memory(tmp_path: Path, name: str, memory: bool) -> None:
    assert ("free memory" in (try_export(tmp_path / "out", name).hint or "")) == memory


def test_a_limit_of_memory_that_was_not_met_is_no_advice(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, before[1]))
    try:
        error = try_export(tmp_path / "out", "raising")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "ulimit -v" in error.what
    assert "free memory" not in (error.hint or "")


def test_a_missing_toolkit_names_the_extra_before_anything_is_done(tmp_path: Path) -> None:
    error = try_export(tmp_path / "out", "aborting", "missing")
    assert isinstance(error, ToolkitMissing)
    assert "no_such_toolkit" in str(error)
    assert "pip install 'edgeprune[nothing]'" in str(error)
    assert left_in(tmp_path / "out") == set()


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    error = try_export(tmp_path / "out", "bananas")
    assert isinstance(error, UsageError)
    assert "bananas" in str(error)
    assert "tflite" in str(error)


def test_no_images_is_a_data_error(tmp_path: Path) -> None:
    assert isinstance(try_export(tmp_path / "out", "raising", images=0), DataError)


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean((2, 3)), x.sum((2, 3))


def test_a_file_has_as_many_outputs_as_its_model(tmp_path: Path) -> None:
    outputs = tuple(OutputSpec(name=name, shape=(1, 3)) for name in ("mean", "sum"))
    model = tiny(Two().eval())
    model = replace(model, spec=model.spec.model_copy(update={"outputs": outputs}))
    data = torch.randn(2, 3, 8, 8)
    with refused(ConversionError, 1, 2):  # the exporter describes one
        export(model, tmp_path / "out", formats=("chatty",), int8=False, calibration=None, reference_input=data)  # type: ignore[arg-type]
    assert left_in(tmp_path / "out") == {"reference.safetensors"}
    (manifest,) = export(
        model, tmp_path / "onnx", formats=("onnx",), int8=False, calibration=None, reference_input=data
    )
    assert [(one.of, one.shape) for one in manifest.outputs] == [("mean", (1, 3)), ("sum", (1, 3))]
    execution = run_file(LocalDevice(), tmp_path / "onnx" / manifest.file, manifest, data.numpy())
    for given, expected in zip(execution.outputs, model.module(data), strict=True):
        torch.testing.assert_close(torch.from_numpy(given), expected)


def job(folder: Path, name: str) -> ConvertJob:
    save_program(tiny(), folder / "program.pt2")
    outputs = tuple(Output(precision=p, file=folder / f"{p}.bin") for p in ("fp32", "int8"))
    return ConvertJob(exporter=name, program=folder / "program.pt2", outputs=outputs)


def test_what_a_toolkit_prints_cannot_be_taken_for_an_answer_and_one_child_serves_many_jobs(tmp_path: Path) -> None:
    request = job(tmp_path, "chatty")
    with Child("chatty") as child:
        for _ in range(2):
            answers = list(child.run(request))
            assert [a.weights_precision for a in answers if isinstance(a, Converted)] == ["fp32", "int8"]
            assert (tmp_path / "int8.bin").read_bytes() == b"whole int8"


def test_a_job_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    request = job(tmp_path, "sleeping")
    with Child("sleeping", timeout_s=4) as child, refused(ConversionError, "4 s"):
        list(child.run(request))
    assert not child.alive


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """The parent dies in the middle of a conversion, without a chance to clean up."""
    request = job(tmp_path, "sleeping")
    code = f"""
import os, threading
from edgeprune.artifacts.child import Child
from edgeprune.artifacts.jobs import ConvertJob
child = Child("sleeping").__enter__()
print(child._process.pid, flush=True)
threading.Timer(2, os._exit, (0,)).start()
list(child.run(ConvertJob.model_validate_json({request.model_dump_json()!r})))
"""
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    pid = int(parent.stdout.split()[0])
    for _ in range(200):
        if not _running(pid):
            return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent by 20 s")


def test_ctrl_c_ends_the_toolkits_and_leaves_no_half_written_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code = f"""
import os, signal, threading, time, torch
from pathlib import Path
from torch import nn
from edgeprune.artifacts.export import export_each
from edgeprune.models.spec import Model, ModelSpec, OutputSpec, Preprocessing
from edgeprune.verify.execute import run_file
spec = ModelSpec(source="x", input_size=(3, 8, 8), num_classes=4, preprocessing=Preprocessing(mean=(0,), std=(1,)))
model = Model(spec, nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval())
def interrupt():
    while not list(Path({str(folder)!r}).glob("reference.safetensors")):
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
export_each(model, Path({str(folder)!r}), formats=("sleeping",), int8=(), calibration=None,
       reference_input=torch.randn(1, 3, 8, 8))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert left_in(folder) == {"reference.safetensors"}


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
