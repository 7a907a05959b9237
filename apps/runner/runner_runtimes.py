"""The runtimes that the Python runner knows: loading a model of each and running it. Runs on the device."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Spec = tuple[tuple[int, ...], np.dtype[Any]]


class CaseError(Exception):
    """A case cannot be run; the job goes on with the next one."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Loaded(Protocol):
    """A model ready to run. Its inputs and outputs stand in the order of the file; `specs` are the shape and dtype of
    each input. Names are empty where the file has none; `ordered` is false where only names tell them apart."""

    specs: list[Spec]
    input_names: list[str]
    output_names: list[str]
    ordered: bool

    def set_inputs(self, values: list[Array]) -> None: ...

    def invoke(self) -> None: ...

    def output(self, place: int) -> Array: ...


class LiteRTModel:
    """A .tflite file in LiteRT's interpreter (XNNPACK on)."""

    ordered = True

    def __init__(self, path: str, threads: int) -> None:
        module = import_module(installed("litert")[0].module)
        self._interpreter = module.Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._inputs, self._outputs = ([int(entry["index"]) for entry in side] for side in (inputs, outputs))
        self.input_names, self.output_names = ([str(entry["name"]) for entry in side] for side in (inputs, outputs))
        self.specs = [(tuple(int(n) for n in entry["shape"]), np.dtype(entry["dtype"])) for entry in inputs]
        self.invoke = self._interpreter.invoke

    def set_inputs(self, values: list[Array]) -> None:
        for index, value in zip(self._inputs, values, strict=True):
            self._interpreter.set_tensor(index, value)

    def output(self, place: int) -> Array:
        return np.array(self._interpreter.get_tensor(self._outputs[place]))


class ExecuTorchModel:
    """A .pte file in ExecuTorch's runtime. `invoke` includes the copy of the outputs, which its Python API makes."""

    ordered = True
    SCALARS = {1: "int8", 0: "uint8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}  # noqa: RUF012

    def __init__(self, path: str, threads: int) -> None:
        import torch

        # Not executorch.runtime: it imports ExecuTorch's whole compiler, five seconds in every process.
        from executorch.extension.pybindings import _portable_lib as portable_lib

        # The thread pool belongs to the process, and a model keeps the pool it was loaded with.
        portable_lib._unsafe_reset_threadpool(threads)
        if portable_lib._threadpool_get_thread_count() != threads:
            raise CaseError("load", f"ExecuTorch did not accept {threads} threads")
        torch.set_num_threads(threads)
        self._torch = torch
        self._program = portable_lib._load_program(path)  # kept: a method without its program crashes
        method = self._program.load_method("forward")
        if method is None:
            raise CaseError("load", "the file has no method `forward`")
        meta = method.method_meta()
        infos = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
        self.specs = [(tuple(int(n) for n in i.sizes()), np.dtype(self.SCALARS[int(i.dtype())])) for i in infos]
        self.input_names, self.output_names = [""] * meta.num_inputs(), [""] * meta.num_outputs()
        self._method = method
        self._inputs: tuple[Any, ...] = ()
        self._outputs: Sequence[Any] = ()

    def set_inputs(self, values: list[Array]) -> None:
        self._inputs = tuple(self._torch.from_numpy(np.ascontiguousarray(value).copy()) for value in values)

    def invoke(self) -> None:
        self._outputs = self._method(self._inputs)

    def output(self, place: int) -> Array:
        value = self._outputs[place]
        if not isinstance(value, self._torch.Tensor):
            raise CaseError("run", f"output {place + 1} is no tensor but {type(value).__name__}")
        return np.array(value.numpy())


class OnnxModel:
    """A .onnx file in ONNX Runtime's CPU provider."""

    ordered = True

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        state = onnxruntime.capi.onnxruntime_pybind11_state  # its errors share no base but Exception
        names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
        refusals = tuple(getattr(state, name) for name in names if hasattr(state, name))
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except refusals as error:
            raise CaseError("load", f"{type(error).__name__}: {error}") from error
        inputs = self._session.get_inputs()
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
        kinds |= {f"tensor({name})": name for name in ("int8", "uint8", "int32", "int64", "bool")}
        shapes = [tuple(n if isinstance(n, int) else 1 for n in entry.shape) for entry in inputs]  # a free batch is 1
        self.specs = [(shape, np.dtype(kinds[entry.type])) for shape, entry in zip(shapes, inputs, strict=True)]
        self.input_names = [entry.name for entry in inputs]
        self.output_names = [entry.name for entry in self._session.get_outputs()]
        self._feed: dict[str, Array] = {}
        self._outputs: Sequence[Any] = ()

    def set_inputs(self, values: list[Array]) -> None:
        self._feed = {name: np.ascontiguousarray(value) for name, value in zip(self.input_names, values, strict=True)}

    def invoke(self) -> None:
        self._outputs = self._session.run(self.output_names, self._feed)

    def output(self, place: int) -> Array:
        return np.array(self._outputs[place])


class CoreMLModel:
    """A .mlpackage (zipped, as it travels) in Core ML, which chooses among the compute units allowed. Macs only."""

    ordered = False

    def __init__(self, path: str, threads: int, units: str) -> None:  # noqa: ARG002  # Core ML has no say in threads
        import coremltools

        self._folder = tempfile.TemporaryDirectory(prefix="edgeprune-mlpackage-")
        with zipfile.ZipFile(path) as archive:
            archive.extractall(self._folder.name)
        (package,) = (Path(self._folder.name) / name for name in {entry.split("/")[0] for entry in archive.namelist()})
        self._model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit[units])
        spec = self._model.get_spec().description
        kinds = {65568: "float32", 65552: "float16", 131104: "int32"}  # ArrayFeatureType's numbers
        arrays = [entry.type.multiArrayType for entry in spec.input]
        self.specs = [(tuple(int(n) for n in a.shape), np.dtype(kinds[a.dataType])) for a in arrays]
        self.input_names, self.output_names = ([entry.name for entry in side] for side in (spec.input, spec.output))
        self._feed: dict[str, Array] = {}
        self._outputs: dict[str, Any] = {}

    def set_inputs(self, values: list[Array]) -> None:
        self._feed = {name: np.ascontiguousarray(value) for name, value in zip(self.input_names, values, strict=True)}

    def invoke(self) -> None:
        self._outputs = self._model.predict(self._feed)

    def output(self, place: int) -> Array:
        return np.array(self._outputs[self.output_names[place]])


