"""Checks of what a file answers: parity on the reference inputs, agreement and accuracy on the test images."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from edgeprune.artifacts.manifest import Manifest
from edgeprune.errors import RunError
from edgeprune.recipe import VerdictLimits
from edgeprune.verify.chance import guesses, tells
from edgeprune.verify.execute import Execution, Floats
from edgeprune.verify.limits import Limit, at_least, at_most, info
from edgeprune.verify.outputs import Answers, Labels
from edgeprune.verify.parity import sqnr_db, top1_accuracy, top1_agreement, top1_classes
from edgeprune.verify.sampled import Rights, drop_check, share_check
from edgeprune.verify.verdict import HOST_AGREEMENT, Check

Runner = Callable[[Floats], Execution]
AGREEMENT, DROP = "top-1 agreement", "accuracy drop against the float model"  # the names of these checks


def parity_check(manifest: Manifest, folder: Path, run: Runner, limits: VerdictLimits) -> Check:
    """SQNR of the file against the float model, on the reference inputs stored beside its manifest.

    Raises:
        RunError: the reference cannot be read.
        DataError: the outputs do not fit the reference.
    """
    inputs, expected = read_reference(folder / manifest.reference)
    outputs = run(inputs).outputs
    if broken := _broken(outputs):
        why = f"{broken} of {len(inputs)} reference images give NaN or infinity{_overflow(manifest)}"
        return Check(name="SQNR", value=math.nan, unit="dB", limit=None, outcome="fail", why=why)
    value = sqnr_db(expected, outputs)
    said = f"the file's outputs on {len(inputs)} reference images, against the float model's: {_decibels(value)}"
    if manifest.precision == "int8":
        return info("SQNR", value, unit="dB", why=f"{said}; int8 is judged by agreement and accuracy")
    limit = limits.sqnr_fp16_db if manifest.precision == "fp16" else limits.sqnr_fp32_db
    advice = "" if limit is False or value >= limit else "; the export does not compute what the model computes"
    return at_least("SQNR", value, limit, unit="dB", why=said + advice)


def accuracy_checks(
    manifest: Manifest,
    outputs: Answers,
    limits: VerdictLimits,
    original: Labels | None = None,
    *,
    untrained: bool = False,
) -> tuple[Check, ...]:
    """Top-1 agreement with the float model, top-1 accuracy, its drop against the float and the original model.

    `original` has the class that the unpruned model names for each image, (N,). A file that answers NaN or infinity to
    a test image fails whatever the limits, and so does one that only guesses. Where the images are too few to tell a
    perfect model from a guessing one, its accuracy is undecided. Nothing of that is asked of a model that is
    `untrained`.
    """
    logits, labels = outputs.logits[manifest.file], outputs.labels
    if broken := _broken(logits):
        why = f"{broken} of {len(labels)} test images give NaN or infinity{_overflow(manifest)}"
        limit = 1 - broken / len(labels)
        return (Check(name="finite outputs", value=limit, unit="share", limit=1.0, outcome="fail", why=why),)
    named = top1_classes(logits)
    right = named == labels
    checks = [
        *_against_float(manifest, named, outputs, limits),
        _accuracy(named, labels, untrained=untrained),
    ]
    checks += _host_checks(manifest, outputs, limits)
    if original is not None:
        checks.append(_drop("accuracy drop against the original", original == labels, right, limits.accuracy_drop))
    return tuple(checks)


def _against_float(manifest: Manifest, named: Labels, outputs: Answers, limits: VerdictLimits) -> tuple[Check, ...]:
    """Agreement with the float model, and what is lost against it."""
    if outputs.float_logits is None:
        return untold(manifest, limits, "the float model is not at hand: name it (--model)")
    is_int8, labels = manifest.precision == "int8", outputs.labels
    floats = top1_classes(outputs.float_logits)
    same = named == floats
    return (
        share_check(
            AGREEMENT,
            same,
            limits.int8_agreement if is_int8 else None,
            why=f"file and float model name the same class on {same.sum()} of {len(labels)} test images",
        ),
        _drop(DROP, floats == labels, named == labels, limits.int8_accuracy_drop if is_int8 else None),
    )


def untold(manifest: Manifest, limits: VerdictLimits, why: str) -> tuple[Check, ...]:
    """The gates of an int8 file that nobody can hold it to: undecided, so that it does not pass. None of another's."""
    if manifest.precision != "int8":
        return ()
    gates: dict[str, float | Literal[False]] = {AGREEMENT: limits.int8_agreement, DROP: limits.int8_accuracy_drop}
    return tuple(
        Check(name=name, value=math.nan, unit="share", limit=limit, outcome="undecided", why=why)
        for name, limit in gates.items()
        if limit is not False
    )


