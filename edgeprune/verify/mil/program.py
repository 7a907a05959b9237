"""Running the program of a Core ML package with torch.

How half precision is emulated: every value that the program declares as fp16 (weights, inputs, the output of every
operation) is rounded to fp16, and each operation computes in float32 in between. That is what a device with fp16
storage and wide accumulators does; a device that also accumulates in fp16 is somewhat less exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.errors import UsageError
from edgeprune.verify.mil.operations import find_operation
from edgeprune.verify.mil.package import Package, TensorType, open_package, tensor_type
from edgeprune.verify.mil.registry import Result, check_arguments

Value = Tensor | str | list[Tensor]


@dataclass(frozen=True)
class Reference:
    """An argument that names a value computed earlier."""

    name: str


Argument = Reference | Tensor | str | list[Reference | Tensor]


@dataclass(frozen=True)
class Step:
    """One operation, ready to be called."""

    kind: str
    name: str
    function: Callable[..., Result]
    arguments: dict[str, Argument]
    outputs: tuple[tuple[str, TensorType], ...]
    last_use_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A loaded program: constants and compressed weights are decoded, the rest waits for an input."""

    inputs: tuple[tuple[str, TensorType], ...]  # name and type, in the order of the package
    output_names: tuple[str, ...]
    constants: dict[str, Value]
    steps: tuple[Step, ...]
    where: str
    operations: frozenset[str] = field(default_factory=frozenset)

    def run(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Execute on inputs of exactly the declared shapes; returns the outputs as float32.

        Raises:
            UsageError: the shape does not fit, or an operation does not give the shape that the program declares.
        """
        values: dict[str, Value] = {}
        for tensor, (name, kind) in zip(given, self.inputs, strict=True):
            _check_shape(f"the input {name}", tensor, kind, where=self.where)
            values[name] = _stored(tensor.float(), kind)
        with torch.inference_mode():
            for step in self.steps:
                values.update(_execute(step, self.constants, values, where=self.where))
                for name in step.last_use_of:
                    values.pop(name, None)
        return tuple(self._output(name, values) for name in self.output_names)

    def _output(self, name: str, values: dict[str, Value]) -> Tensor:
        result = values.get(name, self.constants.get(name))
        if not isinstance(result, Tensor):
            raise UsageError(f"the program never computes its output {name}", where=self.where)
        return result


def run_mlpackage(path: Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Execute a .mlpackage of one output; see `outputs_of_mlpackage`."""
    outputs = outputs_of_mlpackage(path, inputs)
    if len(outputs) != 1:
        raise UsageError(f"the program has {len(outputs)} outputs; one is expected", where=str(path))
    return outputs[0]


def outputs_of_mlpackage(
    path: Path, *inputs: npt.NDArray[np.float32], names: Sequence[str] | None = None
) -> tuple[npt.NDArray[np.float32], ...]:
    """Execute a .mlpackage on its inputs, each (N, ...) float32, in the order in which the package describes them or of
    `names`; returns each output (N, ...) float32, in the order in which it describes them.

    A program of fixed batch size b is run N / b times.

    Raises:
        UsageError: the package is damaged, uses an operation that the reference
            executor does not know (the error names it), or the inputs do not fit.
        ToolkitMissing: coremltools is not installed.
    """
    program = load_program(path)
    own = [name for name, _ in program.inputs]
    named = dict(zip(own if names is None else names, inputs, strict=False))
    if len(inputs) != len(own) or set(named) != set(own):
        raise UsageError(f"the program takes {', '.join(own)}, given are {', '.join(named)}", where=str(path))
    inputs = tuple(named[name] for name in own)
    _, first = program.inputs[0]
    batch = 1 if not first.shape or first.shape[0] is None else first.shape[0]
    count = len(inputs[0])
    if count == 0 or count % batch or any(len(one) != count for one in inputs):
        told = " and ".join(str(len(one)) for one in inputs)
        raise UsageError(f"the program takes {batch} images at a time; {told} cannot be fed", where=str(path))
    given = [torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32)).split(batch) for one in inputs]
    parts = [program.run(*some) for some in zip(*given, strict=True)]
    return tuple(np.concatenate([one.numpy() for one in each]) for each in zip(*parts, strict=True))


def load_program(path: Path) -> Program:
    """Open a package and decode its constants.

    Raises:
        UsageError: as for `run_mlpackage`.
    """
    package = open_package(path)
    program = package.model.mlProgram
    name = package.model.description.defaultFunctionName or "main"
    if name not in program.functions:
        raise UsageError(f"the package has no function {name}", where=str(path))
    function = program.functions[name]
    block = function.block_specializations[function.opset]
    names = tuple(item.name for item in package.model.description.output) or tuple(block.outputs)
    kinds = {one.name: tensor_type(one.type) for one in function.inputs}
    taken = tuple(item.name for item in package.model.description.input) or tuple(kinds)
    if not taken or set(taken) != set(kinds) or set(names) != set(block.outputs):
        raise UsageError(
            f"the program has the inputs {', '.join(kinds)} and the outputs {', '.join(block.outputs)}; those that the "
            f"package describes ({', '.join(taken)}; {', '.join(names)}) are expected",
            where=str(path),
        )
    if any(item.type.WhichOneof("Type") == "imageType" for item in package.model.description.input):
        raise UsageError(
            "the package takes an image, not a tensor", where=str(path), hint="convert with ct.TensorType inputs"
        )
    constants, steps = _read_steps(package, block.operations)
    return Program(
        inputs=tuple((name, kinds[name]) for name in taken),
        output_names=names,
        constants=constants,
        steps=_with_last_uses(steps, keep=names),
        where=str(path),
        operations=frozenset(message.type for message in block.operations),
    )


