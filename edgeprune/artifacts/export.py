"""Export: a float model to files of several formats, each with its manifest, beside one reference."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeprune.artifacts.child import Child
from edgeprune.artifacts.jobs import Converted, ConvertJob, Output
from edgeprune.artifacts.manifest import Manifest, TensorSpec, file_hash, file_size, manifest_path, reference_names
from edgeprune.artifacts.measuring import MeasuringExporter
from edgeprune.artifacts.plugins import Exporter, find_exporter, require_own_files, require_toolkit, toolkit_versions
from edgeprune.artifacts.preparation import Preparation
from edgeprune.artifacts.program import on_cpu, save_program
from edgeprune.artifacts.toolkits import Toolkits, may_try_again, toolkits
from edgeprune.errors import ConversionError, DataError, UsageError
from edgeprune.models.answers import outputs_of
from edgeprune.models.inputs import given_to
from edgeprune.models.spec import InputSpec, Model, OutputSpec
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Format, Precision, TaskSection
from edgeprune.runs import write_atomic

__all__ = ["Exported", "MeasuringExporter", "NotWritten", "export_each"]

REFERENCE = "reference.safetensors"
AT_ONCE = 2
SLOWEST_FIRST = ("pte", "tflite", "coreml", "onnx")


@dataclass(frozen=True)
class Meaning:
    """What a file's manifest says of its inputs and outputs besides their form.

    Args:
        task: what the outputs mean.
        prepared_here: whether inputs are images that are prepared as the model's spec says; a data set of the user's
            own prepares its inputs itself, and nobody knows how.
    """

    task: TaskSection = field(default_factory=TaskSection)
    prepared_here: bool = True


CLASSES = Meaning()


@dataclass(frozen=True)
class NotWritten:
    """A file that was asked for and could not be written, and why, with the operator where the toolkit tells it."""

    format: str
    precision: Precision
    file: str
    error: ConversionError

    @property
    def why(self) -> str:
        """In one line."""
        return self.error.what.splitlines()[0].removesuffix("; it last said:")


@dataclass(frozen=True)
class Exported:
    """What was written, in the order of the formats, float before int8, and what was not."""

    manifests: tuple[Manifest, ...]
    not_written: tuple[NotWritten, ...]


@dataclass(frozen=True)
class _Parcel:
    """All the files of one format: one child makes them."""

    exporter: Exporter
    precisions: tuple[Precision, ...]

    def file_name(self, precision: Precision) -> str:
        return f"model_{precision}{self.exporter.suffix}"


def export_each(
    model: Model,
    folder: Path,
    *,
    formats: Sequence[Format],
    int8: Collection[Format],
    floats: bool = True,
    calibration: Tensor | None,
    reference_input: Tensor,
    meaning: Meaning = CLASSES,
    progress: Progress = SILENT,
) -> Exported:
    """Write the model in each format; a file that fails takes no other along.

    `model.module` is the float model, batch norm merged. `int8`: the formats whose int8 file is wanted, where they have
    one; `floats`: whether their float files are. `calibration` and `reference_input` are preprocessed images
    (N, C, H, W) float32; calibration is needed for int8 of formats that quantize activations. `meaning` says in
    the manifests what goes in and out. `folder` gets the
    files, a manifest beside each, and `reference.safetensors`: "input" and the float module's "output" (see Manifest).
    A file that was there before is replaced; nothing half-written is left. Toolkits run in child processes.

    Raises:
        ToolkitMissing: a format's toolkit is not installed (checked before anything is done).
        UsageError, DataError, ModelError: wrong format, two whose files would have one name, images or model.
    """
    parcels = [_parcel(name, name in int8, floats) for name in dict.fromkeys(formats)]
    require_own_files([parcel.exporter for parcel in parcels])
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
        made = _convert_all(model, parcels, work, folder, meaning, progress)
    ends = [end for parcel in parcels for end in made[parcel.exporter.name]]
    return Exported(
        tuple(end for end in ends if isinstance(end, Manifest)),
        tuple(end for end in ends if isinstance(end, NotWritten)),
    )


def _parcel(name: Format, int8: bool, floats: bool) -> _Parcel:
    exporter = find_exporter(name)
    require_toolkit(exporter)
    return _Parcel(exporter, tuple(p for p in exporter.precisions if (int8 if p == "int8" else floats)))


def _convert_all(
    model: Model, parcels: Sequence[_Parcel], work: Path, folder: Path, meaning: Meaning, progress: Progress
) -> dict[str, list[Manifest | NotWritten]]:
    """Convert with a few toolkits at a time."""
    threads = max(1, (os.cpu_count() or 1) // min(AT_ONCE, max(1, len(parcels))))
    ordered = sorted(
        parcels, key=lambda p: SLOWEST_FIRST.index(p.exporter.name) if p.exporter.name in SLOWEST_FIRST else 0
    )
    with toolkits() as ours, ThreadPoolExecutor(AT_ONCE) as pool:
        running = _Running(ours, threads)
        futures = {
            parcel.exporter.name: pool.submit(_convert, model, parcel, running, work, folder, meaning, progress)
            for parcel in ordered
        }
        try:
            wait(futures.values())
        except BaseException:  # Ctrl-C: the toolkits must not go on without us
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise
        return {name: future.result() for name, future in futures.items()}


class _Running:
    """The children that are at work, so that all can be stopped from another thread."""

    def __init__(self, ours: Toolkits, threads: int) -> None:
        self._ours, self._threads, self._children, self._stopped = ours, threads, set[Child](), False

    @contextmanager
    def child(self, exporter: str) -> Iterator[Child]:
        """A child; once all were stopped there are no more.

        Raises:
            ConversionError: all were stopped.
        """
        with self._ours.child(exporter, threads=self._threads) as child:
            self._children.add(child)
            try:
                if self._stopped:
                    raise ConversionError("the conversion was stopped", where=exporter)
                yield child
            finally:
                self._children.discard(child)

    def stop(self) -> None:
        self._stopped = True
        for child in tuple(self._children):
            child.stop()


def _convert(
    model: Model, parcel: _Parcel, running: _Running, work: Path, folder: Path, meaning: Meaning, progress: Progress
) -> list[Manifest | NotWritten]:
    """All files of a format: each is moved into place, then its manifest, as soon as it is whole.

    A child that fails ends; what comes after the file it failed at is tried by a new one, and that file as well, where
    the child had done other jobs. Nothing that an exporter does after its last file is whole can undo that file.
    """
    exporter, scratch = parcel.exporter, work / parcel.exporter.name
    scratch.mkdir()
    calibration = work / "calibration.safetensors"
    ends: list[Manifest | NotWritten] = []
    while len(ends) < len(parcel.precisions):
        left = parcel.precisions[len(ends) :]
        outputs = tuple(Output(precision=p, file=scratch / parcel.file_name(p)) for p in left)
        job = ConvertJob(
            exporter=exporter.name,
            program=work / "program.pt2",
            calibration=calibration if calibration.exists() else None,
            outputs=outputs,
        )
        again = False
        try:
            with running.child(exporter.name) as child:
                again = may_try_again(child)
                replies = child.run(job)
                for output in outputs:
                    converted = next(replies, None)
                    if not isinstance(converted, Converted):
                        child.stop()  # it has ended the job, and could be taken for the next
                        raise ConversionError("the exporter ended and gave no such file", where=output.file.name)
                    ends.append(_put_in_place(model, exporter, output, converted, folder, meaning))
                    progress.say(f"{exporter.name} {output.precision}: {_told(output, converted)}")
                child.finish(replies)
        except ConversionError as error:
            if again and not child.timed_out:
                continue
            precision = parcel.precisions[len(ends)]
            failed = NotWritten(exporter.name, precision, parcel.file_name(precision), error)
            ends.append(failed)
            progress.say(f"{exporter.name} {precision}: {failed.file} is not written: {failed.why}")
    return ends


def _told(output: Output, converted: Converted) -> str:
    left = ", ".join(f"{count} {kind}" for kind, count in converted.left_in_float.items())
    stays = f"; {left} in float, which its quantizer cannot do" if left else ""
    return f"{output.file.name} in {converted.seconds:.1f} s{stays}"


def _put_in_place(
    model: Model, exporter: Exporter, output: Output, converted: Converted, folder: Path, meaning: Meaning
) -> Manifest:
    if not output.file.exists():
        raise ConversionError("the exporter said it wrote the file, but it is not there", where=output.file.name)
    several_outputs = model.spec.outputs if len(model.spec.outputs) > 1 else ()  # a single one needs no name
    manifest = Manifest(
        format=exporter.name,
        precision=output.precision,
        weights_precision=converted.weights_precision,
        file=output.file.name,
        sha256=file_hash(output.file),
        size_bytes=file_size(output.file),
        inputs=_named(converted.inputs, model.spec.inputs, "inputs", output.file),
        outputs=_named(converted.outputs, several_outputs, "outputs", output.file),
        task=meaning.task.without_folders(),
        preprocessing=Preparation.of(model.spec) if meaning.prepared_here else None,
        labels=model.spec.labels,
        reference=REFERENCE,
        delegation=converted.delegation,
        left_in_float=converted.left_in_float,
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


def _named(
    tensors: tuple[TensorSpec, ...], own: Sequence[InputSpec | OutputSpec], word: str, file: Path
) -> tuple[TensorSpec, ...]:
    """The file's inputs or outputs, each with the name of the model's that it is, where these have names.

    Raises:
        ConversionError: the file has not as many as the model.
    """
    if len(tensors) != max(1, len(own)):
        raise ConversionError(f"the file has {len(tensors)} {word}, the model {max(1, len(own))}", where=file.name)
    if not own:
        return tensors
    return tuple(tensor.model_copy(update={"of": one.name}) for tensor, one in zip(tensors, own, strict=True))


def _save_reference(model: Model, images: Tensor, folder: Path) -> None:
    images = images.detach().to("cpu", torch.float32).contiguous()
    module = on_cpu(model.module)
    with torch.no_grad():
        parts = [outputs_of(module(batch)) for batch in images.split(32)]
    answers = [torch.cat(each) for each in zip(*parts, strict=True)]
    given = dict(zip(reference_names("input", len(model.spec.inputs)), given_to(module, images), strict=True))
    given |= zip(reference_names("output", len(answers)), answers, strict=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".part-", delete=False) as handle:
        part = Path(handle.name)
    try:
        save_file({name: tensor.contiguous() for name, tensor in given.items()}, part)
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
