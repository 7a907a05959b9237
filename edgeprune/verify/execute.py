"""Running an exported file on preprocessed images, whatever its layout and number format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.artifacts.manifest import Manifest, TensorSpec
from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeName
from edgeprune.devices.inference import run_inference
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.runtimes import RUNTIME_OF
from edgeprune.errors import DataError, ToolkitMissing
from edgeprune.progress import SILENT, Progress

Floats = npt.NDArray[np.float32]
Outputs = tuple[Floats, ...]

REFERENCE_EXECUTION = "reference execution, no device"


@dataclass(frozen=True)
class Execution:
    """What a file answered: each of its outputs (N, ...) float32, with the axes of the model, and where. Memory is None
    where it is not told."""

    outputs: Outputs
    executed_on: str
    peak_memory_bytes: int | None


def run_file(
    device: Device,
    file: Path,
    manifest: Manifest,
    images: Floats,
    *,
    threads: int = 1,
    timeout_s: float = 3600,
    progress: Progress = SILENT,
) -> Execution:
    """Run a file on images (N, C, H, W) float32, preprocessed, or on several inputs in a row (see `models/inputs.py`);
    outputs come back dequantized.

    A file that the device cannot run is run by this machine, and a Core ML package where no device of Apple is asked
    by the reference executor; `executed_on` says so.

    Raises:
        DataError: the images do not fit the file's input, or its outputs are not one row for each image.
        UsageError: the runtime cannot run the file.
        DeviceError: the device was lost.
    """
    fed = _fed(images, manifest)
    names = [spec.name for spec in manifest.inputs] if len(fed) > 1 else None
    runtime = runtime_on(device, manifest)
    if runtime is None and runtime_of(manifest) == "coreml":
        from edgeprune.verify.mil import outputs_of_mlpackage

        answers = outputs_of_mlpackage(file, *fed, names=names)
        return Execution(_decoded(answers, manifest, len(images)), REFERENCE_EXECUTION, None)
    if runtime is None:
        lacking = runtime_of(manifest) or f"a runtime for {manifest.file}"
        if device.id == "local":
            raise ToolkitMissing(f"{lacking} is not installed", where=str(file), hint="see `edgeprune doctor`")
        here = run_file(LocalDevice(), file, manifest, images, threads=threads, timeout_s=timeout_s)
        return replace(here, executed_on=f"this machine, no device: {device.id} does not run {lacking}")
    wanted = [spec.name for spec in manifest.outputs]
    result = run_inference(
        device,
        file,
        fed,
        runtime=runtime,
        input_names=names,
        outputs=wanted if len(wanted) > 1 else None,
        threads=threads,
        timeout_s=timeout_s,
        progress=progress,
    )
    outputs = _decoded(result.outputs, manifest, len(images))
    place = f"{device.id}, {result.build.name} {result.build.version}"
    return Execution(outputs, place, result.peak_memory_bytes)


def _fed(batch: Floats, manifest: Manifest) -> tuple[npt.NDArray[Any], ...]:
    """A batch as the file takes it: each of its inputs.

    Raises:
        DataError: the batch does not fit.
    """
    specs = manifest.inputs
    shapes = [model_shape(spec) for spec in specs]
    sizes = [math.prod(shape) for shape in shapes]
    if tuple(batch.shape[1:]) != (1, 1, sum(sizes)):
        if len(specs) == 1:
            return (encode_input(batch, specs[0]),)
        told = ", ".join(f"{spec.of or spec.name} {shape}" for spec, shape in zip(specs, shapes, strict=True))
        raise DataError(f"inputs of shape {tuple(batch.shape[1:])} do not fit the file, which takes {told}")
    parts = np.split(batch.reshape(len(batch), -1), np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        encode_input(part.reshape(len(batch), *shape), spec)
        for part, shape, spec in zip(parts, shapes, specs, strict=True)
    )


def model_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one example of an input or output, with the axes of the model."""
    shape = spec.shape[1:]
    return (shape[2], *shape[:2]) if spec.layout == "NHWC" and len(shape) == 3 else shape


def runtime_of(manifest: Manifest) -> RuntimeName | None:
    """The runtime that runs an exported file, by its suffix; None where no runner knows its kind."""
    return RUNTIME_OF.get(Path(manifest.file).suffix)


def runtime_on(device: Device, manifest: Manifest) -> RuntimeName | None:
    """The runtime that runs a file on this device; None where the device has none."""
    runtime = runtime_of(manifest)
    return runtime if runtime in device.facts().runtimes else None


def encode_input(images: Floats, spec: TensorSpec) -> npt.NDArray[Any]:
    """Images (N, C, H, W) float32 as the file takes them.

    Quantized inputs: clip(round(x / scale) + zero_point), halves to even, as LiteRT's XNNPACK kernels do it.

    Raises:
        DataError: the images do not fit, or are not finite.
    """
    laid_out = images.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else images
    if tuple(laid_out.shape[1:]) != tuple(spec.shape[1:]):
        raise DataError(
            f"images of shape {tuple(images.shape[1:])} (channels, height, width) do not fit the input"
            f" {spec.name} {spec.layout} {tuple(spec.shape)}"
        )
    if not np.isfinite(laid_out).all():
        raise DataError("an image holds values that are NaN or infinite")
    if spec.dtype in ("int8", "uint8"):
        scale, zero = _quantization(spec)
        limits = np.iinfo(spec.dtype)
        steps = np.rint(laid_out / np.float32(scale)) + zero
        laid_out = np.clip(steps, limits.min, limits.max)
    return np.ascontiguousarray(laid_out, dtype=spec.dtype)


def decode_output(outputs: npt.NDArray[Any], spec: TensorSpec) -> Floats:
    """Outputs of the file as real numbers: scale * (stored - zero_point) where they are quantized.

    Raises:
        DataError: the file gives another type than its manifest says.
    """
    if outputs.dtype != np.dtype(spec.dtype):
        raise DataError(f"the output {spec.name} is {outputs.dtype}, the manifest says {spec.dtype}")
    if spec.dtype in ("int8", "uint8"):
        scale, zero = _quantization(spec)
        return ((outputs.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
    return outputs.astype(np.float32)


def _quantization(spec: TensorSpec) -> tuple[float, int]:
    if spec.scale is None or not spec.scale > 0 or spec.zero_point is None:
        raise DataError(f"the manifest gives no scale and zero point for {spec.name}, which is {spec.dtype}")
    return spec.scale, spec.zero_point


def _decoded(outputs: Sequence[npt.NDArray[Any]], manifest: Manifest, count: int) -> Outputs:
    """Outputs as real numbers, with the axes of the model.

    Raises:
        DataError: they are not one row for each image, or not those that the manifest describes.
    """
    if len(outputs) != len(manifest.outputs):
        raise DataError(
            f"it gives {len(outputs)} outputs, the manifest describes {len(manifest.outputs)}", where=manifest.file
        )
    return tuple(
        _laid_out(decode_output(output, spec), spec, count, manifest.file)
        for output, spec in zip(outputs, manifest.outputs, strict=True)
    )


def _laid_out(output: Floats, spec: TensorSpec, count: int, file: str) -> Floats:
    """An output (N, ...) with the axes of the model; a batch of one that the file keeps is dropped."""
    if output.shape[:1] != (count,) or output.size == 0 or output[0].size != math.prod(spec.shape[1:]):
        raise DataError(
            f"{count} images gave {spec.name} of shape {output.shape}, the manifest says {spec.shape}", where=file
        )
    rows = output.reshape(count, *spec.shape[1:])
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else rows, dtype=np.float32)
