"""A .tflite file as XNNPACK sees it: operators without the unpacking of weights, pads folded into convolutions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import UsageError
from edgeprune.latency.tflite_check import UNREADABLE, damaged
from edgeprune.latency.tflite_reader import read_model
from edgeprune.sparsity.encoding import BadEncoding, decode

Array = npt.NDArray[Any]
Sides = tuple[int, int, int, int]  # top, bottom, left, right
OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class Operator:
    """An operator: `inputs` are tensors that are computed, `constants` those with their value in the file, a filter
    first."""

    number: int  # in the file
    name: str
    inputs: tuple[int, ...]
    constants: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    padding: Sides | None = None  # of a convolution; None: TensorFlow's SAME where it depends on the size

    def __str__(self) -> str:
        return f"{self.name} (operator {self.number})"


class Graph:
    """The first subgraph of a file.

    Raises:
        UsageError: the file cannot be read, is no .tflite file, is damaged, or has several subgraphs.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.model = read_model(file)
        if len(self.model.subgraphs) != 1:
            raise UsageError(f"{len(self.model.subgraphs)} subgraphs; only one is understood", where=str(file))
        self._graph = self.model.subgraphs[0]
        self.inputs = tuple(int(t) for t in self._graph.inputs)
        self.outputs = tuple(int(t) for t in self._graph.outputs)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self._graph.tensors[tensor].shape)

    def is_float32(self, tensor: int) -> bool:
        return int(self._graph.tensors[tensor].type) == schema.TensorType.FLOAT32

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor has its value in the file, as it is or unpacked from a sparse one."""
        return tensor in self._unpacked or self._stored(tensor)

    def is_sparse(self, tensor: int) -> bool:
        """Whether a weight tensor is stored sparsely."""
        return tensor in self._unpacked

    def value(self, tensor: int) -> Array:
        """A constant float32 or int32 tensor, dense.

        Raises:
            UsageError: it has no value here, or one of another type.
        """
        stored = self._unpacked.get(tensor, tensor)
        entry = self._graph.tensors[stored]
        kinds = {schema.TensorType.FLOAT32: np.dtype("<f4"), schema.TensorType.INT32: np.dtype("<i4")}
        if not self._stored(stored) or int(entry.type) not in kinds:
            raise UsageError(f"the tensor {tensor} is no float32 or int32 constant")
        flat = np.asarray(self.model.buffers[entry.buffer].data, np.uint8).view(kinds[int(entry.type)])
        if not entry.sparsity:
            return flat.reshape(self.shape(stored))
        try:
            return decode(flat, entry.sparsity, self.shape(stored))
        except (BadEncoding, *UNREADABLE) as error:
            raise damaged(error, str(self.file)) from error

    @cached_property
    def operators(self) -> tuple[Operator, ...]:
        """All but the unpacking of weights; a PAD of zeros in height and width alone is part of its convolution.

        Raises:
            UsageError: the options of an operator are damaged.
        """
        try:
            return self._operators()
        except UNREADABLE as error:
            raise damaged(error, str(self.file)) from error

    def _operators(self) -> tuple[Operator, ...]:
        listed = [self._operator(n, o) for n, o in enumerate(self._graph.operators) if n not in self._unpackers]
        uses = [tensor for operator in listed for tensor in operator.inputs]
        pads = {o.outputs[0]: o for o in listed if o.name == "PAD" and uses.count(o.outputs[0]) == 1}
        folded: set[int] = set()
        result = []
        for operator in listed:
            pad = pads.get(operator.inputs[0]) if operator.inputs else None
            if pad is None or operator.name not in _CONVOLUTIONS or operator.padding is None or not pad.constants:
                result.append(operator)
                continue
            amounts = self.value(pad.constants[0])
            if amounts[[0, 3]].any() or pad.outputs[0] in self.outputs:
                result.append(operator)
                continue
            sides = (amounts[1, 0], amounts[1, 1], amounts[2, 0], amounts[2, 1])
            padding = tuple(int(own + more) for own, more in zip(operator.padding, sides, strict=True))
            folded.add(pad.number)
            top, bottom, left, right = padding
            result.append(replace(operator, inputs=pad.inputs, padding=(top, bottom, left, right)))
        return tuple(operator for operator in result if operator.number not in folded)

    @cached_property
    def producer(self) -> dict[int, Operator]:
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    def consumers(self, tensor: int) -> list[Operator]:
        """Who takes a computed tensor."""
        return [operator for operator in self.operators if tensor in operator.inputs]

    def users(self, tensor: int) -> list[Operator]:
        """Who takes a constant."""
        return [operator for operator in self.operators if tensor in operator.constants]

    def _operator(self, number: int, entry: Any) -> Operator:
        name = self._name(entry)
        given = [int(tensor) for tensor in entry.inputs if tensor >= 0]
        return Operator(
            number,
            name,
            tuple(tensor for tensor in given if not self.is_constant(tensor)),
            tuple(tensor for tensor in given if self.is_constant(tensor)),
            tuple(int(tensor) for tensor in entry.outputs),
            entry.builtinOptions,
            self._padding(entry) if name in _CONVOLUTIONS else None,
        )

    def _padding(self, entry: Any) -> Sides | None:
        """What XNNPACK makes of a convolution's own padding: with a stride SAME stays open until it runs."""
        options = entry.builtinOptions
        if options.padding == schema.Padding.VALID:
            return (0, 0, 0, 0)
        if (options.strideH, options.strideW) != (1, 1):
            return None
        height, width = self.shape(int(entry.inputs[1]))[1:3]
        rows, columns = (height - 1) * options.dilationHFactor, (width - 1) * options.dilationWFactor
        return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)

    def _name(self, entry: Any) -> str:
        code = self.model.operatorCodes[entry.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return OPERATOR_NAMES.get(number, f"operator kind {number}")

    @cached_property
    def _unpackers(self) -> dict[int, tuple[int, int]]:
        """DENSIFY operators of stored weights: their number -> (dense tensor, sparse tensor)."""
        found = {}
        for number, entry in enumerate(self._graph.operators):
            if self._name(entry) == "DENSIFY" and self._stored(source := int(entry.inputs[0])):
                found[number] = (int(entry.outputs[0]), source)
        return found

    @cached_property
    def _unpacked(self) -> dict[int, int]:
        return dict(self._unpackers.values())

    def _stored(self, tensor: int) -> bool:
        data = self.model.buffers[self._graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0
