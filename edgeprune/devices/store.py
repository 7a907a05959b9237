"""The store: files in a work folder, kept once for each content."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from edgeprune.checksum import file_sha256

FORGET_AFTER_S = 24 * 3600.0


class Store:
    """Content under `objects/`, names anywhere else in the folder as hard links to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)

    def put(self, source: Path, name: str) -> Path:
        """Put a file under a name: atomic, copied only when no file of that content is here."""
        digest = file_sha256(source)
        content = self._objects / digest
        if not (content.exists() and file_sha256(content) == digest):
            self._copy(source, content)
        os.utime(content)
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.samefile(content):
            return target
        link = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
        os.link(content, link)
        link.replace(target)
        return target

    def _copy(self, source: Path, content: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._objects, prefix=".copy-")
        partial = Path(name)
        try:
            with source.open("rb") as read, os.fdopen(descriptor, "wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
            partial.chmod(0o444)
            partial.replace(content)
        finally:
            partial.unlink(missing_ok=True)

    def forget_old(self, *, older_than_s: float = FORGET_AFTER_S) -> None:
        """Remove files not used for a day, and folders left empty."""
        limit = time.time() - older_than_s
        for path in sorted(self.folder.rglob("*"), reverse=True):
            try:
                if path == self._objects or path.name == "lease" or path.stat().st_mtime >= limit:
                    continue
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:  # in use, or another process was faster
                continue
