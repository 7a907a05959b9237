"""int8 for LiteRT: ai-edge-quantizer's static recipe. Runs inside a conversion child.

The quantizer stumbles over single operators: a constant of fewer dimensions than what it is concatenated with, the
region of a reduction. Such an operator stays in float, between a dequantize and a quantize, and is named; all others
become int8.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgeprune.models.inputs import in_order

Array = npt.NDArray[np.float32]
MOST_LEFT = 0.25  # of the operators; with more of them in float a file is hardly int8


@dataclass(frozen=True)
class Operator:
    """An operator of a file: its kind as TFLite names it, and its scope as the quantizer does: what it writes."""

    kind: str
    scope: str


def quantize_tflite(float_file: Path, file: Path, samples: Sequence[tuple[Tensor, ...]]) -> dict[str, int]:
    """Write an int8 .tflite of a float one that takes NHWC: see `quantize_samples`. `samples` are the model's inputs,
    each (1, ...) float32, images as (1, C, H, W)."""
    return quantize_samples(float_file, file, [tuple(_laid_out(one) for one in sample) for sample in samples])


def _laid_out(tensor: Tensor) -> Array:
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).contiguous().numpy()


def quantize_samples(float_file: Path, file: Path, samples: Sequence[tuple[Array, ...]]) -> dict[str, int]:
    """Write an int8 .tflite of a float one: int8 weights (per channel), activations, input and output.

    `samples` are the model's inputs in float32, of the shapes that the file takes. Activation ranges are the extremes
    over all of them: the quantizer's own default is a moving average, which clips (CIFAR-10 ResNet-20: 13.6 dB against
    30.3 dB with the extremes).

    Returns:
        The operators that the quantizer cannot do and that stay in float: how many of each kind.

    Raises:
        ValueError: too many would stay in float; the first is named.
    """
    from ai_edge_quantizer import recipe

    chosen = recipe.static_wi8_ai8()
    ranges = _ranges(float_file, chosen, samples)
    operators = _operators(float_file)
    left: list[Operator] = []
    while (error := _quantized(float_file, file, _without(chosen, left), ranges)) is not None:
        culprit = _first_that_fails(float_file, file, chosen, ranges, operators, left)
        if culprit is None or len(left) >= MOST_LEFT * len(operators):
            first = left[0] if left else culprit
            named = f"the operator {first.kind} ({first.scope.rstrip(';')}): " if first is not None else ""
            raise ValueError(f"{named}{type(error).__name__}: {error}") from error
        left.append(culprit)
    return dict(sorted(Counter(operator.kind for operator in left).items()))


def _ranges(float_file: Path, chosen: Any, samples: Sequence[tuple[Array, ...]]) -> Any:
    """The extremes of every tensor over the samples."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(chosen)
    observer = calibrator.Calibrator(
        str(float_file),
        num_threads=1,
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=qsv_utils.min_max_update,
    )
    signatures = observer.get_signature_list()
    (signature,) = signatures
    names = in_order(signatures[signature]["inputs"])
    observer.calibrate({signature: [dict(zip(names, sample, strict=True)) for sample in samples]}, manager)
    return observer.get_model_qsvs()


def _quantized(float_file: Path, file: Path, chosen: Any, ranges: Any) -> Exception | None:
    """Write the file; or what the quantizer raised."""
    from ai_edge_quantizer import quantizer

    job = quantizer.Quantizer(str(float_file))
    job.load_quantization_recipe(chosen)
    try:
        result = job.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        return error
    result.export_model(str(file), overwrite=True)
    return None


def _first_that_fails(
    float_file: Path, file: Path, chosen: Any, ranges: Any, operators: Sequence[Operator], left: Sequence[Operator]
) -> Operator | None:
    """The operator with which the quantizer begins to fail, by halving: it takes them in the file's order."""
    low, high = 0, len(operators)  # the first `low` can be quantized, the first `high` cannot
    while low < high:
        middle = (low + high) // 2
        rest = [*left, *operators[middle + 1 :]]
        if _quantized(float_file, file, _without(chosen, rest), ranges) is None:
            low = middle + 1
        else:
            high = middle
    file.unlink(missing_ok=True)
    return operators[low] if low < len(operators) and operators[low] not in left else None


def _without(chosen: Any, left: Sequence[Operator]) -> Any:
    """The recipe, with these operators in float."""
    from ai_edge_quantizer import recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(chosen)
    if left:
        scopes = "|".join(sorted({re.escape(operator.scope) for operator in left}))
        manager.add_quantization_config(f"^(?:{scopes})$", "*", algorithm_key="no_quantize")
    return manager.get_quantization_recipe()


def _operators(file: Path) -> list[Operator]:
    """The operators of all subgraphs, in the order in which the quantizer takes them."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(file))
    names = flatbuffer.TFL_OP_CODE_TO_NAME
    return [
        Operator(str(getattr(names[code], "value", names[code])), flatbuffer.get_op_scope(operator, subgraph.tensors))
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        if (code := model.operatorCodes[operator.opcodeIndex].builtinCode) in names
    ]
