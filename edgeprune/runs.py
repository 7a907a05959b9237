"""The run folder: one recipe's stages, each with a record of what it made. Nothing half-written is left behind.

RUN/run.json                  version, recipe, versions of what made it
RUN/<stage>/...               what the stage made
RUN/<stage>/stage.json        written last: the stage is finished exactly when this file is there and
                              every file it lists has the length and hash that it says
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError, field_validator

from edgeprune.checksum import file_sha256
from edgeprune.errors import EdgePruneError, RunError
from edgeprune.recipe import MOVED, Recipe, TaskSection, TuneSection
from edgeprune.records import Record, first_fault

MOST_BYTES = 64 << 20  # of a record: the plan of the largest model has a few
Kind = TypeVar("Kind")


class FileRecord(Record):
    """A file of a finished stage, relative to the stage's folder."""

    path: str
    size: int
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise ValueError("a stage's files lie in its folder")
        return path


class StageRecord(Record):
    """What a finished stage made, and from what."""

    stage: str
    settings: str  # hash of the recipe sections this stage and those before it read
    seconds: float
    files: tuple[FileRecord, ...]
    result: dict[str, Any]


class RunInfo(Record):
    """The head of a run folder."""

    version: Literal[1] = 1
    recipe: Recipe
    versions: dict[str, str]
    command: str = ""


class Run:
    """An open run folder. Use `create_run` or `open_run`."""

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self.folder, self.info = folder, info

    @property
    def recipe(self) -> Recipe:
        return self.info.recipe

    def stage_folder(self, stage: str) -> Path:
        return self.folder / stage

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage, or None when it is not finished.

        Raises:
            RunError: a file that the record lists is missing or was changed.
        """
        path = self.stage_folder(stage) / "stage.json"
        if not path.exists():
            return None
        try:
            record = StageRecord.model_validate_json(read_bounded(path))
        except (ValidationError, OSError) as error:
            raise RunError(
                "the stage record cannot be read", where=str(path), hint=f"delete {path.parent} and resume"
            ) from error
        if record.stage != stage:
            raise RunError(
                f"this is the record of a stage {record.stage!r}, and lies where that of `{stage}` belongs",
                where=str(path),
                hint=f"delete {path.parent} and resume",
            )
        for file in record.files:
            there = path.parent / file.path
            if not _is_as_recorded(there, file):
                raise RunError(
                    "the run folder is corrupt: this file is missing or was changed",
                    where=str(there),
                    hint=f"delete {path.parent} and run again with --resume; earlier stages are kept",
                )
        return record

    def finish(self, stage: str, *, settings: str, seconds: float, result: dict[str, Any]) -> StageRecord:
        """Write the record that makes a stage finished; every file in its folder belongs to it."""
        folder = self.stage_folder(stage)
        files = tuple(
            FileRecord(path=str(p.relative_to(folder)), size=p.stat().st_size, sha256=file_sha256(p))
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p != folder / "stage.json"
        )
        record = StageRecord(stage=stage, settings=settings, seconds=seconds, files=files, result=result)
        write_atomic(folder / "stage.json", record.model_dump_json(indent=1).encode())
        return record

    def clear(self, stage: str, *later: str) -> Path:
        """Forget a stage and the later ones that are made from it; returns the stage's empty folder."""
        folders = [self.stage_folder(name) for name in (stage, *later)]
        for folder in folders:  # first, so that none is finished whose input is gone
            (folder / "stage.json").unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        folder = folders[0]
        folder.mkdir(parents=True)
        return folder


def _is_as_recorded(there: Path, file: FileRecord) -> bool:
    try:
        return there.is_file() and there.stat().st_size == file.size and file_sha256(there) == file.sha256
    except OSError:  # a name that no file can have, say
        return False


def create_run(folder: Path, recipe: Recipe, versions: dict[str, str], command: str = "") -> Run:
    """Make a run folder; it must be absent or empty.

    Raises:
        RunError: the folder already holds something.
    """
    if (folder / "run.json").exists():
        raise RunError(
            "a run is already here",
            where=str(folder),
            hint="add --resume to go on with it, or choose another --out",
        )
    if folder.exists() and (not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())):
        raise RunError("the folder is not empty and holds no run", where=str(folder), hint="choose another --out")
    info = RunInfo(recipe=recipe, versions=versions, command=command)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "run.json", info.model_dump_json(indent=1).encode())
    return Run(folder, info)


