"""Runs models on a device: reads a job (JSON), answers in JSON lines on stdout. Needs numpy, the runtime, and
the other files of this folder beside it.

    python python_runner.py job.json

A job:
    version 1; runtime "litert" | "executorch" | "onnxruntime" | "coreml"; threads; of Core ML compute_units "ALL" |
    "CPU_AND_GPU" | "CPU_AND_NE" | "CPU_ONLY"
    mode "time" (latency), "infer" (outputs of given inputs), "memory" (peak memory) or "profile" (of each kernel;
        "litert" only)
    cases [{id, model, inputs?, more_inputs?, input_names?, outputs?, output_names?, first_round?}]; "infer" needs
        `inputs` and `outputs`, .npy paths of the first input and the first output. `more_inputs` [paths] are the
        others, in the order of the file or of `input_names`; `output_names` are those wanted, in their order (without:
        all, in the order of the file). The second output goes to the path of `outputs` with ".1" behind it, and so on.
        A .tflite file's order is its graph's and its names are the tensors' (not the signature's); a .pte file has an
        order and no names, so they only say how many; Core ML has names and no order: where there are several, they
        are needed
    "time" only: schedule "interleaved" (A B A B ...), "mirrored" (A B B A ...), "shuffled" (each round in an order
        drawn from `seed`) or "sequential" (A A B B ...), rounds, keep_loaded (else a model is loaded anew for each
        round), warm_up_runs and warm_up_s after a load and then until `steady`: the medians of the last two quarters
        agree to this share, or warm_up_most_s are over), min_runs, min_s and max_samples for each visit of a case; a
        case may start at `first_round`
    "memory" and "profile": runs; "profile" only: warm_up_runs
    cores? [numbers]: those to run on; the scheduler's choice without

The lines, each an object with `event`:
    start   runtime, version, library, sha256, threads, cores, python
    conditions when ("before" | "during" | "after"), time, clock_s, load_1min, running, cpu_steal_s, cpu_busy_s, cpus,
            own_s, frequency_mhz, temperature_c; "during" between visits, at most once a second
    begin   case, round                    so that a crash has a name
    warm    case, runs, seconds, steady    after the warm-up
    samples case, round, seconds [...], runs_per_sample, preempted [indices of seconds], steal_s
    progress case, done                    "infer": inputs done so far
    outputs case, file, more_files? [paths of the other outputs], count, peak_bytes    "infer": finished
    memory  case, peak_bytes
    profile case, names [...], times_us [[...] for each run], whole_us [...]
    error   case, kind ("load" | "input" (what was given or asked for does not fit) | "run"), message
    end

Timing covers the runtime's invoke alone. Inputs of "time" and "memory" are random with a fixed seed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# On a device the files of this folder lie side by side; here they are a package.
if __name__ == "__main__" or not __package__:
    from runner_conditions import read_conditions, steal_s  # type: ignore[import-not-found]
    from runner_runtimes import CaseError, Loaded, installed, native_library  # type: ignore[import-not-found]
    from runner_tensors import (  # type: ignore[import-not-found]
        RowWriter,
        check_fit,
        input_places,
        output_files,
        output_places,
    )
else:
    from apps.runner.runner_conditions import read_conditions, steal_s
    from apps.runner.runner_runtimes import CaseError, Loaded, installed, native_library
    from apps.runner.runner_tensors import RowWriter, check_fit, input_places, output_files, output_places

Array = npt.NDArray[Any]
Job = dict[str, Any]
VERSION = 1
WATCH_S = 1.0  # between two looks at the conditions
CHANNEL = 63  # a descriptor no library takes


def emit(event: str, **fields: Any) -> None:
    os.write(CHANNEL, (json.dumps({"event": event, **fields}) + "\n").encode())


def own_stdout() -> None:
    """Keep stdout for our lines alone: what the runtimes print there goes to stderr."""
    os.dup2(1, CHANNEL)
    os.dup2(2, 1)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_case(job: Job, case: Job) -> Loaded:
    try:
        units = (job.get("compute_units", "ALL"),) if job["runtime"] == "coreml" else ()
        return installed(job["runtime"])[0].loader(case["model"], job["threads"], *units)
    except (ValueError, RuntimeError, TypeError, OSError, KeyError) as error:
        raise CaseError("load", f"{type(error).__name__}: {error}") from error


def seeded_inputs(model: Loaded) -> list[Array]:
    """Standard normal values (full-range integers), the same for the same shapes."""
    random = np.random.default_rng(0)
    values: list[Array] = []
    for shape, dtype in model.specs:
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            values.append(random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True))
        else:
            values.append(random.standard_normal(shape, dtype=np.float32).astype(dtype))
    return values


def prepared(job: Job, case: Job) -> Loaded:
    model = load_case(job, case)
    model.set_inputs(seeded_inputs(model))
    run_once(model)
    return model


def run_once(model: Loaded) -> None:
    try:
        model.invoke()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise CaseError("run", f"{type(error).__name__}: {error}") from error


def warm_up(model: Loaded, job: Job, case: Job) -> float:
    """Run until both limits are met and the latency is steady; returns the median seconds of the later half."""
    times: list[int] = []
    clock = time.perf_counter_ns
    start, wanted, most = clock(), job.get("steady", 0.0), job.get("warm_up_most_s", 0.0)
    while True:
        enough = len(times) >= job["warm_up_runs"] and clock() - start >= job["warm_up_s"] * 1e9
        if enough and (not wanted or is_steady(times, wanted) or clock() - start >= most * 1e9):
            break
        begin = clock()
        model.invoke()
        times.append(clock() - begin)
    steady = is_steady(times, wanted) if wanted else None
    emit("warm", case=case["id"], runs=len(times), seconds=round((clock() - start) / 1e9, 3), steady=steady)
    return max(middle(times[len(times) // 2 :]), 1) / 1e9


def is_steady(times: Sequence[int], share: float) -> bool:
    """Whether the medians of the last two quarters agree to this share; of fewer than 16 runs nobody can tell."""
    quarter = len(times) // 4
    if quarter < 4:
        return False
    third, last = middle(times[-2 * quarter : -quarter]), middle(times[-quarter:])
    return abs(last - third) <= share * third


def middle(times: Sequence[int]) -> int:
    ordered = sorted(times) or [1]
    return ordered[len(ordered) // 2]


def runs_per_sample(model: Loaded, job: Job, case: Job) -> int:
    """More than one only where a run is so short that the limits would give more than `max_samples`."""
    expected = max(job["min_runs"], job["min_s"] / warm_up(model, job, case))
    return max(1, math.ceil(expected / job["max_samples"]))


def visit(model: Loaded, job: Job, batch: int) -> dict[str, Any]:
    """One timed visit: one run to bring the caches back, then samples (means of `batch` runs) up to both limits.

    Samples during which the scheduler took the core away are marked and do not count; on a machine so busy that
    this never ends, the visit stops after four times its length.
    """
    clock, invoke = time.perf_counter_ns, model.invoke
    invoke()
    samples: list[float] = []
    preempted: list[int] = []
    steal, before = steal_s(), switches()
    start = clock()
    while True:
        begin = clock()
        for _ in range(batch):
            invoke()
        end = clock()
        samples.append((end - begin) / batch)
        if (after := switches()) != before:
            preempted.append(len(samples) - 1)
            before = after
        clean = len(samples) - len(preempted)
        enough = end - start >= job["min_s"] * 1e9 or clean >= job["max_samples"]
        hopeless = end - start >= 4 * job["min_s"] * 1e9 and len(samples) * batch >= 4 * job["min_runs"]
        if (clean * batch >= job["min_runs"] and enough) or hopeless:
            break
    return {
        "seconds": [round(ns, 2) / 1e9 for ns in samples],
        "runs_per_sample": batch,
        "preempted": preempted,
        "steal_s": None if steal is None else (steal_s() or 0.0) - steal,
    }


def switches() -> int:
    """How often the scheduler took the core away from this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def visits(job: Job) -> Iterator[tuple[Job, int]]:
    """(case, round) in the order of the schedule."""
    cases = [(case, case.get("first_round", 0)) for case in job["cases"]]
    if job["schedule"] == "sequential":
        yield from ((case, number) for case, first in cases for number in range(first, job["rounds"]))
        return
    random = np.random.default_rng(job.get("seed", 0))
    for number in range(job["rounds"]):
        order = cases[::-1] if job["schedule"] == "mirrored" and number % 2 else cases
        if job["schedule"] == "shuffled":
            order = [cases[place] for place in random.permutation(len(cases))]
        yield from ((case, number) for case, first in order if number >= first)


