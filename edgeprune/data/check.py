"""Every image decoded once before anything is trained on it, in parallel; what was found is kept for unchanged files.

CACHE/edgeprune/checked/<folder's hash>.jsonl   a line for each file: path, size, times, and what was found
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import PIL

from edgeprune.checksum import file_sha256
from edgeprune.data.decode import Note, decode
from edgeprune.errors import DataError, EdgePruneError
from edgeprune.progress import Progress
from edgeprune.runs import write_atomic

_RULES = 2  # raised when `decode` gives other pixels
_RECENT_NS = 2_000_000_000  # a file that changed so shortly before it was read may have changed again since
_WORKERS = max(2, os.cpu_count() or 1)
_AT_ONCE = 256
_NAMED = 5


@dataclass(frozen=True)
class Checked:
    """What a file holds: its hash, and of its image the hash of the pixels, their size and what is worth telling."""

    sha256: str
    pixels: str
    width: int
    height: int
    notes: tuple[Note, ...]


@dataclass
class Kept:
    """What is known of the files of a folder from earlier checks."""

    place: Path
    entries: dict[str, tuple[list[int], Checked]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Kept:
        """What was kept of a folder; nothing where it cannot be read, or was found by other rules."""
        from platformdirs import user_cache_path

        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:24]
        kept = cls(user_cache_path("edgeprune") / "checked" / f"{name}.jsonl")
        try:
            head, *lines = kept.place.read_text(encoding="utf-8").splitlines()
            if json.loads(head) == _head():
                kept.entries = dict(_read_line(line) for line in lines)
        except (OSError, ValueError, TypeError, KeyError):
            kept.entries = {}
        return kept

    def get(self, path: Path) -> Checked | None:
        """What was found in a file, unless it changed since.

        Raises:
            OSError: there is no such file.
        """
        state, entry = _state(path), self.entries.get(str(path))
        return entry[1] if entry is not None and entry[0] == state else None

    def add(self, path: Path, state: list[int], found: Checked) -> None:
        if max(state[1:]) < time.time_ns() - _RECENT_NS:
            self.entries[str(path)] = (state, found)

    def write(self) -> None:
        """Keep it for the next time; where that cannot be, the files are only checked again."""
        lines = [json.dumps(_head()), *(json.dumps(_line(path, *entry)) for path, entry in self.entries.items())]
        try:
            write_atomic(self.place, ("\n".join(lines) + "\n").encode())
        except EdgePruneError:
            return


def check_files(root: Path, paths: Sequence[Path], *, progress: Progress) -> list[Checked]:
    """Decode every file's image to its end, those that were checked before and are unchanged excepted.

    Raises:
        DataError: some cannot be read, or hold what is no image of 8 or 16 bits (the first few are named).
    """
    kept = Kept.of(root)
    found: dict[Path, Checked] = {}
    broken: dict[Path, str] = {}
    todo: list[Path] = []
    for path in paths:
        if (known := kept.get(path)) is not None:
            found[path] = known
        else:
            todo.append(path)
    what = f"checking {len(paths)} images"
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, len(todo), _AT_ONCE):
            progress.update(what, start, len(todo))
            some = todo[start : start + _AT_ONCE]
            for path, result in zip(some, pool.map(_check, some), strict=True):
                if isinstance(result, str):
                    broken[path] = result
                else:
                    kept.add(path, *result)
                    found[path] = result[1]
    if todo:
        progress.update(what, len(todo), len(todo))
        there = {str(path) for path in paths}
        kept.entries = {name: entry for name, entry in kept.entries.items() if name in there}
        kept.write()
    if broken:
        raise _refused(broken, len(paths))
    return [found[path] for path in paths]


def hashes_of(root: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """The hash of every file, from an earlier check where it did not change since; a missing one has none ("")."""
    kept = Kept.of(root)
    return {name: _hash(kept, path) for name, path in files.items()}


def _hash(kept: Kept, path: Path) -> str:
    try:
        known = kept.get(path)
        return known.sha256 if known is not None else _sha256(path, *_state(path))
    except OSError:
        return ""


@lru_cache(maxsize=1 << 16)
def _sha256(path: Path, _size: int, _modified_ns: int, _changed_ns: int) -> str:
    return file_sha256(path)


def _check(path: Path) -> tuple[list[int], Checked] | str:
    """What a file holds, with its state before it was read; or why it cannot be read."""
    try:
        state, data = _state(path), path.read_bytes()
        decoded = decode(data)
        width, height = decoded.image.size
        found = Checked(hashlib.sha256(data).hexdigest(), decoded.pixels_digest, width, height, decoded.notes)
    except DataError as error:
        return error.what
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    return state, found


def _refused(broken: Mapping[Path, str], of: int) -> DataError:
    first, *others = broken.items()
    what = first[1]
    if others:
        named = "; ".join(f"{_shown(path)}: {why}" for path, why in others[:_NAMED])
        rest = f"; and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        what = f"{what}. {len(broken)} of {of} files are like this: {named}{rest}"
    return DataError(what, where=_shown(first[0]), hint="remove it or copy it again; 8-bit PNG and JPEG are understood")


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _head() -> list[Any]:
    return ["checked", _RULES, PIL.__version__]


def _line(path: str, state: list[int], found: Checked) -> list[Any]:
    return [path, *state, found.sha256, found.pixels, found.width, found.height, list(found.notes)]


def _read_line(line: str) -> tuple[str, tuple[list[int], Checked]]:
    path, size, modified, changed, sha256, pixels, width, height, notes = json.loads(line)
    return path, ([size, modified, changed], Checked(sha256, pixels, width, height, tuple(notes)))
