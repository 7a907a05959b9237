"""The checksum of a file's content."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from pathlib import Path

CLOCK_S = 2.0  # a file that is younger may change once more without its times showing it


def file_sha256(path: Path) -> str:
    """The checksum of a file's content, computed once a process while the file is not touched."""
    stat = path.stat()
    if time.time() - stat.st_mtime < CLOCK_S:
        return _sha256(path)
    return _known_sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


@lru_cache(maxsize=4096)
def _known_sha256(path: Path, *_: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