def time_cases(job: Job) -> None:
    """Visit the cases; loaded models are kept between rounds, or loaded anew each time (fresh memory layout)."""
    kept: dict[str, tuple[Loaded, int]] = {}
    failed: set[str] = set()
    watched = time.monotonic()
    for case, number in visits(job):
        if case["id"] in failed:
            continue
        if time.monotonic() - watched >= WATCH_S:
            emit("conditions", when="during", **read_conditions())
            watched = time.monotonic()
        emit("begin", case=case["id"], round=number)
        try:
            if case["id"] in kept:
                model, batch = kept[case["id"]]
            else:
                model = prepared(job, case)
                batch = runs_per_sample(model, job, case)
            if job["keep_loaded"]:
                kept[case["id"]] = (model, batch)
            result = visit(model, job, batch)
        except CaseError as error:
            failed.add(case["id"])
            emit("error", case=case["id"], kind=error.kind, message=str(error))
            continue
        emit("samples", case=case["id"], round=number, **result)


def infer_case(job: Job, case: Job) -> None:
    """Run each row of the inputs alone (batch 1) and save the outputs, float or integer as the model gives them."""
    baseline = start_peak()
    model = load_case(job, case)
    files = [case["inputs"], *case.get("more_inputs", [])]
    inputs = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
    given = input_places(model, case.get("input_names"), len(inputs))
    inputs = [inputs[given.index(place)] for place in range(len(inputs))]  # as the file has them
    check_fit(inputs, model.specs)
    wanted = output_places(model, case.get("output_names"))
    writers: list[RowWriter] = []
    try:
        for file in output_files(case["outputs"], len(wanted)):
            writers.append(RowWriter(file, len(inputs[0])))
        peak = infer_rows(job, case, model, inputs, list(zip(wanted, writers, strict=True)), baseline)
        for writer in writers:
            writer.finish()
    except BaseException:
        for writer in writers:
            writer.discard()
        raise
    more = {"more_files": [writer.place for writer in writers[1:]]} if len(writers) > 1 else {}
    emit("outputs", case=case["id"], file=case["outputs"], **more, count=len(inputs[0]), peak_bytes=peak)


