"""What a run's data were when it was loaded: every file and image by content, and the split of each.

RUN/load/data.jsonl    a head, then a line for each file (name, SHA-256) and for each image (name, split, pixels)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import RunError
from edgeprune.recipe import TargetKind

RECORD = "data.jsonl"
LEFT_OUT = "left out"
_VERSION = 1
_NAMED = 5


@dataclass(frozen=True)
class ImageRecord:
    """One image: its split (`LEFT_OUT` for copies of others'), the digest of its pixels, and its class."""

    split: str
    pixels: str
    label: int


@dataclass(frozen=True)
class DataRecord:
    """The data of a run. Names begin with the part of [data] that they are from: `train/cat/1.jpg`."""

    classes: tuple[str, ...]
    files: Mapping[str, str]  # name -> SHA-256
    images: Mapping[str, ImageRecord]
    train_is_calibration: bool
    told: tuple[str, ...]
    kind: TargetKind = "class"  # what the task needs beside an image

    @property
    def sha256(self) -> str:
        """Of the files, and of what else the images are from."""
        return digest_of(self.files, self.contents)

    @property
    def contents(self) -> str:
        """Of the images and their labels, where a data set is no set of files."""
        if self.files:
            return ""
        lines = [[name, one.pixels, one.label] for name, one in self.images.items()]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        splits = [one.split for one in self.images.values()]
        return {split: splits.count(split) for split in dict.fromkeys(splits)}

    def to_bytes(self) -> bytes:
        head = [_VERSION, self.classes, self.train_is_calibration, self.told, self.kind]
        lines: list[Any] = [head, *(["file", name, sha256] for name, sha256 in self.files.items())]
        lines += [["image", name, one.split, one.pixels, one.label] for name, one in self.images.items()]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


def digest_of(files: Mapping[str, str], contents: str) -> str:
    """One hash of files (name -> SHA-256), and of what the data are else."""
    return hashlib.sha256(json.dumps([sorted(files.items()), contents]).encode()).hexdigest()


def read_record(path: Path) -> DataRecord:
    """Read what `DataRecord.to_bytes` made.

    Raises:
        RunError: it is damaged.
    """
    try:
        head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        version, classes, train_is_calibration, told, *kind = head
        if version != _VERSION:
            raise ValueError(f"version {version}")
        files = {name: sha256 for kind, name, sha256, *_ in lines if kind == "file"}
        images = {line[1]: ImageRecord(line[2], line[3], line[4]) for line in lines if line[0] == "image"}
        return DataRecord(tuple(classes), files, images, bool(train_is_calibration), tuple(told), *kind)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise RunError(
            f"the record of the data cannot be read: {error}",
            where=str(path),
            hint=f"delete {path.parent} and run again with --resume",
        ) from error


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What became of files (name -> SHA-256) since, in words; empty where nothing did."""
    added, removed = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    changed = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    hashes = {before[name] for name in removed}
    moved = [name for name in added if now[name] in hashes]
    added = [name for name in added if now[name] not in hashes]
    gone = {now[name] for name in moved}
    removed = [name for name in removed if before[name] not in gone]
    kinds = {"added": added, "removed": removed, "changed": changed, "moved or renamed": moved}
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
