"""Where a device and this machine part: the first operator of a .tflite file whose output differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeprune.devices.base import Device
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Array
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.latency.tflite_reader import read_model
from edgeprune.scratch import scratch_folder
from edgeprune.verify.parity import sqnr_db

FLOAT_DB = 80.0  # kernels that add in another order agree to more than 100 dB, layer upon layer
INTEGER_DB = 25.0  # kernels that round otherwise differ by a step here and there
IDENTIFIER = b"TFL3"
MOST_INPUTS = 1 << 28  # numbers

_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


@dataclass(frozen=True)
class OperatorDifference:
    """How far an operator's output on the device is from this machine's: SQNR in dB, inf where they are equal."""

    index: int
    kind: str
    tensor: str
    sqnr_db: float
    differs: bool


@dataclass(frozen=True)
class Explanation:
    """What was looked at, in the order of the operators; `first` is the first that differs, None where none does."""

    file: str
    device: str
    operators: int
    looked_at: tuple[OperatorDifference, ...]
    first: OperatorDifference | None


def explain(
    device: Device,
    file: Path,
    inputs: Array | Sequence[Array] | None = None,
    *,
    threads: int = 1,
    limit_db: float | None = None,
) -> Explanation:
    """Find the first operator of a file whose output on the device differs from this machine's.

    The file is cut behind an operator, and both run what is left. The outputs of the whole file are looked at
    first; where one differs, the search halves, which takes for granted that what has parted stays parted, and then
    goes back along the branch.

    Args:
        inputs: (N, ...) in the file's own dtype and layout, of several inputs each, in the file's order; without: eight
            random ones, the same each time.
        limit_db: SQNR below which outputs differ; without: 80 dB, 25 dB for integers.

    Raises:
        UsageError: the file is no .tflite with inputs and one part, or the limit is no finite number.
        DeviceError: the device was lost.
    """
    if limit_db is not None and not math.isfinite(limit_db):
        raise UsageError(f"the limit is {limit_db} dB, which no output reaches or misses", hint="give decibels, as 80")
    model = read_cuttable(file)
    operators = model.subgraphs[0].operators
    if inputs is None:
        inputs = _random_inputs(model)
    looked: dict[int, OperatorDifference] = {}
    host = LocalDevice()
    with scratch_folder("explain") as scratch:

        def look(index: int) -> OperatorDifference:
            if index not in looked:
                cut = scratch / f"{index}.tflite"
                cut.write_bytes(cut_behind(file, index))
                answers = [
                    run_inference(place, cut, inputs, runtime="litert", threads=threads).outputs[0]
                    for place in (host, device)
                ]
                looked[index] = _difference(model, index, answers[0], answers[1], limit_db)
            return looked[index]

        makers = {int(t): index for index, op in enumerate(operators) for t in op.outputs}
        ends = sorted({makers[int(t)] for t in model.subgraphs[0].outputs if int(t) in makers})
        low, high = 0, next((end for end in ends if look(end).differs), -1)
        first = None
        if high >= 0:
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if look(middle).differs else (middle + 1, high)
            # Branches do not stand in one line: go on to what the operator was given, as long as that differs.
            while (
                earlier := next((m for m in _makers_of(operators[low], makers) if look(m).differs), None)
            ) is not None:
                low = earlier
            first = look(low)
    return Explanation(
        file=file.name,
        device=device.id,
        operators=len(operators),
        looked_at=tuple(looked[index] for index in sorted(looked)),
        first=first,
    )


def _makers_of(operator: Any, makers: Mapping[int, int]) -> list[int]:
    """The operators that make what one is given."""
    return sorted({makers[int(t)] for t in operator.inputs if int(t) in makers})


def cut_behind(file: Path, index: int) -> bytes:
    """The file with nothing behind an operator, whose output becomes the file's; weights that go are left out."""
    model = read_cuttable(file)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[: index + 1]
    graph.outputs = [int(graph.operators[-1].outputs[0])]
    used = {int(t) for op in graph.operators for t in (*op.inputs, *op.outputs) if t >= 0}
    used |= {int(t) for t in graph.inputs}
    kept = {graph.tensors[t].buffer for t in used}
    for number, buffer in enumerate(model.buffers):
        if number not in kept:
            buffer.data = None
    model.signatureDefs = None
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def read_cuttable(file: Path) -> Any:
    """The file's content as the schema's own objects: of one part, with inputs, and operators that make its output.

    Raises:
        UsageError: it is another, no .tflite file, or damaged.
    """
    model = read_model(file)
    graph = model.subgraphs[0]
    if len(model.subgraphs) != 1 or len(graph.inputs) == 0:
        raise UsageError("the file has several parts, or no input", where=str(file), hint="it cannot be cut")
    if any(len(op.outputs) == 0 for op in graph.operators):
        raise UsageError("the file has operators without outputs", where=str(file), hint="it cannot be cut")
    if not {int(t) for t in graph.outputs} & {int(t) for op in graph.operators for t in op.outputs}:
        raise UsageError("no operator of the file makes an output", where=str(file), hint="there is nothing to cut")
    return model


def _random_inputs(model: Any) -> list[Array]:
    graph, random = model.subgraphs[0], np.random.default_rng(0)
    return [_random_input(graph.tensors[int(number)], random) for number in graph.inputs]


def _random_input(tensor: Any, random: np.random.Generator) -> Array:
    kinds: dict[int, Any] = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT8: np.int8}
    kinds |= {schema.TensorType.UINT8: np.uint8, schema.TensorType.FLOAT16: np.float16}
    if tensor.type not in kinds:
        raise UsageError("no random inputs of its type can be made", hint="give inputs (the Python call takes them)")
    dtype = np.dtype(kinds[tensor.type])
    sizes = tensor.shape if tensor.shape is not None else ()
    shape = (8, *(int(n) for n in sizes[1:]))
    if math.prod(shape) > MOST_INPUTS:
        raise UsageError(f"random inputs of shape {shape} cannot be made", hint="give inputs (the Python call does so)")
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return random.standard_normal(shape).astype(dtype)


def _difference(
    model: Any, index: int, expected: npt.NDArray[Any], given: npt.NDArray[Any], limit_db: float | None
) -> OperatorDifference:
    graph = model.subgraphs[0]
    operator = graph.operators[index]
    tensor = graph.tensors[int(operator.outputs[0])]
    code = model.operatorCodes[operator.opcodeIndex]
    kind = _NAMES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
    integers = np.issubdtype(expected.dtype, np.integer)
    points = tensor.quantization.zeroPoint if integers and tensor.quantization is not None else None
    zero = int(points[0]) if points is not None and len(points) else 0
    finite = bool(np.isfinite(expected).all() and np.isfinite(given).all())
    decibels = sqnr_db(expected.astype(np.float64) - zero, given.astype(np.float64) - zero) if finite else -math.inf
    limit = limit_db if limit_db is not None else INTEGER_DB if integers else FLOAT_DB
    name = tensor.name.decode(errors="replace") if isinstance(tensor.name, bytes) else str(tensor.name)
    return OperatorDifference(index, kind, name, decibels, differs=decibels < limit)