def infer_rows(
    job: Job,
    case: Job,
    model: Loaded,
    inputs: Sequence[Array],
    outputs: Sequence[tuple[int, RowWriter]],
    baseline: int | None,
) -> int | None:
    """Run row by row and write each output; returns the peak memory in bytes."""
    peak, told, count = None, time.monotonic(), len(inputs[0])
    for index in range(count):
        model.set_inputs([np.array(values[index : index + 1]) for values in inputs])
        run_once(model)
        if index <= job["runs"]:  # the same runs as a job that measures memory
            peak = peak_since(baseline)
        for place, writer in outputs:
            writer.write(model.output(place))
        if time.monotonic() - told > 0.25 or index + 1 == count:
            told = time.monotonic()
            emit("progress", case=case["id"], done=index + 1)
    return peak


def status_bytes(field: str) -> int | None:
    try:
        with Path("/proc/self/status").open(encoding="utf-8") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def start_peak() -> int | None:
    """Give free memory back, restart the kernel's high-water mark; returns what is resident now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return None
    return status_bytes("VmRSS")


def peak_since(baseline: int | None) -> int | None:
    peak = status_bytes("VmHWM")
    return None if baseline is None or peak is None else max(0, peak - baseline)


def memory_case(job: Job, case: Job) -> None:
    """Peak resident memory that loading and running the file adds to a process that has the runtime loaded."""
    baseline = start_peak()
    model = prepared(job, case)
    for _ in range(job["runs"]):
        run_once(model)
    emit("memory", case=case["id"], peak_bytes=peak_since(baseline))


def profile_case(job: Job, case: Job) -> None:
    """Time of each kernel in each run; only LiteRT tells."""
    if job["runtime"] != "litert":
        raise CaseError("run", f"{job['runtime']} has no profiler that this runner can ask")
    try:
        from litert_profile import profiled  # type: ignore[import-not-found]

        found = profiled(case["model"], job["threads"], job["runs"], job["warm_up_runs"])
    except (RuntimeError, OSError, AttributeError, ImportError) as error:
        raise CaseError("run", f"{type(error).__name__}: {error}") from error
    emit("profile", case=case["id"], **found)


def one_by_one(job: Job) -> None:
    work = {"infer": infer_case, "memory": memory_case, "profile": profile_case}[job["mode"]]
    for case in job["cases"]:
        emit("begin", case=case["id"], round=0)
        try:
            work(job, case)
        except CaseError as error:
            emit("error", case=case["id"], kind=error.kind, message=str(error))


def main(arguments: list[str]) -> int:
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    if job.get("version") != VERSION:
        print(f"this runner reads jobs of version {VERSION}, not {job.get('version')!r}", file=sys.stderr)
        return 2
    own_stdout()
    if "cores" in job:  # before the runtime makes its threads: they inherit it
        try:
            os.sched_setaffinity(0, job["cores"])
        except (OSError, AttributeError) as error:
            print(f"cannot run on the cores {job['cores']}: {error}", file=sys.stderr)
            return 4
    try:
        runtime, version = installed(job["runtime"])
        library = native_library(runtime.module, runtime.libraries)
    except ImportError as error:
        print(f"the runtime {job['runtime']} is not installed here: {error}", file=sys.stderr)
        return 3
    emit(
        "start",
        runtime=job["runtime"],
        version=version,
        library=library.name,
        sha256=file_sha256(library),
        threads=job["threads"],
        cores=sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        python=platform.python_version(),
        **({"compute_units": job.get("compute_units", "ALL")} if job["runtime"] == "coreml" else {}),
    )
    emit("conditions", when="before", **read_conditions())
    (time_cases if job["mode"] == "time" else one_by_one)(job)
    emit("conditions", when="after", **read_conditions())
    emit("end")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
