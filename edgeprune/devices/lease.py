"""The lease: a lock file that the kernel frees when its holder dies; no soft lock, which would stay."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import BaseFileLock, FileLock, Timeout

from edgeprune.errors import DeviceError

POLL_S = 0.05


class Lease:
    """A device's lock. The thread that holds it may take it again; everybody else waits or is refused."""

    def __init__(self, path: Path, device_id: str) -> None:
        self._path, self._device_id = path, device_id
        self._thread_lock = threading.RLock()
        self._depth = 0

    @classmethod
    def of(cls, device_id: str) -> Lease:
        """The lease of a device behind a connection, in the user's cache."""
        locks = Path(platformdirs.user_cache_dir("edgeprune")) / "devices" / "leases"
        return cls(locks / hashlib.sha256(device_id.encode()).hexdigest()[:24], device_id)

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
            lock = self._lock(deadline)
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                lock.release()
        finally:
            self._thread_lock.release()

    def _lock(self, deadline: float) -> BaseFileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._path, poll_interval=POLL_S, fallback_to_soft=False, on_acquired=_sign)
        try:
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        except Timeout:
            holder = self._path.read_bytes()[:64].decode(errors="replace").strip()
            raise self._taken(f"process {holder}" if holder else "another process") from None
        return lock

    def _taken(self, holder: str) -> DeviceError:
        return DeviceError(
            f"the device is in use by {holder}",
            where=self._device_id,
            hint="wait until that job has ended (`wait_minutes` in a recipe's [device] does so): "
            "two jobs that measure at once would spoil each other's figures",
        )


def _sign(descriptor: int) -> None:
    """Write down who holds a lock."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
