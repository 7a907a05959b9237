"""The lease: a lock file that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.errors import DeviceError

POLL_S = 0.05


class Lease:
    """A device's lock. The thread that holds it may take it again; everybody else waits or is refused."""

    def __init__(self, path: Path, device_id: str) -> None:
        self._path, self._device_id = path, device_id
        self._thread_lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def hold(self, *, wait_s: float) -> Iterator[None]:
        """Hold the lock, waiting for it at most so many seconds.

        Raises:
            DeviceError: another job holds it; names that job's process.
        """
        deadline = time.monotonic() + wait_s
        if not self._thread_lock.acquire(timeout=max(0.0, wait_s)):
            raise self._taken(f"another thread of this process ({os.getpid()})")
        try:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            descriptor = self._lock(deadline)
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                os.close(descriptor)
        finally:
            self._thread_lock.release()

    def _lock(self, deadline: float) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(POLL_S)
                    continue
                holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise self._taken(f"process {holder}" if holder else "another process") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor

    def _taken(self, holder: str) -> DeviceError:
        return DeviceError(
            f"the device is in use by {holder}",
            where=self._device_id,
            hint="wait until that job has ended (`wait_minutes` in a recipe's [device] does so): "
            "two jobs that measure at once would spoil each other's figures",
        )
