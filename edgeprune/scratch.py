"""Folders for a while: gone when their user is done, and, where that was killed, when the next command starts."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "edgeprune-"
LOCK = ".edgeprune-lock"  # held for as long as the owner lives: the kernel frees it
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def scratch_folder(what: str) -> Iterator[Path]:
    """A folder in the system's temporary one (TMPDIR)."""
    folder, lock = make_scratch(what)
    try:
        yield folder
    finally:
        drop_scratch(folder, lock)


def make_scratch(what: str) -> tuple[Path, int]:
    """A folder and the descriptor that holds its lock; see `drop_scratch`."""
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{what}-"))
    lock = os.open(new / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = new.with_name(new.name[1:])  # under its name it is locked already: nobody takes it for a dead one's
    try:
        new.rename(folder)
    except OSError:
        os.close(lock)
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder, lock


def drop_scratch(folder: Path, lock: int) -> None:
    """Remove a folder of `make_scratch`."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def empty_scratch(folder: Path) -> None:
    """Remove what lies in a folder of `make_scratch`."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink(missing_ok=True)


def sweep_scratch() -> int:
    """Remove the folders whose owners were killed; returns how many. Others' folders and living ones stay."""
    removed = 0
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                removed += _sweep(Path(entry.path))
    return removed


def _sweep(folder: Path) -> bool:
    try:
        if folder.lstat().st_uid != os.getuid():
            return False
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # none of ours, or just gone
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its owner lives
        return False
    finally:
        os.close(lock)
    return True


def place_of(error: OSError, folder: Path) -> str:
    """Where a file could not be written: as the error says; on a full disk the fuller of TMPDIR and a folder."""
    if error.filename is not None:
        return str(error.filename)
    if error.errno not in FULL:
        return str(folder)
    with suppress(OSError):
        temporary = Path(tempfile.gettempdir())
        return str(min(temporary, folder, key=_free_bytes))
    return str(folder)


def _free_bytes(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