def _read_steps(package: Package, messages: Any) -> tuple[dict[str, Value], list[Step]]:
    """Constants and compressed weights as values; everything else as steps."""
    constants: dict[str, Value] = {}
    steps: list[Step] = []
    for message in messages:
        if message.type == "const":
            constants[message.outputs[0].name] = _value(package.constant(message.attributes["val"]))
            continue
        step = _read_step(package, message)
        if message.type.startswith("constexpr_"):
            constants.update(_execute(step, constants, {}, where=str(package.path)))
        else:
            steps.append(step)
    return constants, steps


def _read_step(package: Package, message: Any) -> Step:
    name = message.outputs[0].name if message.outputs else message.type
    where = f"{package.path}: {name}"
    function = find_operation(message.type, where=where)
    if message.blocks:
        raise UsageError(f"`{message.type}` holds a block of its own, which is not executed here", where=where)
    arguments = {key: _argument(package, argument) for key, argument in message.inputs.items()}
    # iOS 16's compressed weights keep their tensors as attributes; every operation keeps its name there.
    arguments |= {k: _value(package.constant(v)) for k, v in message.attributes.items() if k != "name"}
    check_arguments(message.type, function, arguments, where=where)
    outputs = tuple((output.name, tensor_type(output.type)) for output in message.outputs)
    return Step(message.type, name, function, arguments, outputs)


def _argument(package: Package, argument: Any) -> Any:
    """An argument binds one value, or several where the operation takes a list."""
    parts = [
        Reference(binding.name) if binding.WhichOneof("binding") == "name" else _value(package.constant(binding.value))
        for binding in argument.arguments
    ]
    return parts[0] if len(parts) == 1 else parts


def _value(constant: Any) -> Any:
    if isinstance(constant, str):
        return constant
    if constant.dtype == np.bool_:
        return torch.from_numpy(constant.copy())
    wide = np.float32 if np.issubdtype(constant.dtype, np.floating) else np.int64
    return torch.from_numpy(constant.astype(wide))


def _with_last_uses(steps: list[Step], *, keep: tuple[str, ...]) -> tuple[Step, ...]:
    """Note at each step which values nobody reads afterwards, so that they need not stay in memory."""
    seen = set(keep)
    finished: list[Step] = []
    for step in reversed(steps):
        used: set[str] = set()
        for argument in step.arguments.values():
            used |= {part.name for part in (argument if isinstance(argument, list) else [argument])
                     if isinstance(part, Reference)}  # fmt: skip
        used |= {name for name, _ in step.outputs}
        finished.append(
            Step(step.kind, step.name, step.function, step.arguments, step.outputs, tuple(sorted(used - seen)))
        )
        seen |= used
    return tuple(reversed(finished))


def _execute(step: Step, constants: dict[str, Value], values: dict[str, Value], *, where: str) -> dict[str, Tensor]:
    arguments = {key: _resolve(argument, constants, values, where=where) for key, argument in step.arguments.items()}
    try:
        result = step.function(**arguments)
    except (RuntimeError, IndexError) as error:
        raise UsageError(f"`{step.kind}` cannot be executed: {error}", where=f"{where}: {step.name}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(step.outputs):
        raise UsageError(f"`{step.kind}` gave {len(results)} results, not {len(step.outputs)}", where=where)
    stored: dict[str, Tensor] = {}
    for (name, declared), tensor in zip(step.outputs, results, strict=True):
        _check_shape(f"`{step.kind}` {name}", tensor, declared, where=where)
        stored[name] = _stored(tensor, declared)
    return stored


def _resolve(argument: Argument, constants: dict[str, Value], values: dict[str, Value], *, where: str) -> Any:
    if isinstance(argument, list):
        return [_resolve(part, constants, values, where=where) for part in argument]
    if not isinstance(argument, Reference):
        return argument
    if argument.name in values:
        return values[argument.name]
    if argument.name not in constants:
        raise UsageError(f"the program reads {argument.name} before it is computed", where=where)
    return constants[argument.name]


def _stored(tensor: Tensor, declared: TensorType) -> Tensor:
    """The value as the program stores it: fp16 values are rounded, and overflow to infinity as they would there."""
    if declared.data_type == "FLOAT16":
        return tensor.half().float()
    if declared.data_type in ("FLOAT32", "FLOAT64"):
        return tensor.float()
    return tensor if declared.data_type == "BOOL" else tensor.long()


def _check_shape(what: str, tensor: Tensor, declared: TensorType, *, where: str) -> None:
    fits = len(declared.shape) == tensor.ndim and all(
        size is None or size == there for size, there in zip(declared.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise UsageError(f"{what} has shape {tuple(tensor.shape)}, the program declares {declared.shape}", where=where)