def open_run(folder: Path) -> Run:
    """Open a run folder.

    Raises:
        RunError: there is no run, or its head cannot be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(
            "no run here (run.json is missing)",
            where=str(folder),
            hint="name the folder that `edgeprune run --out` wrote",
        )
    try:
        return Run(folder, RunInfo.model_validate_json(read_bounded(path)))
    except ValidationError as error:
        raise RunError(
            "run.json cannot be read",
            where=str(path),
            hint="it is corrupt, or of another version of EdgePrune: start a new run",
        ) from error


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the lock goes when the process does.

    Raises:
        RunError: another process works on this folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / ".lock", timeout=0, fallback_to_soft=False)  # a soft one would outlive its holder
    try:
        held.acquire()
    except Timeout as error:
        raise RunError(
            "another run is working on this folder",
            where=str(folder),
            hint="wait for it, or choose another --out",
        ) from error
    try:
        yield
    finally:
        held.release()


def read_bounded(path: Path) -> bytes:
    """The bytes of a record. One that is longer than any that EdgePrune writes is not taken into memory.

    Raises:
        OSError: it cannot be read.
        RunError: it is longer.
    """
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise RunError(
            f"longer than {MOST_BYTES >> 20} MB, which no record is",
            where=str(path),
            hint="it was made or changed by hand: take the one that EdgePrune wrote",
        )
    return content


def read_as(path: Path, kind: type[Kind] | TypeAdapter[Kind]) -> Kind:
    """A record in JSON, of the shape that was written.

    Raises:
        RunError: it cannot be read, is too long, or of another shape.
    """
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        return adapter.validate_json(read_bounded(path))
    except (ValidationError, OSError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else error.strerror or str(error)
        raise RunError(
            f"the record cannot be read: {why}",
            where=str(path),
            hint=f"it is damaged, or of another version of EdgePrune: delete {path.parent} and resume",
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        EdgePruneError: the disk is full or the folder cannot be written (no part file is left).
    """
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as handle:
            name = handle.name
            Path(name).chmod(0o666 & ~_umask())  # a temporary file is private; what we leave is like any other file
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise EdgePruneError(
            f"cannot write the file: {error.strerror or error}",
            where=str(path),
            hint="free some space or choose another --out, then go on with --resume; finished stages are kept",
        ) from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# Keys that came after runs had been made: with this value a recipe says what it said before.
_ADDED: dict[tuple[str, str], object] = {
    ("sparse", "layers"): "1x1",
    ("model", "weights"): None,
    ("model", "labels"): None,
    ("model", "metric"): None,
    ("model", "inputs"): None,
    ("quantize", "formats"): None,
    ("prune", "enabled"): True,
    ("verify", "pictures"): 4,
    ("prune", "target_file"): None,
}
_TUNE_BEFORE = {
    *("epochs", "batch_size", "lr", "weight_decay", "momentum", "warmup", "distillation", "temperature", "precision"),
    *("augment", "cuda_graphs"),
}
_ADDED |= {
    ("tune", key): default for key, default in TuneSection().model_dump(mode="json").items() if key not in _TUNE_BEFORE
}


def settings_hash(recipe: Recipe, sections: tuple[str, ...]) -> str:
    """Hash of the recipe sections a stage depends on; how long a device is waited for changes nothing.

    A name such as `prune.target_file` means one key of a section.
    """
    tree = recipe.model_dump(mode="json", include={*sections, "seed", "version"})
    for section, _, key in (name.partition(".") for name in sections if "." in name):
        if (value := getattr(getattr(recipe, section), key)) != _ADDED.get((section, key), ...):
            tree[f"{section}.{key}"] = value
    tree.get("device", {}).pop("wait_minutes", None)
    if "prune" in tree:
        tree["prune"] = _as_before_tables(tree["prune"])
    if tree.get("model", {}).get("inputs"):
        tree["model"]["inputs"] = list(tree["model"]["inputs"].items())  # their order counts
    if tree.get("task") == TaskSection().model_dump(mode="json"):
        del tree["task"]  # there was no such section, and every model was a classifier
    if tree.get("tune", {}).get("augment", "") is None:
        tree["tune"]["augment"] = "crop-flip"  # which it was unless said, of every task then
    for (section, key), before in _ADDED.items():
        if key in tree.get(section, {}) and tree[section][key] == before:
            del tree[section][key]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _as_before_tables(prune: dict[str, Any]) -> dict[str, Any]:
    """[prune] as it was before methods had tables and allocators of their own: runs of that time go on."""
    methods = {name: dict(table) for name, table in prune.pop("methods", {}).items()}
    for key, (method, name, default) in MOVED.items():
        value = methods.get(method, {}).pop(name, default)
        prune[key] = float(value) if isinstance(default, float) else value  # 5 was 5.0 then
    tables = {name: table for name, table in methods.items() if table}
    return {**prune, "allocator": prune.get("allocator") or "judged", **({"methods": tables} if tables else {})}
