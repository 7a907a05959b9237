"""The manifest: what travels with an exported file so that anybody can run and check it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from edgeprune.artifacts.preparation import Preparation
from edgeprune.checksum import file_sha256
from edgeprune.errors import UsageError
from edgeprune.models.spec import Preprocessing
from edgeprune.recipe import Format, Precision, TaskSection
from edgeprune.records import Record, first_fault
from edgeprune.runs import read_bounded


def one_of_each(tree: Any) -> Any:
    """What was written with one `input` and one `output`, with `inputs` and `outputs`."""
    if not isinstance(tree, Mapping):
        return tree
    lists = {f"{word}s": (tree[word],) for word in ("input", "output") if word in tree}
    return {**{key: value for key, value in tree.items() if f"{key}s" not in lists}, **lists}


LONGEST_NAME = 255  # bytes, in every file system


def _bare(name: str) -> str:
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or len(name.encode()) > LONGEST_NAME:
        raise ValueError("must be the bare name of a file beside the manifest")
    return name


BareName = Annotated[str, AfterValidator(_bare)]


Layout = Literal["NCHW", "NHWC", "NC", "model"]


class TensorSpec(Record):
    """An input or output of the file, batch 1.

    `layout` is NCHW, NHWC, NC, or "model": the axes are as the model has them. Quantized tensors: real = scale *
    (stored - zero_point). `of` names the model's input or output that it is, where it has several.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "float16", "int8", "uint8"]
    layout: Layout
    scale: float | None = None
    zero_point: int | None = None
    of: str = ""


def reference_names(word: str, count: int) -> list[str]:
    """What the reference calls so many inputs or outputs."""
    return [word] if count <= 1 else [f"{word}.{number}" for number in range(count)]


def layout_of(rank: int, images: Literal["NCHW", "NHWC"] = "NCHW") -> Layout:
    """The layout of an output of so many axes, of a file whose images are laid out so."""
    return images if rank == 4 else "NC" if rank == 2 else "model"


class Delegation(Record):
    """Which share of the operators the accelerated backend runs, and the names of those left outside."""

    backend: str
    delegated: int  # operators inside the delegate
    outside: int  # operators left to the runtime's own kernels
    outside_operators: dict[str, int] = Field(default_factory=dict)

    @property
    def share_outside(self) -> float:
        total = self.delegated + self.outside
        return self.outside / total if total else 0.0


class Manifest(Record):
    """Everything that is known of an exported file.

    Version 1 says of the preprocessing the model's own filter, crop, mean and std alone; see `untold`. Versions 1 and 2
    are of classifiers with one `input` and one `output`.
    """

    version: Literal[1, 2, 3] = 3
    format: Format
    precision: Precision
    weights_precision: Precision  # Core ML "int8" holds int8 weights and computes in fp16
    file: BareName  # beside the manifest; a folder for .mlpackage
    sha256: str  # of the file; of the sorted (path, sha256) list for a folder
    size_bytes: int
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)  # in the order in which the model answers
    task: TaskSection = TaskSection()  # what the outputs mean
    preprocessing: Preparation | Preprocessing | None  # None: a data set of the user's own prepared the inputs
    labels: tuple[str, ...]
    # Safetensors beside it: "input" (N, C, H, W) float32, and what the float model answers: "output"; of several
    # "input.0", "input.1", ... and "output.0", ... in the model's order, each (N, ...) float32 with its axes there.
    reference: BareName
    delegation: Delegation | None
    left_in_float: dict[str, int] = Field(
        default_factory=dict
    )  # operators of an int8 file that the quantizer cannot do: kind -> how many
    toolkit: dict[str, str]  # package -> version
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _one_of_each(cls, tree: Any) -> Any:
        return one_of_each(tree)

    @property
    def untold(self) -> str:
        """What this manifest does not say of how images are prepared; empty where it says all."""
        if isinstance(self.preprocessing, Preparation):
            return ""
        if self.preprocessing is None:
            return "how the inputs are prepared is not said: a data set of its maker's own did so"
        return (
            "it is of version 1, and says neither sizes, rounding and colours of the preprocessing, nor the recipe's "
            "resize and crop_pct; export the model again"
        )


def manifest_path(file: Path) -> Path:
    """Where the manifest of an exported file is: beside it, `model_int8.tflite.json`."""
    return file.with_name(f"{file.name}.json")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check that the file beside it is the one it speaks of.

    `path` is the manifest or the exported file itself.

    Raises:
        UsageError: the manifest is missing or cannot be read, or the file or the reference is missing or was changed.
    """
    path = path if path.suffix == ".json" and path.is_file() else manifest_path(path)
    manifest = parse_manifest(path)
    file = path.parent / manifest.file
    if not file.exists():
        raise UsageError("the exported file is missing", where=str(file), hint="export the model again")
    if file_hash(file) != manifest.sha256:
        raise UsageError(
            "the exported file is not the one its manifest describes (sha256 differs)",
            where=str(file),
            hint="export the model again",
        )
    if not (path.parent / manifest.reference).is_file():
        raise UsageError("the reference is missing", where=str(path.parent / manifest.reference))
    return manifest


def parse_manifest(path: Path) -> Manifest:
    """Read a manifest, and check that what it names lies beside it.

    Raises:
        UsageError: it is missing, cannot be read, or names something elsewhere.
    """
    try:
        manifest = Manifest.model_validate_json(read_bounded(path))
    except OSError as error:
        raise UsageError(
            f"cannot read the manifest: {error.strerror}", where=str(path), hint="export the model again"
        ) from error
    except ValidationError as error:
        raise UsageError(
            f"not a valid manifest: {first_fault(error)}", where=str(path), hint="export the model again"
        ) from error
    for name in (manifest.file, manifest.reference):
        _check_inside(path.parent, path.parent / name)
    return manifest


def _check_inside(folder: Path, file: Path) -> None:
    inner = file.rglob("*") if file.is_dir() else ()
    for part in (file, *inner):
        if part.is_symlink() and not part.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                "a link that leads out of the manifest's folder is not followed",
                where=str(part),
                hint="put the file itself there",
            )


def file_hash(path: Path) -> str:
    """sha256 of a file; of a folder, that of its sorted "path sha256" lines (paths relative, with /)."""
    if path.is_file():
        return file_sha256(path)
    lines = (f"{p.relative_to(path).as_posix()} {file_sha256(p)}\n" for p in sorted(path.rglob("*")) if p.is_file())
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def file_size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
