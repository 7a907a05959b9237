"""What a job takes to its device besides itself: models and inputs, named there by their content."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.checksum import file_sha256
from edgeprune.devices.base import LITTLE
from edgeprune.errors import UsageError


class Cargo:
    """Files to push, by their places in the device's work folder. `stem`: what the names of a job's own begin with."""

    def __init__(self, stem: str, scratch: Path, digests: dict[Path, str]) -> None:
        self.files: dict[str, Path] = {}
        self._stem, self._scratch, self._digests = stem, scratch, digests
        self._made = 0  # files in the scratch folder

    def array(self, array: npt.NDArray[Any]) -> str:
        """Add inputs; returns their place. They are kept there: the next file is asked the same."""
        local = self._next("npy")
        np.save(local, np.ascontiguousarray(array), allow_pickle=False)
        remote = f"inputs/{file_sha256(local)}.npy"
        self.files[remote] = local
        return remote

    def model(self, model: Path) -> str:
        """Add a model; returns its place: named by its content, for names that users give stay here.

        Raises:
            UsageError: it has weights beside it, and a name that cannot be kept there.
        """
        if model.is_dir():  # a Core ML package travels as one file
            packed = self._next("zip")
            pack(model, packed)
            remote = f"models/{file_sha256(packed)}.zip"
            self.files[remote] = packed
            return remote
        if model not in self._digests:
            self._digests[model] = file_sha256(model)
        weights = model.with_name(model.name + ".data")  # ONNX keeps large weights beside the file, found by name
        if weights.is_file():
            if not re.fullmatch(r"[A-Za-z0-9._-]+", model.name):
                raise UsageError(
                    "a file with weights beside it keeps its name on a device, and this one cannot be kept there",
                    where=str(model),
                    hint="export it under a name of letters, digits, dots, dashes and underscores",
                )
            folder = f"models/{self._digests[model]}"
            self.files |= {f"{folder}/{model.name}": model, f"{folder}/{weights.name}": weights}
            return f"{folder}/{model.name}"
        name = f"{self._digests[model]}{model.suffix}"
        remote = f"{self._stem}-{name}" if model.stat().st_size <= LITTLE else f"models/{name}"
        self.files[remote] = model
        return remote

    def _next(self, suffix: str) -> Path:
        self._made += 1
        return self._scratch / f"{self._made}.{suffix}"


def pack(folder: Path, target: Path) -> None:
    """A folder as a zip file: the same bytes for the same content."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.writestr(zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}"), path.read_bytes())
