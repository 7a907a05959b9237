"""The runtimes that users have, fed by nothing but the manifest."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.artifacts.manifest import Manifest


def sqnr_db(expected: Tensor, got: Tensor) -> float:
    noise = float((expected - got).double().square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(expected.double().square().sum()) / noise)


def run(folder: Path, manifest: Manifest, images: Tensor) -> Tensor:
    """Answers (N, classes), image by image, using only what the manifest says."""
    (entry,) = manifest.inputs
    stored = images.permute(0, 2, 3, 1) if entry.layout == "NHWC" else images
    if manifest.inputs[0].scale is not None:
        stored = (
            (stored / manifest.inputs[0].scale + manifest.inputs[0].zero_point).round().clamp(-128, 127).to(torch.int8)
        )
    runner = {"tflite": run_tflite, "pte": run_pte, "onnx": run_onnx}[manifest.format]
    out = torch.cat([runner(folder / manifest.file, image[None].contiguous()) for image in stored])
    if manifest.outputs[0].scale is not None:
        out = (out.float() - manifest.outputs[0].zero_point) * manifest.outputs[0].scale
    return out


def run_tflite(file: Path, image: Tensor) -> Tensor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(entry["index"], image.numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(answer["index"]).copy())


def run_pte(file: Path, image: Tensor) -> Tensor:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(str(file))
    method = program.load_method("forward")
    assert method is not None
    return method.execute([image])[0].clone()


def run_onnx(file: Path, image: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return torch.from_numpy(out)
