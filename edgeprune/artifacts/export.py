"""Export: a float model to files of several formats, each with its manifest, beside one reference."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeprune.artifacts.child import Child
from edgeprune.artifacts.jobs import Converted, ConvertJob, Output
from edgeprune.artifacts.manifest import Manifest, file_hash, file_size, manifest_path
from edgeprune.artifacts.measuring import MeasuringExporter, export_for_measuring
from edgeprune.artifacts.plugins import Exporter, find_exporter, require_toolkit, toolkit_versions
from edgeprune.artifacts.program import on_cpu, save_program
from edgeprune.errors import ConversionError, DataError, EdgePruneError, UsageError
from edgeprune.models.spec import Model
from edgeprune.recipe import Format, Precision
from edgeprune.runs import write_atomic

__all__ = ["MeasuringExporter", "export", "export_for_measuring"]

REFERENCE = "reference.safetensors"
AT_ONCE = 2
SLOWEST_FIRST = ("pte", "tflite", "coreml", "onnx")


@dataclass(frozen=True)
class _Parcel:
    """All the files of one format: one child makes them."""

    exporter: Exporter
    precisions: tuple[Precision, ...]

    def file_name(self, precision: Precision) -> str:
        return f"model_{precision}{self.exporter.suffix}"


def export(
    model: Model,
    folder: Path,
    *,
    formats: Sequence[Format],
    int8: bool,
    calibration: Tensor | None,
    reference_input: Tensor,
    on_progress: Callable[[str], None] | None = None,
) -> list[Manifest]:
    """Write the model in each format, in float and (where the format has it) int8, each in a child process.

    `model.module` is the float model, batch norm merged. `calibration` and `reference_input` are preprocessed images
    (N, C, H, W) float32; calibration is needed for int8 of formats that quantize activations. `folder` gets the
    files, a manifest beside each, and `reference.safetensors`: "input" and the float module's "output".
    A file that was there before is replaced; nothing half-written is left.

    Returns the manifests in the order of `formats`, float before int8.

    Raises:
        ToolkitMissing: a format's toolkit is not installed (checked before anything is done).
        UsageError, DataError, ModelError: wrong format, images or model.
        ConversionError: toolkits failed; raised after the others have finished, naming all that failed.
    """
    say = on_progress or (lambda _: None)
    parcels = [_parcel(name, int8) for name in dict.fromkeys(formats)]
    _check_images(model, reference_input, "the reference input")
    if int8 and calibration is None:
        raise DataError("int8 needs calibration images", hint="give some, or turn quantization off")
    if calibration is not None:
        _check_images(model, calibration, "the calibration images")

    folder.mkdir(parents=True, exist_ok=True)
    with _workspace(folder) as work:
        save_program(model, work / "program.pt2")
        if int8 and calibration is not None:
            save_file({"images": calibration.detach().cpu().contiguous()}, work / "calibration.safetensors")
        _save_reference(model, reference_input, folder)
        made = _convert_all(model, parcels, work, folder, say)
    return [manifest for parcel in parcels for manifest in made[parcel.exporter.name]]


def _parcel(name: Format, int8: bool) -> _Parcel:
    exporter = find_exporter(name)
    require_toolkit(exporter)
    return _Parcel(exporter, tuple(p for p in exporter.precisions if int8 or p != "int8"))


def _convert_all(
    model: Model, parcels: Sequence[_Parcel], work: Path, folder: Path, say: Callable[[str], None]
) -> dict[str, list[Manifest]]:
    """Convert with a few toolkits at a time; a failure is kept until all have ended."""
    threads = max(1, (os.cpu_count() or 1) // min(AT_ONCE, max(1, len(parcels))))
    ordered = sorted(
        parcels, key=lambda p: SLOWEST_FIRST.index(p.exporter.name) if p.exporter.name in SLOWEST_FIRST else 0
    )
    children = {parcel.exporter.name: Child(parcel.exporter.name, threads=threads) for parcel in parcels}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {
            parcel.exporter.name: pool.submit(
                _convert, model, parcel, children[parcel.exporter.name], work, folder, say
            )
            for parcel in ordered
        }
        try:
            wait(futures.values())
        except BaseException:  # Ctrl-C: the toolkits must not go on without us
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children.values():
                child.stop()
            raise
    made, failed = {}, {}
    for name, future in futures.items():
        error = future.exception()
        if error is None:
            made[name] = future.result()
        elif isinstance(error, EdgePruneError):
            failed[name] = error
        else:
            raise error
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        written = f"; written: {', '.join(sorted(made))}" if made else ""
        raise ConversionError(
            f"{len(failed)} formats failed: {', '.join(sorted(failed))}{written}\n"
            + "\n".join(str(failed[name]) for name in sorted(failed)),
            where=str(folder),
        )
    return made


def _convert(
    model: Model, parcel: _Parcel, child: Child, work: Path, folder: Path, say: Callable[[str], None]
) -> list[Manifest]:
    """One child, all files of a format: each is moved into place, then its manifest, as soon as it is whole."""
    exporter, scratch = parcel.exporter, work / parcel.exporter.name
    scratch.mkdir()
    outputs = tuple(Output(precision=p, file=scratch / parcel.file_name(p)) for p in parcel.precisions)
    calibration = work / "calibration.safetensors"
    job = ConvertJob(
        exporter=exporter.name,
        program=work / "program.pt2",
        calibration=calibration if calibration.exists() else None,
        outputs=outputs,
    )
    manifests = []
    with child:
        for output, converted in zip(outputs, child.run(job), strict=True):
            assert isinstance(converted, Converted)
            manifests.append(_put_in_place(model, exporter, output, converted, folder))
            say(f"{exporter.name} {output.precision}: {output.file.name} in {converted.seconds:.1f} s")
    return manifests


def _put_in_place(model: Model, exporter: Exporter, output: Output, converted: Converted, folder: Path) -> Manifest:
    if not output.file.exists():
        raise ConversionError("the exporter said it wrote the file, but it is not there", where=output.file.name)
    manifest = Manifest(
        format=exporter.name,
        precision=output.precision,
        weights_precision=converted.weights_precision,
        file=output.file.name,
        sha256=file_hash(output.file),
        size_bytes=file_size(output.file),
        input=converted.input,
        output=converted.output,
        preprocessing=model.spec.preprocessing,
        labels=model.spec.labels,
        reference=REFERENCE,
        delegation=converted.delegation,
        toolkit=toolkit_versions(exporter),
        seconds=converted.seconds,
    )
    place = folder / output.file.name
    manifest_path(place).unlink(missing_ok=True)  # a manifest is there only beside the file it describes
    if place.is_dir():
        shutil.rmtree(place)
    output.file.replace(place)
    write_atomic(manifest_path(place), manifest.model_dump_json(indent=1).encode())
    return manifest


def _save_reference(model: Model, images: Tensor, folder: Path) -> None:
    images = images.detach().to("cpu", torch.float32).contiguous()
    module = on_cpu(model.module)
    with torch.no_grad():
        answers = torch.cat([module(batch) for batch in images.split(32)])
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".part-", delete=False) as handle:
        part = Path(handle.name)
    try:
        save_file({"input": images, "output": answers.contiguous()}, part)
        part.replace(folder / REFERENCE)
    finally:
        part.unlink(missing_ok=True)


def _check_images(model: Model, images: Tensor, what: str) -> None:
    expected = model.spec.input_size
    if images.dim() != 4 or tuple(images.shape[1:]) != expected or len(images) == 0:
        raise DataError(
            f"{what} have shape {tuple(images.shape)}, the model takes (N, {', '.join(map(str, expected))})"
        )
    if not images.is_floating_point() or not torch.isfinite(images).all():
        raise DataError(f"{what} must be finite float32 values, preprocessed as the model expects")


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A scratch folder on the same file system, so that a finished file is moved into place in one step."""
    try:
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
    except OSError as error:
        raise UsageError(f"cannot write there: {error.strerror}", where=str(folder)) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
