"""The exported files, run by the runtimes that users have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgeprune.artifacts.manifest import Manifest, manifest_path, read_manifest

FILES = (
    "model_fp32.onnx",
    "model_fp16.mlpackage",
    "model_int8.mlpackage",
    "model_fp32.tflite",
    "model_int8.tflite",
    "model_fp32.pte",
    "model_int8.pte",
)


def sqnr_db(expected: Tensor, got: Tensor) -> float:
    noise = float((expected - got).double().square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(expected.double().square().sum()) / noise)


def run(folder: Path, manifest: Manifest, images: Tensor) -> Tensor:
    """Answers (N, classes), image by image, using only what the manifest says."""
    stored = images.permute(0, 2, 3, 1) if manifest.input.layout == "NHWC" else images
    if manifest.input.scale is not None:
        stored = (stored / manifest.input.scale + manifest.input.zero_point).round().clamp(-128, 127).to(torch.int8)
    runner = {"tflite": run_tflite, "pte": run_pte, "onnx": run_onnx}[manifest.format]
    out = torch.cat([runner(folder / manifest.file, manifest, image[None].contiguous()) for image in stored])
    if manifest.output.scale is not None:
        out = (out.float() - manifest.output.zero_point) * manifest.output.scale
    return out


def run_tflite(file: Path, manifest: Manifest, image: Tensor) -> Tensor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (entry["name"], tuple(entry["shape"])) == (manifest.input.name, manifest.input.shape)
    interpreter.set_tensor(entry["index"], image.numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(answer["index"]).copy())


def run_pte(file: Path, manifest: Manifest, image: Tensor) -> Tensor:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(str(file))
    method = program.load_method("forward")
    assert method is not None
    return method.execute([image])[0].clone()


def run_onnx(file: Path, manifest: Manifest, image: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (out,) = session.run([manifest.output.name], {manifest.input.name: image.numpy()})
    return torch.from_numpy(out)


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
    assert manifest.preprocessing == exported.model.spec.preprocessing
    assert manifest.input.shape == ((1, 16, 16, 3) if file.endswith(".tflite") else (1, 3, 16, 16))
    assert manifest.output.shape == (1, 5)
    assert manifest.seconds > 0
    assert manifest.size_bytes > 0
    assert "torch" in manifest.toolkit


def test_only_the_int8_tflite_has_int8_input_and_output(exported: Any) -> None:
    kinds = {m.file: (m.input.dtype, m.output.dtype) for m in exported.manifests}
    assert kinds.pop("model_int8.tflite") == ("int8", "int8")
    assert set(kinds.values()) == {("float32", "float32")}


def test_the_int8_input_covers_all_calibration_images(exported: Any) -> None:
    spec = exported.of("model_int8.tflite").input
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
        value, scale = int8_weights[f"{name}_quantized"] if f"{name}_quantized" in int8_weights else int8_weights[name]
        assert scale is not None, f"{name} is not quantized"
        assert np.all(np.abs(value - float_weights[name][0]) <= scale * 0.51 + 1e-3)
    sizes = [exported.of(f"model_{p}.mlpackage").size_bytes for p in ("fp16", "int8")]
    assert exported.of("model_int8.mlpackage").weights_precision == "int8"
    assert sizes[0] > 0


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
