"""Jobs: many models run on a device by a runner, one process at a time; a crash costs one model only, and a device
that is lost and comes back goes on where it was."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.devices.base import Completed, Device
from edgeprune.devices.cargo import Cargo
from edgeprune.devices.child import last_lines, want_of_memory
from edgeprune.devices.conditions import ComputeUnits, Conditions, RuntimeBuild, RuntimeName
from edgeprune.devices.events import KernelTimes, Visit, read_bytes, read_kernels, read_visit
from edgeprune.devices.failures import WHAT_TO_TRY, understood
from edgeprune.devices.runners import runner_for
from edgeprune.errors import DeviceError, DeviceLost, UsageError
from edgeprune.scratch import scratch_folder

Array = npt.NDArray[Any]
PROFILE_WARM_UP_RUNS = 20
LEASE_WAIT_S = 900.0  # a job in front of ours is waited for this long
RECONNECT_WAIT_S = 120.0  # a phone takes about a minute to start anew
MOST_LOSSES = 3  # of the connection in one job
MOST_WATCHED = 100_000  # conditions that a job is told of: once a second for a day
MOST_SAID = 2000  # letters of a failure
MOST_OUTPUTS = 1000  # of a file


@dataclass(frozen=True)
class Case:
    """A model file. For inference: `inputs`, each (N, ...) in the file's own dtype and layout, in the order of the file
    or of `input_names`, and the names of the wanted outputs in their order (None: all, in the order of the file)."""

    id: str
    model: Path
    inputs: tuple[Array, ...] = ()
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Timing:
    """How cases are visited and timed; the limits hold for each visit. See the runner's head."""

    schedule: Literal["interleaved", "mirrored", "shuffled", "sequential"]
    rounds: int
    keep_loaded: bool
    warm_up_runs: int
    warm_up_s: float
    min_runs: int
    min_s: float
    max_samples: int
    seed: int = 0  # of the order of a shuffled schedule
    steady: float = 0.0  # warm up until the latency changes by no more than this share; 0: for a fixed time
    warm_up_most_s: float = 0.0


@dataclass(frozen=True)
class Job:
    """What to run. `timing` makes it a latency job, `profile_runs` a profile; else cases with inputs are inferred,
    others' memory measured."""

    runtime: RuntimeName
    cases: tuple[Case, ...]
    threads: int = 1
    timing: Timing | None = None
    cores: tuple[int, ...] = ()  # to run on; the scheduler's choice without
    memory_runs: int = 5
    profile_runs: int = 0  # more than 0: the time of each kernel is asked for
    compute_units: ComputeUnits = "ALL"  # of Core ML

    @property
    def mode(self) -> Literal["time", "infer", "memory", "profile"]:
        if self.timing is not None:
            return "time"
        if self.profile_runs:
            return "profile"
        return "infer" if any(case.inputs for case in self.cases) else "memory"


@dataclass
class CaseResult:
    """What came of a case; `failure` says why it has no result."""

    id: str
    visits: list[Visit] = field(default_factory=list)
    outputs: tuple[Array, ...] | None = None
    peak_memory_bytes: int | None = None
    failure: str | None = None
    finished: bool = False
    kernels: KernelTimes | None = None


@dataclass
class JobResult:
    """What came of a job. `before` and `after` are of the first and the last runner process; `during` was seen between
    visits."""

    build: RuntimeBuild
    before: Conditions
    after: Conditions
    cases: dict[str, CaseResult]
    processes: int = 1
    during: tuple[Conditions, ...] = ()

    @property
    def watched(self) -> tuple[Conditions, ...]:
        """The conditions in the order in which they were seen."""
        return self.before, *self.during, self.after


class JobBroken(DeviceError):
    """A job that could not be ended (the device was lost and did not come back, say); `result` holds what was
    finished before."""

    def __init__(self, error: DeviceError, result: JobResult) -> None:
        super().__init__(error.what, where=error.where, hint=error.hint)
        self.result = result


def runtime_build(device: Device, runtime: RuntimeName) -> RuntimeBuild:
    """The runtime as it is on the device.

    Raises:
        ToolkitMissing: the runtime is not on the device.
        DeviceError: the device is in use or was lost, or the runtime does not start.
    """
    return run_job(device, Job(runtime, ())).build


