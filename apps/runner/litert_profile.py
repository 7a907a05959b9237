"""What each kernel of a .tflite file takes, in place: LiteRT's own profiler, through its C API.

The library in ai-edge-litert's wheel exports it; the order of the calls and the layout of an event are those of
version 2.3.0. An event is 13 words of 64 bits: name, kind (low half), start and length in microseconds, memory before
(3) and after (3), two numbers of the operator, source.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_int, c_size_t, c_void_p
from importlib import import_module
from pathlib import Path
from typing import Any

WORDS = 13
OPERATOR, KERNEL = 2, 8  # kinds: of an operator outside of delegates, of a kernel in one
WHOLE = 1
INVOKE = "Invoke"


class _Layout(ctypes.Structure):
    _fields_ = (("bits", ctypes.c_uint32), ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8))


class _TensorType(ctypes.Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class ProfiledModel:
    """A compiled model with its profiler, on the CPU."""

    def __init__(self, path: str, threads: int) -> None:
        package = import_module("ai_edge_litert")
        self.library = Path(str(package.__file__)).parent / "libLiteRt.so"
        self._library = ctypes.CDLL(str(self.library))
        self._kept: list[Any] = []  # what the library reads later on
        self._environment = self._made("LiteRtCreateEnvironment", c_int(0), None)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, path.encode())
        self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, self._model, self._options(threads))
        self._signature = self._made("LiteRtGetModelSignature", self._model, c_size_t(0))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)

    def invoke(self) -> None:
        """Run once, on whatever the input buffers hold."""
        counts = c_size_t(len(self._inputs)), c_size_t(len(self._outputs))
        self._call(
            "LiteRtRunCompiledModel", self._compiled, c_size_t(0), counts[0], self._inputs, counts[1], self._outputs
        )

    def profile(self, runs: int) -> tuple[list[str], list[list[int]], list[int]]:
        """(names of the kernels in their order, microseconds by run and kernel, microseconds of each whole run).

        Raises:
            RuntimeError: the runs differ in their kernels, or there are none.
        """
        names: list[str] = []
        times: list[list[int]] = []
        whole: list[int] = []
        for _ in range(runs):
            self._call("LiteRtStartProfiler", self._profiler)
            self.invoke()
            self._call("LiteRtStopProfiler", self._profiler)
            events = self._events()
            self._call("LiteRtResetProfiler", self._profiler)
            kernels = [(name, length) for name, kind, length in events if kind in (OPERATOR, KERNEL)]
            if names and [name for name, _ in kernels] != names:
                raise RuntimeError("the runs do not have the same kernels")
            names = [name for name, _ in kernels]
            times.append([length for _, length in kernels])
            whole.append(next(length for name, kind, length in events if kind == WHOLE and name == INVOKE))
        if not names:
            raise RuntimeError("the profiler names no kernels")
        return names, times, whole

    def _events(self) -> list[tuple[str, int, int]]:
        count = c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, byref(count))
        words = (ctypes.c_uint64 * (WORDS * count.value))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, words)
        rows = (words[WORDS * i : WORDS * (i + 1)] for i in range(count.value))
        return [(ctypes.string_at(row[0]).decode(), row[1] & 0xFFFFFFFF, row[3]) for row in rows]

    def _options(self, threads: int) -> c_void_p:
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, c_int(1))  # the CPU alone
        deleter = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)
        self._kept.append(deleter)
        settings = {b"xnnpack": f"num_threads = {threads}\n", b"runtime_options_string": "enable_profiling = true\n"}
        for name, text in settings.items():
            payload = ctypes.create_string_buffer(text.encode())
            self._kept.append(payload)
            opaque = self._made("LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, c_void_p), deleter)
            self._call("LiteRtAddOpaqueOptions", options, opaque)
        return options

    def _buffers(self, side: str) -> ctypes.Array[c_void_p]:
        """In the order of the signature, which may be another than the graph's: a run takes them so."""
        count = c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, byref(count))
        made = (c_void_p * count.value)()
        for i in range(count.value):
            tensor = self._made(f"LiteRtGetSignature{side}TensorByIndex", self._signature, c_size_t(i))
            kind = _TensorType()
            self._call("LiteRtGetRankedTensorType", tensor, byref(kind))
            needs = self._made(
                f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, c_size_t(0), c_size_t(i)
            )
            made[i] = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements", self._environment, byref(kind), needs
            )
        return made

    def _made(self, name: str, *arguments: Any) -> c_void_p:
        """What a function hands out through its last argument."""
        result = c_void_p()
        self._call(name, *arguments, byref(result))
        return result

    def _call(self, name: str, *arguments: Any) -> None:
        function: Callable[..., int] = getattr(self._library, name)
        if (status := function(*arguments)) != 0:
            raise RuntimeError(f"{name} answered {status}")


def profiled(path: str, threads: int, runs: int, warm_up: int) -> dict[str, Sequence[Any]]:
    """Kernel names, and microseconds by run, of a file that is warm."""
    model = ProfiledModel(path, threads)
    for _ in range(warm_up):
        model.invoke()
    names, times, whole = model.profile(runs)
    return {"names": names, "times_us": times, "whole_us": whole}
