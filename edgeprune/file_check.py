"""An exported file held to its manifest, without a recipe or a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from edgeprune.artifacts.manifest import Manifest, manifest_path, parse_manifest, read_manifest
from edgeprune.artifacts.preparation import Preparation
from edgeprune.data.open import open_data
from edgeprune.data.record import RECORD, DataRecord, read_record
from edgeprune.data.split import Split
from edgeprune.data.unseen import unseen
from edgeprune.devices.base import Device
from edgeprune.devices.discovery import open_device, refuse_profile
from edgeprune.devices.jobs import LEASE_WAIT_S
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DataError, UsageError
from edgeprune.model_export import UNNAMED
from edgeprune.models.answers import Form, form_of
from edgeprune.models.spec import InputSpec, Model, ModelSpec, Preprocessing, packed_size
from edgeprune.models.trust import canonical, require_task
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import DataSection, TargetKind, VerdictLimits
from edgeprune.recipe_file import parse_recipe, resolve_paths
from edgeprune.records import first_fault
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.training.accuracy import predict
from edgeprune.verify.accuracy import parity_check, read_reference
from edgeprune.verify.check import verify
from edgeprune.verify.execute import Floats, Outputs, model_shape, run_file, runtime_of
from edgeprune.verify.parity import sqnr_db
from edgeprune.verify.speed import Protocol
from edgeprune.verify.verdict import Check, FileVerdict, Verdict

Answers = Callable[[Floats], Outputs]
SAME_DB = 60.0  # a model that answers the reference inputs less alike is another one


@dataclass(frozen=True)
class FileCheck:
    """What was found of one file, and what could not be known of it."""

    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def file(self) -> FileVerdict:
        return self.verdict.files[0]


def verify_file(
    file: Path,
    *,
    data: str | None = None,
    model: Model | None = None,
    device: str = "local",
    gates: Mapping[str, Any] | None = None,
    images: int | None = None,
    threads: int = 1,
    protocol: Protocol = "quick",
    untrained: bool = False,
    seed: int = 0,
    trust: bool = False,
    progress: Progress = SILENT,
) -> FileCheck:
    """Hold an exported file to its manifest, its reference and a verdict's gates, without a run.

    Its parity is held on the reference inputs, its accuracy told on the test images of `data`, prepared as the manifest
    says, its latency told on the device. An int8 file is held to the float model's answers: to `model`'s, or where that
    is not given to those of the float file of its format that lies beside it, if its own parity holds. Where neither
    is there, or no data, its gates are undecided.

    Args:
        file: or its manifest; in a run folder or where `export_model` wrote it, images that were calibrated or
            trained on are left out of the test images.
        data: as [data] `source` in a recipe.
        model: that it was exported from, batch norms folded or not.
        gates: of [verify.gates], by name.
        images: test images at most.
        untrained: nothing is asked that chance could not answer.
        seed: of the division of the data.
        trust: run the task that the manifest names, where it is code that this user has not named.

    Raises:
        UsageError: there is no such file, or it has no manifest, or is not what that describes; or `model` is another;
            or the file of the manifest's own task is not in the working directory.
        RunError: the task is code that this user has not named.
        DataError: the data do not fit, or the file has seen all of them.
        DeviceError: the device is unavailable, or was lost.
    """
    refuse_profile(device)
    limits = parse_recipe(
        {"model": {"name": UNNAMED}, "data": {"source": UNNAMED}, "verify": {"gates": dict(gates or {})}}, where="gates"
    ).verify.gates
    manifest, folder = _manifest_of(file), file.parent
    notes = [f"the manifest: {manifest.untold}"] if manifest.untold else []
    opened = open_device(device)
    objective = _objective_of(manifest, folder, model, trust=trust)
    kind = objective.task.target
    test = _test_images(manifest, folder, kind, data, seed, notes, progress) if data is not None else None
    answers = _answers_of(model, manifest, folder) if model is not None else None
    if test is None:
        notes.append("no test images are named (--data): its accuracy is not known")
    elif answers is None:
        answers = _beside(opened, manifest, folder, limits, notes)
    with opened.lease(wait_s=LEASE_WAIT_S):
        verdict = verify(
            manifests=[manifest],
            folder=folder,
            device=opened,
            float_outputs=answers,
            test=test if test is None or images is None else test.take(images),
            limits=limits,
            target=None,
            original_file=None,
            runtime=runtime_of(manifest) or manifest.format,
            threads=threads,
            protocol=protocol,
            images=None,
            objective=objective,
            rows={},
            untrained=untrained,
            progress=progress,
        )
    (found,) = verdict.files
    return FileCheck(verdict.model_copy(update={"files": (_held(found),), "shipping": ()}), tuple(notes))


def _held(found: FileVerdict) -> FileVerdict:
    """With an undecided check where no gate was held at all: that is no pass."""
    if found.outcome != "pass" or found.passes:
        return found
    why = "no gate was held on it: all that apply are switched off"
    none = Check(name="gates", value=0, unit="held", limit=1, outcome="undecided", why=why)
    return found.model_copy(update={"checks": (*found.checks, none)})


def _manifest_of(file: Path) -> Manifest:
    if not file.exists():
        raise UsageError("there is no such file", where=str(file), hint="name an exported file")
    if file.suffix != ".json" and not manifest_path(file).is_file():
        raise UsageError(
            "the file has no manifest beside it, so nobody can know what it should answer",
            where=str(manifest_path(file)),
            hint="bring the manifest and its reference.safetensors back, or write the file with `edgeprune export`; "
            "`edgeprune bench` and `edgeprune compare` time files without one",
        )
    return read_manifest(file)


def _test_images(
    manifest: Manifest, folder: Path, kind: TargetKind, data: str, seed: int, notes: list[str], progress: Progress
) -> Split:
    recipe = resolve_paths(
        parse_recipe({"model": {"name": UNNAMED}, "data": {"source": data}}, where="options"), Path.cwd()
    )
    splits = open_data(
        DataSection(source=recipe.data.source), _spec_of(manifest), seed=seed, kind=kind, progress=progress
    )
    record = _record_of(folder)
    if record is None:
        notes.append(
            "which images it was trained and calibrated on is not recorded beside it: where they are among the test "
            "images, it looks better than it is"
        )
        return splits.test
    left = unseen(splits, record)
    if not len(left):
        raise DataError(
            "every test image was trained or calibrated on",
            where=data,
            hint="name images that the file has not seen",
        )
    if (gone := len(splits.test) - len(left)) > 0:
        notes.append(f"{gone} of {len(splits.test)} test images were trained or calibrated on: they are left out")
    return left


def _record_of(folder: Path) -> DataRecord | None:
    """Which images were used for the files of a folder: as `export_model` wrote it there, or the run it lies in."""
    places = (folder / RECORD, folder.parent / "load" / RECORD)
    found = next((place for place in places if place.is_file()), None)
    return read_record(found) if found is not None else None


def _spec_of(manifest: Manifest) -> ModelSpec:
    """What the manifest says of the model, as far as data are concerned."""
    try:
        return _spec_said_by(manifest)
    except ValidationError as error:
        raise DataError(
            f"no data can be made for inputs as the manifest has them: {first_fault(error)}",
            where=manifest.file,
            hint="leave --data out, or export the model again",
        ) from error


def _spec_said_by(manifest: Manifest) -> ModelSpec:
    answer, first = manifest.outputs[0], manifest.inputs[0]
    taken = tuple(InputSpec(name=one.of or one.name, shape=model_shape(one)) for one in manifest.inputs)
    of_images = len(taken) == 1 and len(taken[0].shape) == 3 and not first.of
    size = taken[0].shape if of_images else packed_size(taken)
    channels = answer.shape[-1 if answer.layout == "NHWC" else 1] if len(answer.shape) > 1 else 1
    own = manifest.preprocessing
    spec = ModelSpec.model_validate(
        {
            "source": manifest.file,
            "input_size": size,
            "inputs": () if of_images else taken,
            "num_classes": channels,
            "preprocessing": own if isinstance(own, Preprocessing) else _scaling(own, size[0]),
            "labels": manifest.labels,
        }
    )
    return own.given_to(spec) if isinstance(own, Preparation) else spec


def _scaling(own: Preparation | None, channels: int) -> dict[str, tuple[float, ...]]:
    if own is None:
        return {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    return {"mean": own.mean, "std": own.std}


def _answers_of(model: Model, manifest: Manifest, folder: Path) -> Answers:
    """A float model's answers, once it is known to be the one.

    Raises:
        UsageError: it answers the reference inputs otherwise.
    """
    module = model.module.eval()

    def answers(images: Floats) -> Outputs:
        return predict(module, torch.from_numpy(images))

    inputs, expected = read_reference(folder / manifest.reference)
    if model.spec.inputs:
        inputs = inputs.reshape(len(inputs), 1, 1, -1)
    fits = tuple(inputs.shape[1:]) == tuple(model.spec.input_size)
    given = answers(inputs) if fits else None
    if given is None or not _same(expected, given):
        raise UsageError(
            "this is another model than the one that the file was exported from: it answers the reference inputs "
            "otherwise",
            where=model.spec.source,
            hint="name the very model, with its weights (a run folder names its merged one)",
        )
    return answers


def _same(expected: Outputs, given: Outputs) -> bool:
    shapes, others = ([output.shape for output in each] for each in (expected, given))
    return shapes == others and all(sqnr_db(a, b) >= SAME_DB for a, b in zip(expected, given, strict=True))


def _objective_of(manifest: Manifest, folder: Path, model: Model | None, *, trust: bool) -> Objective:
    """What the manifest says that the outputs mean. A task that is code of somebody's is looked for in the working
    directory, since a manifest tells no folders, and runs only where this user has named it.

    Raises:
        UsageError: its file is not there.
        RunError: they have not.
    """
    section = manifest.task
    if section.is_users:
        source = canonical(section.name)
        place = Path(source.rpartition(":")[0])
        if place.suffix == ".py" and not place.is_file():
            raise UsageError(
                f"the manifest names the task {section.name}, and its file is not in the working directory",
                where=str(place),
                hint=f"run this where {place.name} lies",
            )
        if not trust:
            require_task(source, folder)
        section = section.model_copy(update={"name": source})
    form = (form_of(model.module) if model is not None else None) or Form.named(_names_of(manifest))
    return Objective.of(task_of(section), section, form)


def _names_of(manifest: Manifest) -> tuple[str, ...]:
    return tuple(spec.of or spec.name for spec in manifest.outputs)


def _beside(
    device: Device, manifest: Manifest, folder: Path, limits: VerdictLimits, notes: list[str]
) -> Answers | None:
    """The answers of the float file of an int8 file's format, run on this machine, if its own parity holds."""
    if manifest.precision != "int8":
        return None
    here = device if device.id == "local" else LocalDevice()  # whose lease is held while the file is measured
    for path in sorted(folder.glob(f"*{Path(manifest.file).suffix}.json")):
        other = parse_manifest(path)
        if other.precision == "int8" or (other.format, other.reference) != (manifest.format, manifest.reference):
            continue
        checked = read_manifest(path)
        if _parity_holds(here, checked, folder, limits):
            notes.append(f"{checked.file} stands in for the float model: its parity holds")
            return lambda images: (
                run_file(here, folder / checked.file, checked, images.astype(np.float32, copy=False)).outputs
            )
    return None


def _parity_holds(here: Device, manifest: Manifest, folder: Path, limits: VerdictLimits) -> bool:
    on = limits.model_copy(
        update={
            "sqnr_fp32_db": limits.sqnr_fp32_db or VerdictLimits().sqnr_fp32_db,
            "sqnr_fp16_db": limits.sqnr_fp16_db or VerdictLimits().sqnr_fp16_db,
        }
    )
    check = parity_check(manifest, folder, lambda x: run_file(here, folder / manifest.file, manifest, x), on)
    return check.outcome == "pass"
