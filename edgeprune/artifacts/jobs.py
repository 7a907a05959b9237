"""What the parent asks of a conversion child, and what the child answers: one line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from edgeprune.artifacts.manifest import Delegation, TensorSpec, one_of_each
from edgeprune.graph.operations import OpSignature
from edgeprune.recipe import Precision
from edgeprune.records import Record


class Output(Record):
    """One file to write. `file` is a temporary name; the parent moves it into place once the child says it is whole.

    `describe` asks for the delegation too (costs a second); without it only the file is made.
    """

    precision: Precision
    file: Path
    describe: bool = True


class ConvertJob(Record):
    """Write one traced program to files. `calibration` is a safetensors file with "images" (N, C, H, W) float32."""

    kind: Literal["convert"] = "convert"
    exporter: str
    program: Path
    calibration: Path | None = None
    outputs: tuple[Output, ...]


class ProbeJob(Record):
    """Write a one-operation file for each signature to a folder."""

    kind: Literal["probes"] = "probes"
    exporter: str
    precision: Precision = "fp32"
    signatures: tuple[OpSignature, ...]
    folder: Path


Job = Annotated[ConvertJob | ProbeJob, Field(discriminator="kind")]
JOB: TypeAdapter[ConvertJob | ProbeJob] = TypeAdapter(Job)


class Converted(Record):
    """What an exporter knows of a file it wrote; `outputs` in the order in which the program answers. With one of each,
    `input` and `output` will do."""

    kind: Literal["converted"] = "converted"
    weights_precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    delegation: Delegation | None = None
    # Operators of an int8 file that the quantizer cannot do: kind -> how many.
    left_in_float: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0

    @model_validator(mode="before")
    @classmethod
    def _one_of_each(cls, tree: Any) -> Any:
        return one_of_each(tree)


class BuiltProbes(Record):
    """Signature key -> file, for those that could be built."""

    kind: Literal["probes"] = "probes"
    files: dict[str, Path]


class End(Record):
    """The job is done."""

    kind: Literal["end"] = "end"


class Failed(Record):
    """The toolkit raised; the child ends after saying so."""

    kind: Literal["failed"] = "failed"
    error: str
    out_of_memory: bool = False


Reply = Annotated[Converted | BuiltProbes | End | Failed, Field(discriminator="kind")]
REPLY: TypeAdapter[Converted | BuiltProbes | End | Failed] = TypeAdapter(Reply)