def _accuracy(named: Labels, labels: Labels, *, untrained: bool) -> Check:
    """Told without a limit; but a file that guesses fails, and nothing passes of images that could not tell."""
    right = named == labels
    check = share_check("top-1 accuracy", right, None, why=f"right on {right.sum()} of {len(labels)} test images")
    if untrained:
        return check
    if not tells(labels):
        said, outcome = "chance could do as well on so few, of so few classes: name more test images", "undecided"
    elif guesses(named, labels):
        said, outcome = "no better than guessing: prune less, or train longer", "fail"
    else:
        return check
    return check.model_copy(update={"outcome": outcome, "why": f"{check.why}; {said}"})


def _host_checks(manifest: Manifest, outputs: Answers, limits: VerdictLimits) -> list[Check]:
    """The device against this machine, which ran the same file with the same runtime; none where it did not."""
    host = outputs.host_logits.get(manifest.file)
    if host is None:
        return []
    logits, count = outputs.logits[manifest.file], len(outputs.labels)
    agreement = top1_agreement(host, logits)
    before, after = top1_accuracy(host, outputs.labels), top1_accuracy(logits, outputs.labels)
    advice = "; find the first operator that differs with `edgeprune explain`"
    same = f"device and this machine name the same class on {round(agreement * count)} of {count} test images"
    poor = limits.host_agreement is not False and agreement < limits.host_agreement
    return [
        at_least(
            HOST_AGREEMENT,
            agreement,
            limits.host_agreement,
            unit="share",
            why=same + (advice if poor else ""),
        ),
        at_most(
            "accuracy away from this machine's",
            abs(after - before),
            limits.host_accuracy_drop,
            unit="share",
            why=f"{100 * before:.2f} % on this machine, {100 * after:.2f} % on the device",
        ),
    ]


def read_reference(path: Path) -> tuple[Floats, Floats]:
    """Reference inputs (N, C, H, W) and the float model's outputs (N, classes).

    Raises:
        RunError: the file is missing or is not what an export writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        inputs, outputs = tensors["input"], tensors["output"]
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError("the reference cannot be read", where=str(path), hint="export the model again") from error
    if inputs.ndim != 4 or len(inputs) == 0 or len(inputs) != len(outputs):
        raise RunError(
            f"the reference has inputs of shape {inputs.shape} and outputs of shape {outputs.shape}",
            where=str(path),
            hint="export the model again",
        )
    return inputs.astype(np.float32), outputs.reshape(len(outputs), -1).astype(np.float32)


def _broken(outputs: Floats) -> int:
    """How many images give a value that is not finite."""
    return int((~np.isfinite(outputs)).any(axis=1).sum())


def _overflow(manifest: Manifest) -> str:
    fp16 = manifest.precision == "fp16" or manifest.format == "coreml"
    return "; half precision overflows above 65504, keep this model in fp32" if fp16 else "; do not ship it"


def _drop(name: str, before: Rights, after: Rights, limit: Limit) -> Check:
    said = f"{100 * before.mean():.2f} % before, {100 * after.mean():.2f} % in the file"
    lost, gained = (before & ~after).sum(), (after & ~before).sum()
    return drop_check(name, before, after, limit, why=f"{said}: {lost} images lost, {gained} gained of {len(before)}")


def _decibels(value: float) -> str:
    return "equal to the last bit" if value == float("inf") else f"noise {value:.1f} dB below the signal"
