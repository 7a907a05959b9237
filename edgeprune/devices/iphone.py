"""An iPhone or iPad: edgeprune's app runs the jobs there (apps/runner/apple), and files lie in its container.

Never run on Apple hardware: nothing in the project's tests can (see docs/devices.md).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from edgeprune.checksum import file_sha256
from edgeprune.devices.base import Completed, Device, DeviceFacts
from edgeprune.devices.child import last_lines, run_lines
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.failures import ended_by_us, understood
from edgeprune.devices.lease import Lease
from edgeprune.devices.phone_app import BUILT, BUNDLE, EXECUTABLE, PROGRAM, how_to_install, sources_version
from edgeprune.devices.phone_console import PhoneConsole
from edgeprune.devices.phone_link import PhoneLink, SeenPhone
from edgeprune.errors import DeviceError, DeviceLost

FOLDER = "Documents/edgeprune"  # in the app's container, which is the app's working directory
KEPT = ("models", "inputs", "jobs")  # its folders; what the app is asked about files lies in "files"
SAFE = re.compile(r"[A-Za-z0-9._/=+-]+")
SILENCE_S = 20.0  # after which the file is looked at
FILES_S = 600.0  # for checksums of all that is there
DIED = "the app ended without a word: a crash, or the system took it away (for its memory, or another app was opened)"
NOT_STARTED = (
    "unlock it and keep it so; where it asks, trust the developer in Settings, General, VPN & Device Management"
    " (with pymobiledevice3: `pymobiledevice3 mounter auto-mount` once after each start)"
)


class IPhone(Device):
    """A device that a tool of this computer reaches."""

    poll_s = 2.0

    def __init__(self, link: PhoneLink, seen: SeenPhone) -> None:
        self._link, self._seen = link, seen
        self._facts: DeviceFacts | None = None
        self._app = ""
        self._verified: dict[str, str] = {}  # path there -> sha256 seen in this process
        self._told: dict[str, str] = {}  # path there -> sha256 that the app has just told
        self._lease = Lease.of(self.id)

    @property
    def id(self) -> str:
        return self._link.id

    def facts(self) -> DeviceFacts:
        """What the device is, and whether the app is on it. Cores and memory are not told."""
        if self._facts is None:
            reason, fix = (self._seen.reason, "") if self._seen.reason else self._app_missing()
            self._facts = DeviceFacts(
                id=self.id,
                kind="apple",
                model=self._seen.model,
                cpu="unknown",
                abi="aarch64",
                os=self._seen.os,
                cores=1,
                memory_bytes=0,
                runtimes={} if reason else {"coreml": self._seen.version},
                runners={} if reason else {"coreml": "app"},
                ready=not reason,
                reason=reason,
                fix=fix,
            )
        return self._facts

    def conditions(self) -> Conditions:
        """What it is like now: battery, charging, thermal state, low power mode."""
        for event in self._ask_app():
            if event["event"] == "conditions":
                with understood(self.id, "what it says of its conditions"):
                    return Conditions.model_validate(event)
        raise DeviceError("the app told no conditions", where=self.id)

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy files there, by their paths there; the app tells the checksums of what it has."""
        paths = {self.path(remote): local for remote, local in files.items()}
        try:
            wanted = {path: file_sha256(local) for path, local in paths.items()}
        except OSError as error:
            raise DeviceError(f"cannot read {error.filename}: {error.strerror}", where=self.id) from error
        unknown = [path for path in wanted if self._verified.get(path) != wanted[path]]
        old = [path for path in unknown if not path.startswith(f"{FOLDER}/jobs/")]  # a job's folder is new
        if old:
            self._verified |= self._sums(old)
        missing = [path for path in unknown if self._verified.get(path) != wanted[path]]
        if not missing:
            return
        self._link.send(self._app_id(), {path: paths[path] for path in missing})
        self._verified |= self._sums(missing)
        if damaged := [path for path in missing if self._verified.get(path) != wanted[path]]:
            raise DeviceLost(f"pushing {damaged[0]}: it did not arrive as it was sent", where=self.id, hint="try again")

    def path(self, remote: str) -> str:
        """The path in the app's container, which is the app's working directory."""
        path = PurePosixPath(remote)
        with suppress(ValueError):
            path = path.relative_to(FOLDER)
        if path.is_absolute() or ".." in path.parts or not path.parts or not SAFE.fullmatch(str(path)):
            raise DeviceError(f"the path {remote!r} is none for the work folder", where=self.id)
        return f"{FOLDER}/{path}"

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there; `local` is replaced in one step. Its checksum is compared where the app has told it:
        asking would end the job that runs."""
        path = self.path(remote)
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
        try:
            self._link.fetch(self._app_id(), path, partial)
            if path in self._told and file_sha256(partial) != self._told[path]:
                raise DeviceLost(
                    f"pulling {remote}: what arrived is not what is there", where=self.id, hint="try again"
                )
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, remote: str, *, wait: bool = True) -> None:  # noqa: ARG002
        """Remove a file or folder there, or all whose names begin so; nothing there is no error. They are gone at once,
        whether it is waited for or not."""
        path, star = self.path(remote.removesuffix("*")), "*" if remote.endswith("*") else ""
        self._ask_app(remove=[path + star])
        within = path if star else f"{path}/"
        self._verified = {p: v for p, v in self._verified.items() if p != path and not p.startswith(within)}

    def clean(self) -> None:
        """Remove all that was sent."""
        self._ask_app(remove=[f"{FOLDER}/{name}" for name in KEPT])
        self._verified.clear()

    def free_bytes(self) -> int:
        """What is left on its disk."""
        for event in self._ask_app():
            with understood(self.id, "how much is free"):
                if event["event"] == "free" and event["bytes"] is not None:
                    return int(event["bytes"])
        raise DeviceError("the app does not tell what is free", where=self.id)

    def run(self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None]) -> Completed:
        """Run a job in the app (`argv`: the app, the job's path); one that runs already is ended first.

        The app is ended when the time is up, when `on_line` raises, or when the caller is interrupted.

        Raises:
            DeviceLost: the device is not there any more.
            DeviceError: the app does not start, the time was up, or it wrote without end.
        """
        job = argv[-1]
        console = PhoneConsole(lambda line: self._heard(line, on_line), lambda: self._lines_of(job))
        try:
            with ended_by_us(self.id, timeout_s):
                run_lines(
                    self._link.console(self._app_id(), argv[1:]),
                    on_line=console.take,
                    timeout_s=timeout_s,
                    silence_s=SILENCE_S,
                    on_silence=console.catch_up,
                )
            if console.ended is None:
                console.catch_up()
        except BaseException as error:
            with suppress(DeviceError):
                self._link.end(PROGRAM)
            if isinstance(error, OSError):
                raise DeviceError(f"starting the app: {error}", where=self.id, hint="see `edgeprune doctor`") from error
            raise
        if console.ended is not None:
            code, message = console.ended
            return Completed(code, message)
        if not console.begun:
            said = last_lines(console.said, 3) or "nothing was said"
            raise DeviceError(f"the app does not start: {said}", where=self.id, hint=NOT_STARTED)
        return Completed(1, f"{console.said}\n{DIED}")

    def lease(self, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the device; freed when the holder dies. What an earlier holder left running ends with the next job."""
        return self._lease.hold(wait_s=wait_s)

    def _look_again(self) -> None:
        self._verified.clear()
        self._facts = None
        self._see_it()

    def _heard(self, line: str, on_line: Callable[[str], None]) -> None:
        with understood(self.id, "what the app says"):
            event = json.loads(line)
            if event["event"] == "outputs" and event.get("sha256"):
                told = [event["sha256"], *event.get("more_sha256", [])]
                files = [event["file"], *event.get("more_files", [])]
                self._told |= dict(zip(map(str, files), map(str, told), strict=True))
        on_line(line)

    def _lines_of(self, job: str) -> str:
        """What the app has written into the file beside a job; nothing where there is none yet."""
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / "lines"
            try:
                self._link.fetch(self._app_id(), f"{job}.lines", local)
                return local.read_text(encoding="utf-8", errors="replace")
            except DeviceError:
                self._see_it()
                return ""

    def _see_it(self) -> None:
        """See that the device is there.

        Raises:
            DeviceLost: it is not.
        """
        found = {phone.udid: phone for phone in self._link.seen()}
        phone = found.get(self._link.udid)
        self._seen = phone or self._seen
        if phone is None or phone.reason:
            why = phone.reason if phone else "it is not connected any more"
            raise DeviceLost(why, where=self.id, hint="check the cable, and that it is unlocked")

    def _sums(self, paths: Sequence[str]) -> dict[str, str]:
        """The sha256 of those that are there."""
        events = self._ask_app(sums=paths)
        with understood(self.id, "the checksums that the app tells"):
            return {str(event["path"]): str(event["sha256"]) for event in events if event["event"] == "sum"}

    def _ask_app(self, *, sums: Sequence[str] = (), remove: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What the app answers to a job of the mode "files" (apps/runner/apple/Core/Files.swift)."""
        events: list[dict[str, Any]] = []
        remote = f"{FOLDER}/files/{uuid4().hex}.json"
        job = {"version": 1, "mode": "files", "sums": list(sums), "remove": list(remove)}
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / "files.json"
            local.write_text(json.dumps(job), encoding="utf-8")
            self._link.send(self._app_id(), {remote: local})
        done = self.run([EXECUTABLE, remote], timeout_s=FILES_S, on_line=lambda line: events.append(json.loads(line)))
        if done.exit_code:
            raise DeviceError(f"the app cannot look at its files: {last_lines(done.stderr_tail)}", where=self.id)
        return events

    def _app_id(self) -> str:
        """The app's identifier there.

        Raises:
            DeviceError: the device is not ready; says why, and what to do.
        """
        facts = self.facts()
        if not facts.ready:
            raise DeviceError(facts.reason, where=self.id, hint=facts.fix or None)
        return self._app

    def _app_missing(self) -> tuple[str, str]:
        """(why the app cannot be used, how to get it there); empty where it can."""
        try:
            found = {name: version for name, version in self._link.apps().items() if name.startswith(BUNDLE)}
        except DeviceError as error:
            return error.what, error.hint or ""
        for name, version in found.items():
            if version == sources_version():
                self._app = name
                return "", ""
        how = how_to_install(self._link.install_command(BUILT))
        if found:
            versions = ", ".join(sorted(found.values()))
            return f"its app is of other sources ({versions} instead of {sources_version()})", how
        return "the app that runs models is not on it", how