@dataclass(frozen=True)
class Runtime:
    """A runtime as it may be installed. `libraries`: names that the native library with its kernels begins with."""

    loader: Callable[..., Loaded]  # (path, threads), and for Core ML compute units
    distribution: str
    module: str
    libraries: tuple[str, ...]


# In the order of preference; tflite-runtime is the predecessor of ai-edge-litert, and there is no newer one for it.
RUNTIMES: dict[str, tuple[Runtime, ...]] = {
    "litert": (
        Runtime(LiteRTModel, "ai-edge-litert", "ai_edge_litert.interpreter", ("libpywrap_litert_common",)),
        Runtime(LiteRTModel, "tflite-runtime", "tflite_runtime.interpreter", ("_pywrap_tensorflow_interpreter",)),
    ),
    "executorch": (
        Runtime(ExecuTorchModel, "executorch", "executorch.extension.pybindings._portable_lib", ("_portable_lib",)),
    ),
    "onnxruntime": (
        Runtime(OnnxModel, "onnxruntime", "onnxruntime", ("onnxruntime_pybind11_state", "libonnxruntime")),
    ),
    "coreml": (Runtime(CoreMLModel, "coremltools", "coremltools", ("libcoremlpython",)),),
}


def installed(name: str) -> tuple[Runtime, str]:
    """(what is installed of a runtime, its version).

    Raises:
        ImportError: nothing is.
    """
    for runtime in RUNTIMES[name]:
        try:
            return runtime, metadata.version(runtime.distribution)
        except metadata.PackageNotFoundError:
            continue
    raise ImportError(f"no package {' or '.join(runtime.distribution for runtime in RUNTIMES[name])}")


def native_library(module: str, starts: tuple[str, ...]) -> Path:
    """The file of the library that runs the kernels, as this process has it loaded."""
    if module.startswith("executorch"):
        import_module("torch")  # its libraries have to be there first
    import_module(module)
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = (line.split(None, 5) for line in maps.read_text(encoding="utf-8").splitlines())
        files = sorted({Path(fields[5]) for fields in mapped if len(fields) == 6})
    else:
        folders = [Path(folder) for folder in sys.modules[module.partition(".")[0]].__path__]
        files = sorted(path for folder in folders for path in folder.rglob("*"))
    for start in starts:
        for path in files:
            if path.name.startswith(start) and path.is_file():
                return path
    raise SystemExit(f"cannot find the native library of {module} ({' or '.join(starts)})")
