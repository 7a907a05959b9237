"""How close two sets of outputs are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import DataError

Array = npt.NDArray[Any]


def sqnr_db(reference: Array, output: Array) -> float:
    """Signal to quantization noise ratio in dB: 10 log10(sum ref^2 / sum (ref - out)^2), over the whole array.

    Computed in float64; inf when the two are equal, -inf when the reference is all zero and the output is not.

    Raises:
        DataError: the shapes differ, the arrays are empty, or a value is NaN or infinite.
    """
    expected, given = _finite(reference, "the reference"), _finite(output, "the output")
    if expected.shape != given.shape:
        raise DataError(f"the output has shape {given.shape}, the reference {expected.shape}")
    # Scaled by the largest value, so that squares neither overflow nor vanish; the ratio stays the same.
    scale = max(float(np.abs(expected).max()), float(np.abs(given).max())) or 1.0
    signal = float(np.square(expected / scale).sum())
    noise = float(np.square(expected / scale - given / scale).sum())
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def top1_agreement(reference_logits: Array, logits: Array) -> float:
    """Share of images on which both name the same class; logits have shape (N, classes).

    Raises:
        DataError: the shapes differ or fit no classifier, or a logit is NaN.
    """
    expected, given = top1_classes(reference_logits), top1_classes(logits)
    if reference_logits.shape != logits.shape:
        raise DataError(f"the logits have shape {logits.shape}, the reference {reference_logits.shape}")
    return float(np.mean(expected == given))


def top1_accuracy(logits: Array, labels: Array) -> float:
    """Share of images whose highest logit is the label; logits (N, classes), labels (N,) class numbers.

    Raises:
        DataError: the shapes do not fit, or a logit is NaN.
    """
    named = top1_classes(logits)
    if labels.shape != named.shape:
        raise DataError(f"{named.shape[0]} images have labels of shape {labels.shape}")
    return float(np.mean(named == labels))


def top1_classes(logits: Array) -> Array:
    """The class (N,) that logits (N, classes) name for each image.

    Raises:
        DataError: the shape fits no classifier, or a logit is NaN.
    """
    if logits.ndim != 2 or 0 in logits.shape:
        raise DataError(f"logits of shape {logits.shape} are not (images, classes)")
    if np.isnan(logits).any():
        raise DataError("a logit is not a number (NaN)", hint="the file computes nonsense: do not ship it")
    return np.asarray(logits.argmax(axis=1))


def _finite(values: Array, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise DataError(f"{name} is empty")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise DataError(
            f"{name} holds {bad} values that are NaN or infinite",
            hint="half precision overflows above 65504: if this is an fp16 file, the model does not fit in it",
        )
    return array
