"""The local device: this machine, through the same interface as any other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath

import platformdirs

from edgeprune.devices.base import Completed, DeviceFacts
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.facts import local_facts
from edgeprune.devices.lease import Lease
from edgeprune.devices.store import Store
from edgeprune.errors import DeviceError

STDERR_TAIL = 4000


class LocalDevice:
    """This machine. Its work folder is in the user's cache unless one is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder or Path(platformdirs.user_cache_dir("edgeprune")) / "devices" / "local").resolve()
        try:
            self._store = Store(self._folder)
        except OSError as error:
            raise self._lost("making the work folder", error) from error
        self._store.forget_old()
        self._lease = Lease(self._folder / "lease", self.id)
        self._facts: DeviceFacts | None = None

    @property
    def id(self) -> str:
        return "local"

    def facts(self) -> DeviceFacts:
        if self._facts is None:
            self._facts = local_facts()
        return self._facts

    def conditions(self) -> Conditions:
        """What this machine is like now."""
        from apps.runner.python_runner import read_conditions

        return Conditions.model_validate(read_conditions())

    def push(self, local: Path, remote: str) -> str:
        """Copy a file there (atomic, skipped when the same content is there); returns its path on the device."""
        name = self._relative(remote)
        try:
            return str(self._store.put(local, name))
        except OSError as error:
            raise self._lost(f"pushing {local}", error) from error

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there; `local` is replaced in one step."""
        source = self._folder / self._relative(remote)
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
            shutil.copyfile(source, partial)
            partial.replace(local)
        except OSError as error:
            raise self._lost(f"pulling {remote}", error) from error

    def remove(self, remote: str) -> None:
        """Remove a file or folder of the work folder; nothing there is no error."""
        path = self._folder / self._relative(remote)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def run_python(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> Completed:
        """Run a pushed Python script; each line of its stdout goes to `on_line` as it comes.

        The script and all its children are ended when the time is up, when `on_line` raises, or when the caller
        is interrupted.

        Raises:
            DeviceError: the time was up, or Python could not be started.
        """
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-u", script, *arguments],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise self._lost(f"starting {script}", error) from error
            late = threading.Event()

            def end() -> None:
                late.set()
                _end_group(process)

            clock = threading.Timer(timeout_s, end)
            clock.start()
            try:
                assert process.stdout is not None
                with process.stdout:
                    for line in process.stdout:
                        on_line(line.rstrip("\n"))
                exit_code = process.wait()
            finally:
                clock.cancel()
                _end_group(process)
            if late.is_set():
                raise DeviceError(
                    f"{Path(script).name} ran longer than {timeout_s:g} s and was ended",
                    where=self.id,
                    hint="give it more time, or fewer inputs or files at once",
                )
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_TAIL))
            return Completed(exit_code, errors.read().decode(errors="replace"))

    def lease(self, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the machine; freed when the holder dies.

        Raises:
            DeviceError: another job holds it still after `wait_s` seconds.
        """
        return self._lease.hold(wait_s=wait_s)

    def _relative(self, remote: str) -> str:
        path = PurePosixPath(remote)
        if path.is_absolute():
            with suppress(ValueError):
                path = PurePosixPath(Path(remote).relative_to(self._folder).as_posix())
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise DeviceError(f"the path {remote!r} is not in the work folder", where=self.id)
        return str(path)

    def _lost(self, step: str, error: OSError) -> DeviceError:
        return DeviceError(
            f"{step} failed: {error}", where=self.id, hint=f"check the disk and the rights of {self._folder}"
        )


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all it started (it leads its own group)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
