"""Checks of what a file answers: parity on the reference inputs, agreement and the task's metric on the test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.artifacts.manifest import Manifest, TensorSpec
from edgeprune.errors import DataError, RunError
from edgeprune.recipe import VerdictLimits
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Rows
from edgeprune.verify.execute import Execution, Floats, Outputs
from edgeprune.verify.figures import agreement_check, lost_check, metric_check
from edgeprune.verify.limits import at_least, at_most, info
from edgeprune.verify.outputs import Answers, FileAnswers, broken_images
from edgeprune.verify.parity import sqnr_db
from edgeprune.verify.verdict import HOST_AGREEMENT, Check

Runner = Callable[[Floats], Execution]


def parity_check(manifest: Manifest, folder: Path, run: Runner, limits: VerdictLimits) -> Check:
    """SQNR of the file against the float model, on the reference inputs stored beside its manifest: of several outputs
    the worst.

    Raises:
        RunError: the reference cannot be read.
        DataError: the outputs do not fit the reference.
    """
    inputs, expected = read_reference(folder / manifest.reference)
    outputs = run(inputs).outputs
    if broken := broken_images(outputs):
        why = f"{broken} of {len(inputs)} reference images give NaN or infinity{_overflow(manifest)}"
        return Check(name="SQNR", value=math.nan, unit="dB", limit=None, outcome="fail", why=why)
    if len(expected) != len(outputs):
        raise DataError(f"{len(outputs)} outputs do not fit a reference of {len(expected)}", where=manifest.file)
    levels = [sqnr_db(one, other) for one, other in zip(expected, outputs, strict=True)]
    value = min(levels)
    said = f"the file's outputs on {len(inputs)} reference images, against the float model's: {_decibels(value)}"
    if len(levels) > 1:
        said += f" ({', '.join(map(_of_output, manifest.outputs, levels))})"
    if manifest.precision == "int8":
        return info("SQNR", value, unit="dB", why=f"{said}; int8 is judged by what it answers to the test images")
    limit = limits.sqnr_fp16_db if manifest.precision == "fp16" else limits.sqnr_fp32_db
    advice = "" if limit is False or value >= limit else "; the export does not compute what the model computes"
    return at_least("SQNR", value, limit, unit="dB", why=said + advice)


def accuracy_checks(
    manifest: Manifest,
    answers: Answers,
    objective: Objective,
    limits: VerdictLimits,
    original: Rows | None = None,
    *,
    untrained: bool = False,
) -> tuple[Check, ...]:
    """Agreement with the float model, the task's metric, how much of it is lost against the float and the original
    model.

    `original` has the unpruned model's finished rows. A file that answers NaN or infinity to a test image fails
    whatever the limits, and so does one that only guesses. Where the images are too few to tell a perfect model from a
    guessing one, its metric is undecided. Nothing of that is asked of a model that is `untrained`.
    """
    file = answers.files[manifest.file]
    count = len(file.rows)
    if file.broken:
        why = f"{file.broken} of {count} test images give NaN or infinity{_overflow(manifest)}"
        share = 1 - file.broken / count
        return (Check(name="finite outputs", value=share, unit="share", limit=1.0, outcome="fail", why=why),)
    checks = [
        *_against_float(manifest, answers, objective, limits),
        metric_check(objective, file.rows, untrained=untrained),
    ]
    checks += _host_checks(file, objective, limits)
    if original is not None:
        name = f"{_short(objective)} drop against the original"
        checks.append(lost_check(objective, name, original, file.rows, limits.accuracy_drop))
    return tuple(checks)


def _against_float(
    manifest: Manifest, answers: Answers, objective: Objective, limits: VerdictLimits
) -> tuple[Check, ...]:
    """Agreement with the float model, and what is lost against it."""
    file = answers.files[manifest.file]
    if answers.rows is None or file.agreement is None:
        return untold(manifest, objective, limits, "the float model is not at hand: name it (--model)")
    is_int8 = manifest.precision == "int8"
    return (
        agreement_check(
            objective,
            file.agreement,
            limits.int8_agreement if is_int8 else None,
            why="file and float model answer the same on {count} of {images} test images",
        ),
        lost_check(
            objective,
            _drop_name(objective),
            answers.rows,
            file.rows,
            limits.int8_accuracy_drop if is_int8 else None,
        ),
    )


def untold(manifest: Manifest, objective: Objective, limits: VerdictLimits, why: str) -> tuple[Check, ...]:
    """The gates of an int8 file that nobody can hold it to: undecided, so that it does not pass. None of another's."""
    if manifest.precision != "int8":
        return ()
    gates: dict[str, float | Literal[False]] = {
        objective.task.agreement_name: limits.int8_agreement,
        _drop_name(objective): limits.int8_accuracy_drop,
    }
    return tuple(
        Check(name=name, value=math.nan, unit="share", limit=limit, outcome="undecided", why=why)
        for name, limit in gates.items()
        if limit is not False
    )


