"""The local device: this machine, through the same interface as any other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath

import platformdirs

from edgeprune.devices.base import Completed, Device, DeviceFacts
from edgeprune.devices.child import run_lines
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.facts import local_facts
from edgeprune.devices.failures import ended_by_us
from edgeprune.devices.lease import Lease
from edgeprune.devices.store import Store
from edgeprune.errors import DeviceError


class LocalDevice(Device):
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
        from apps.runner.runner_conditions import read_conditions

        return Conditions.model_validate(read_conditions())

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy files there (atomic, skipped when the same content is there)."""
        for remote, local in files.items():
            name = self._relative(remote)
            try:
                self._store.put(local, name)
            except OSError as error:
                raise self._lost(f"pushing {local}", error) from error

    def path(self, remote: str) -> str:
        """The absolute path of a file in the work folder."""
        return str(self._folder / self._relative(remote))

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

    def remove(self, remote: str, *, wait: bool = True) -> None:  # noqa: ARG002
        """Remove a file or folder of the work folder, or all whose names begin so; nothing there is no error. They are
        gone at once, whether it is waited for or not."""
        path = self._folder / self._relative(remote)
        for found in path.parent.glob(path.name):
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove everything in the work folder but the lease, which is held."""
        self._store.forget_old(older_than_s=0)

    def free_bytes(self) -> int:
        """What is left on the disk of the work folder."""
        return shutil.disk_usage(self._folder).free

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> Completed:
        """Run a program in the work folder; each line of its stdout goes to `on_line` as it comes.

        It and all its children are ended when the time is up, when `on_line` raises, or when the caller is
        interrupted.

        Raises:
            DeviceError: the time was up, it wrote without end, or it could not be started.
        """
        name = Path(argv[0]).name
        try:
            with ended_by_us(self.id, timeout_s):
                return run_lines(argv, on_line=on_line, timeout_s=timeout_s, cwd=self._folder)
        except OSError as error:
            raise self._lost(f"starting {name}", error) from error

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
