"""The exported files, run by the runtimes that users have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_runtimes import run, sqnr_db
from safetensors.torch import load_file

from edgeprune.artifacts.manifest import manifest_path, read_manifest
from edgeprune.artifacts.preparation import Preparation

FILES = (
    "model_fp32.onnx",
    "model_fp16.mlpackage",
    "model_int8.mlpackage",
    "model_fp32.tflite",
    "model_int8.tflite",
    "model_fp32.pte",
    "model_int8.pte",
)


@pytest.mark.parametrize("file", ["model_fp32.tflite", "model_fp32.pte", "model_fp32.onnx"])
def test_float_files_answer_as_torch_does(exported: Any, file: str) -> None:
    assert sqnr_db(exported.answers, run(exported.folder, exported.of(file), exported.reference)) >= 100


@pytest.mark.parametrize("file", ["model_int8.tflite", "model_int8.pte"])
def test_int8_files_answer_nearly_so_and_are_not_float_in_disguise(exported: Any, file: str) -> None:
    got = run(exported.folder, exported.of(file), exported.reference)
    assert 20 <= sqnr_db(exported.answers, got) <= 60
    assert (got.argmax(1) == exported.answers.argmax(1)).float().mean() >= 0.95


def test_exactly_the_named_files_are_there(exported: Any) -> None:
    assert [m.file for m in exported.manifests] == list(FILES)  # in the order asked for, float first
    expected = {*FILES, *(f"{file}.json" for file in FILES), "reference.safetensors"}
    assert {p.name for p in exported.folder.iterdir()} == expected


@pytest.mark.parametrize("file", FILES)
def test_every_manifest_reads_back_and_describes_its_file(exported: Any, file: str) -> None:
    manifest = read_manifest(manifest_path(exported.folder / file))
    assert manifest == exported.of(file)
    assert manifest.labels == ("a", "b", "c", "d", "e")
    assert manifest.preprocessing == Preparation.of(exported.model.spec)
    assert (manifest.version, manifest.untold) == (3, "")
    assert manifest.inputs[0].shape == ((1, 16, 16, 3) if file.endswith(".tflite") else (1, 3, 16, 16))
    assert manifest.outputs[0].shape == (1, 5)
    assert manifest.seconds > 0
    assert manifest.size_bytes > 0
    assert "torch" in manifest.toolkit


@pytest.mark.parametrize("file", FILES)
def test_no_file_tells_where_or_how_its_model_was_written(exported: Any, file: str) -> None:
    """Not a folder of this machine, not a source file's name or line, of the user's or of a package."""
    place = exported.folder / file
    parts = [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
    tellers = (
        str(Path(__file__).parent), "tiny_network.py", str(Path.home()), "site-packages", "Traceback", 'File "',
        "self.left(x)", str(exported.folder),
    )  # fmt: skip
    for part in [*parts, manifest_path(place)]:
        content = part.read_bytes()
        told = [word for word in tellers if word.encode() in content or word.encode("utf-16-le") in content]
        assert not told, (part.name, told)


def test_the_names_in_the_manifest_are_those_in_the_file(exported: Any) -> None:
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    session = onnxruntime.InferenceSession(str(exported.folder / "model_fp32.onnx"))
    spec = exported.of("model_fp32.onnx")
    assert (session.get_inputs()[0].name, session.get_outputs()[0].name) == (spec.inputs[0].name, spec.outputs[0].name)
    interpreter = Interpreter(str(exported.folder / "model_int8.tflite"))
    spec = exported.of("model_int8.tflite")
    assert interpreter.get_input_details()[0]["name"] == spec.inputs[0].name
    assert interpreter.get_output_details()[0]["name"] == spec.outputs[0].name


def test_only_the_int8_tflite_has_int8_input_and_output(exported: Any) -> None:
    kinds = {m.file: (m.inputs[0].dtype, m.outputs[0].dtype) for m in exported.manifests}
    assert kinds.pop("model_int8.tflite") == ("int8", "int8")
    assert set(kinds.values()) == {("float32", "float32")}


def test_the_int8_input_covers_all_calibration_images(exported: Any) -> None:
    (spec,) = exported.of("model_int8.tflite").inputs
    low, high = ((stored - spec.zero_point) * spec.scale for stored in (-128, 127))
    assert low - spec.scale <= float(exported.calibration.min())
    assert high + spec.scale >= float(exported.calibration.max())


def test_the_reference_is_what_torch_answers(exported: Any) -> None:
    reference = load_file(exported.folder / "reference.safetensors")
    assert reference.keys() == {"input", "output"}
    assert torch.equal(reference["input"], exported.reference)
    torch.testing.assert_close(reference["output"], exported.answers)


@pytest.mark.parametrize("file", ["model_fp32.tflite", "model_int8.tflite", "model_fp32.pte", "model_int8.pte"])
def test_all_operators_of_this_network_run_in_xnnpack(exported: Any, file: str) -> None:
    delegation = exported.of(file).delegation
    assert delegation.backend == "xnnpack"
    assert delegation.outside_operators == {}
    assert delegation.outside == 0
    assert delegation.delegated >= 6  # 3 convolutions, add, pooling, linear


def test_others_say_nothing_of_delegation(exported: Any) -> None:
    assert {m.delegation for m in exported.manifests if m.format in ("coreml", "onnx")} == {None}


def test_each_file_is_announced(exported: Any) -> None:
    assert len(exported.said) == len(FILES)
    assert all(any(file in line for line in exported.said) for file in FILES)


def test_the_onnx_file_holds_its_weights(exported: Any) -> None:
    import onnx

    model = onnx.load(str(exported.folder / "model_fp32.onnx"), load_external_data=False)
    assert len(model.graph.initializer) >= 8
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_core_ml_int8_weights_are_the_float_ones_to_half_a_step(exported: Any) -> None:
    float_weights, int8_weights = (_core_ml_weights(exported.folder / f"model_{p}.mlpackage") for p in ("fp16", "int8"))
    convolutions = [name for name, (value, _) in float_weights.items() if value.ndim == 4]
    assert len(convolutions) == 3
    for name in convolutions:
        value, step = int8_weights[f"{name}_quantized"]
        assert step is not None, f"{name} is not quantized"
        assert np.all(np.abs(value - float_weights[name][0]) <= 0.51 * step + 1e-3)
    assert exported.of("model_int8.mlpackage").weights_precision == "int8"


def _core_ml_weights(package: Path) -> dict[str, tuple[Any, Any]]:
    """Constants by name: (value, step size of each element or None when it is not quantized)."""
    import coremltools

    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = model.get_spec()
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir)
    found: dict[str, tuple[Any, Any]] = {}
    for operation in program.functions["main"].operations:
        output = operation.outputs[0]
        if operation.op_type == "const" and output.val is not None and np.ndim(output.val):
            found[output.name] = (np.asarray(output.val, np.float32), None)
        if operation.op_type == "constexpr_affine_dequantize":
            value = np.asarray(operation.materialized_val_inference(), np.float32)
            shape = [1] * value.ndim
            shape[int(operation.axis.val)] = -1
            scale = np.asarray(operation.scale.val, np.float32)
            found[output.name] = (value, scale.reshape(shape) if scale.ndim else scale)
    return found