def _drop_name(objective: Objective) -> str:
    return f"{_short(objective)} drop against the float model"


def _host_checks(file: FileAnswers, objective: Objective, limits: VerdictLimits) -> list[Check]:
    """The device against this machine, which ran the same file with the same runtime; none where it did not."""
    if file.host is None:
        return []
    agreement, count = float(file.host.agreement.mean()), len(file.rows)
    before, after = objective.measured(file.host.rows), objective.measured(file.rows)
    advice = "; find the first operator that differs with `edgeprune explain`"
    same = f"device and this machine answer the same on {agreement * count:.4g} of {count} test images"
    poor = limits.host_agreement is not False and agreement < limits.host_agreement
    metric = objective.metric
    unit = "share" if metric.unit == "share" or metric.drop == "relative" else metric.unit
    return [
        at_least(
            HOST_AGREEMENT,
            agreement,
            limits.host_agreement,
            unit="share",
            why=same + (advice if poor else ""),
        ),
        at_most(
            f"{_short(objective)} away from this machine's",
            abs(metric.lost(before, after)),
            limits.host_accuracy_drop,
            unit=unit,
            why=f"{metric.told(before)} on this machine, {metric.told(after)} on the device",
        ),
    ]


def read_reference(path: Path) -> tuple[Floats, Outputs]:
    """Reference inputs (N, C, H, W), several of them in a row (see `models/inputs.py`), and each of the float model's
    outputs (N, ...).

    Raises:
        RunError: the file is missing or is not what an export writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        given, outputs = _in_order(tensors, "input"), _in_order(tensors, "output")
        inputs = given[0] if len(given) == 1 and given[0].ndim == 4 else _in_a_row(given)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError("the reference cannot be read", where=str(path), hint="export the model again") from error
    if inputs.ndim != 4 or len(inputs) == 0 or any(len(inputs) != len(output) for output in outputs):
        raise RunError(
            f"the reference has inputs of shape {inputs.shape} and outputs of {[o.shape for o in outputs]}",
            where=str(path),
            hint="export the model again",
        )
    return inputs.astype(np.float32), tuple(output.astype(np.float32) for output in outputs)


def _in_order(tensors: Mapping[str, npt.NDArray[Any]], word: str) -> list[npt.NDArray[Any]]:
    several = sorted((name for name in tensors if name.startswith(f"{word}.")), key=lambda n: int(n[len(word) + 1 :]))
    return [tensors[name] for name in several] or [tensors[word]]


def _in_a_row(inputs: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([one.reshape(len(one), -1) for one in inputs], 1)[:, None, None]


def _short(objective: Objective) -> str:
    """How a drop of the metric is named: "accuracy" of a classifier's."""
    return "accuracy" if objective.metric.name == "top-1 accuracy" else objective.metric.name


def _of_output(spec: TensorSpec, level: float) -> str:
    return f"{spec.of or spec.name} {level:.1f} dB"


def _overflow(manifest: Manifest) -> str:
    fp16 = manifest.precision == "fp16" or manifest.format == "coreml"
    return "; half precision overflows above 65504, keep this model in fp32" if fp16 else "; do not ship it"


def _decibels(value: float) -> str:
    return "equal to the last bit" if value == float("inf") else f"noise {value:.1f} dB below the signal"