def run_job(
    device: Device,
    job: Job,
    *,
    timeout_s: float = 3600,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> JobResult:
    """Run a job under the device's lease; `on_event` sees the runner's lines as they come.

    A model that crashes the runtime is recorded as that case's failure, and the rest goes on in a new process.

    Raises:
        UsageError: a file is missing.
        ToolkitMissing: the runtime is not on the device.
        DeviceError: the device is in use, was lost, its runtime does not start, or the time was up.
    """
    _check(job)
    stem = f"jobs/{uuid.uuid4().hex[:16]}"  # with a digest after it, a name that a tar file can hold
    with device.lease(wait_s=LEASE_WAIT_S):
        try:
            return _Progress(device, job, stem, timeout_s, on_event).run()
        finally:
            with suppress(DeviceError):  # a device that was lost keeps it for some days (see RemoteDevice)
                device.remove(f"{stem}*", wait=False)


def _check(job: Job) -> None:
    for case in job.cases:
        if not case.model.exists():
            raise UsageError("there is no such file", where=str(case.model), hint="export the model first")
    if len({case.id for case in job.cases}) != len(job.cases):
        raise ValueError("each case of a job needs an id of its own")


class _Progress:
    """A job under way: what is done, and what the running process is at."""

    def __init__(
        self,
        device: Device,
        job: Job,
        stem: str,
        timeout_s: float,
        on_event: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._device, self._job, self._stem, self._timeout_s = device, job, stem, timeout_s
        self._on_event = on_event
        self._results = {case.id: CaseResult(case.id) for case in job.cases}
        self._current: str | None = None
        self._last: str | None = None  # that this process has finished, where each has a runtime to itself
        self._ended = False
        self._build: RuntimeBuild | None = None
        self._before: Conditions | None = None
        self._after: Conditions | None = None
        self._during: list[Conditions] = []
        self._digests: dict[Path, str] = {}
        self._unreadable: str | None = None

    def run(self) -> JobResult:
        processes = losses = 0
        while self._unfinished() or not processes:
            processes += 1
            before = self._done()
            try:
                self._run_process(processes)
                if self._unfinished() and self._done() == before:
                    raise DeviceError(
                        "the runner ended without doing what it was asked", where=self._device.id, hint=WHAT_TO_TRY
                    )
            except DeviceLost as error:
                losses += 1
                if self._job.cases and not self._unfinished():
                    break  # all is here; whether it comes back does not matter
                if losses > MOST_LOSSES:
                    raise self._broken(error) from error
                try:
                    self._device.reconnect(wait_s=RECONNECT_WAIT_S)
                except DeviceError as gone:
                    raise self._broken(gone) from error
            except DeviceError as error:
                raise self._broken(error) from error
        if self._build is None or self._before is None:
            raise DeviceError("the runner did not say what it runs on", where=self._device.id)
        return self._result(self._build, self._before, processes)

    def _run_process(self, number: int) -> None:
        """Push what is missing there, and run what is not finished until the runner ends."""
        runner = runner_for(self._device, self._job.runtime)
        with scratch_folder("job") as scratch:
            cargo = Cargo(self._stem, scratch, self._digests)
            job = {**runner.job, **self._head(), "cases": self._cases(cargo)}
            remote, local = f"{self._stem}-job-{number}.json", scratch / "job.json"
            local.write_text(json.dumps(job), encoding="utf-8")
            self._device.push_all({**runner.files, **cargo.files, remote: local})
        self._current, self._last, self._ended, self._unreadable = None, None, False, None
        argv = [*runner.argv, self._device.path(remote)]
        done = self._device.run(argv, timeout_s=self._timeout_s, on_line=self._take)
        if not self._ended:
            self._blame(done)

    def _result(self, build: RuntimeBuild, before: Conditions, processes: int) -> JobResult:
        return JobResult(build, before, self._after or before, self._results, processes, tuple(self._during))

    def _broken(self, error: DeviceError) -> DeviceError:
        """The error, with what was finished before."""
        if self._build is None or self._before is None:
            return error
        return JobBroken(error, self._result(self._build, self._before, 0))

    def _head(self) -> dict[str, Any]:
        """What the runner reads of a job besides its cases."""
        job = self._job
        head: dict[str, Any] = {"version": 1, "runtime": job.runtime, "threads": job.threads, "mode": job.mode}
        head |= {"runs": job.profile_runs or job.memory_runs, "warm_up_runs": PROFILE_WARM_UP_RUNS}
        if job.cores:
            head["cores"] = list(job.cores)
        if job.runtime == "coreml":
            head["compute_units"] = job.compute_units
        return {**head, **(vars(job.timing) if job.timing else {})}

    def _done(self) -> int:
        """A number that grows with all that was done."""
        return sum(case.finished + len(case.visits) for case in self._results.values())

    def _unfinished(self) -> list[Case]:
        return [case for case in self._job.cases if not self._results[case.id].finished]

    def _cases(self, cargo: Cargo) -> list[dict[str, Any]]:
        """The cases that are not finished as the runner reads them; their files go into the cargo. Timed ones go on at
        the round after their last."""
        numbers = {case.id: number for number, case in enumerate(self._job.cases)}
        found = []
        for case in self._unfinished():
            model, first = cargo.model(case.model), len(self._results[case.id].visits)
            entry: dict[str, Any] = {"id": case.id, "model": self._device.path(model), "first_round": first}
            if case.inputs:
                places = [self._device.path(cargo.array(array)) for array in case.inputs]
                outputs = self._device.path(f"{self._stem}-outputs-{numbers[case.id]}.npy")
                entry |= {"inputs": places[0], "outputs": outputs}
                more = {
                    "more_inputs": places[1:] or None,
                    "input_names": case.input_names,
                    "output_names": case.output_names,
                }
                entry |= {key: list(those) for key, those in more.items() if those is not None}
            found.append(entry)
        return found

    def _take(self, line: str) -> None:
        """One line of the runner."""
        if self._unreadable is not None:
            raise DeviceError(f"the runner said something unreadable: {self._unreadable!r}", where=self._device.id)
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._unreadable = line[:200]  # the last of a runner that was killed in the middle of it, unless more comes
            return
        with understood(self._device.id, "what the runner says"):
            self._take_event(str(kind), event)
        if self._on_event is not None:
            self._on_event(event)

    def _take_event(self, kind: str, event: dict[str, Any]) -> None:
        case = self._results.get(event.get("case", ""))
        if kind == "start":
            build = {key: event[key] for key in ("version", "sha256", "compute_units") if key in event}
            if event["runtime"] != self._job.runtime:
                raise ValueError(f"it runs {event['runtime']!r} instead of {self._job.runtime}")
            self._build = RuntimeBuild(name=event["runtime"], **build)
            if self._job.cores and set(event["cores"]) != set(self._job.cores):
                raise DeviceError(
                    f"it runs on the cores {event['cores']} instead of {list(self._job.cores)}",
                    where=self._device.id,
                    hint="some are switched off: wait for them, or change `cpu_affinity` in a profile of yours",
                )
        elif kind == "conditions":
            now = Conditions.model_validate({k: v for k, v in event.items() if k not in ("event", "when")})
            if event["when"] == "before":
                self._before = self._before or now
            elif event["when"] == "during":
                self._during.append(now)
                if len(self._during) > MOST_WATCHED:
                    raise ValueError("it tells its conditions without end")
            else:
                self._after = now
        elif kind == "end":
            self._ended = True
        elif case is not None:
            self._take_case(case, kind, event)

    def _take_case(self, case: CaseResult, kind: str, event: dict[str, Any]) -> None:
        if kind == "begin":
            self._current = case.id
            return
        if kind == "samples":
            if self._job.timing is None or case.finished:
                raise ValueError("times that nobody asked for")
            case.visits.append(read_visit(event))
            case.finished = len(case.visits) == self._job.timing.rounds
        elif kind == "outputs":
            case.outputs = self._pull_arrays([str(file) for file in (event["file"], *event.get("more_files", []))])
            case.peak_memory_bytes, case.finished = read_bytes(event["peak_bytes"]), True
        elif kind == "memory":
            case.peak_memory_bytes, case.finished = read_bytes(event["peak_bytes"]), True
        elif kind == "profile":
            case.kernels = read_kernels(event)
            case.finished = True
        elif kind == "error":
            case.failure, case.finished = str(event["message"])[:MOST_SAID], True
        if case.finished or kind == "samples":
            self._current = None
            self._last = case.id if self._job.timing is None else None

    def _pull_arrays(self, files: Sequence[str]) -> tuple[Array, ...]:
        if len(files) > MOST_OUTPUTS:
            raise ValueError(f"{len(files)} files of outputs")
        with scratch_folder("outputs") as scratch:
            found: list[Array] = []
            for number, remote in enumerate(files):
                path = scratch / f"{number}.npy"
                self._device.pull(remote, path)
                array: Array = np.load(path, allow_pickle=False)
                path.unlink()
                if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
                    raise ValueError(f"outputs of {type(array).__name__} {getattr(array, 'dtype', '')}")
                found.append(array)
            return tuple(found)

    def _blame(self, done: Completed) -> None:
        """The process ended early: the case it was at is at fault; without one, the runtime itself is.

        A damaged file may spoil memory that the runtime comes to when it has done with the file. What it gave is not
        believed then.
        """
        why = want_of_memory(done.stderr_tail) or _cause(done)
        if self._current is None and _was_killed(done) and self._last is not None:
            self._current = self._last
            self._results[self._last].outputs = None
        if self._current is None:
            raise DeviceError(
                f"the runner for {self._job.runtime} ended early: {why}",
                where=self._device.id,
                hint=last_lines(done.stderr_tail) or "it left no message",
            )
        case = self._results[self._current]
        last = last_lines(done.stderr_tail)
        case.failure = f"it crashed the runtime: {why}" + (f" ({last})" if last else "")
        case.finished = True


def _was_killed(done: Completed) -> bool:
    """Whether a signal ended it; a shell between us and it tells one as a number above 128."""
    return done.exit_code < 0 or done.exit_code > 128


def _cause(done: Completed) -> str:
    if done.exit_code >= 0:
        return f"exit code {done.exit_code}"
    try:
        name = signal.Signals(-done.exit_code).name
    except ValueError:
        name = f"signal {-done.exit_code}"
    return f"{name} (killed, perhaps for want of memory)" if name == "SIGKILL" else name
