"""The recipe: one typed, frozen, versioned tree. An unknown key is an error that names the nearest one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from edgeprune.errors import RecipeError
from edgeprune.kinds import why_another_kind
from edgeprune.plain import shown

# Formats and runtimes are what installed exporters write (see installed.py, recipe_names.py).
_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"  # it is part of file names
Format = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]
Precision = Literal["fp32", "fp16", "int8"]
Computing = Literal["fp32", "bf16"]
Runtime = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]
Method = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]  # an installed one
AUTO = "auto"  # tries several methods
AllocatorName = Literal["judged", "additive", "knapsack", "netadapt", "uniform", "global", "scales"]
DROPPING = ("judged", "additive")  # allocators that may let whole branches go
SparseLayers = Literal["1x1", "all"]
TargetUnit = Literal["x", "ms", "us", "MMACs", "GMACs", "kparams", "Mparams", "KB", "MB"]
# What is beyond these was not meant: it would take all memory, or years.
MOST_SIDE = 8192
Side = Annotated[int, Field(ge=1, le=MOST_SIDE)]


def _only_false(value: Any) -> Any:
    if value is not False:  # pydantic takes 0 for it, and a drop of 0 is a gate
        raise ValueError("or false")
    return value


_Off = Annotated[Literal[False], BeforeValidator(_only_false)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Drop = Annotated[float, Field(gt=-1, lt=1)]  # below 0: better than before
MOST_EPOCHS, MOST_IMAGES, MOST_WIDTH, MOST_MINUTES = 100_000, 10**9, 1 << 16, 10**6


class Section(BaseModel):
    """A table of the recipe: frozen, and strict about its keys and about what is a number, a text or a switch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_other_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1, "5" for 5 and "no" for false."""
        why = why_another_kind(value, cls.model_fields[info.field_name or ""].annotation)
        if why:
            raise ValueError(why)
        return value


class Target(Section):
    """What to prune to, e.g. `0.5x`, `8ms`, `150MMACs`, `1.2Mparams`, `900KB`.

    `x` is a share of the original's latency as measured on the device in the same session.
    """

    value: float = Field(gt=0)
    unit: TargetUnit

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target as users write it; raises RecipeError with the forms that are understood."""
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e-?\d+)?)\s*([A-Za-z]+)\s*", text)
        units = {u.lower(): u for u in get_args(TargetUnit)}
        if not match or match.group(2).lower() not in units or not 0 < float(match.group(1)) < math.inf:
            raise RecipeError(
                f"cannot read the target {shown(text)}",
                hint="write it like 0.5x, 8ms, 150MMACs, 1.2Mparams or 900KB",
            )
        return cls(value=float(match.group(1)), unit=units[match.group(2).lower()])

    @property
    def is_latency(self) -> bool:
        return self.unit in ("x", "ms", "us")

    @property
    def takes_nothing(self) -> bool:
        """Whether it is `1x`: no channel is to go."""
        return self.unit == "x" and self.value == 1

    def __str__(self) -> str:
        return (
            f"{self.value:g}{self.unit}"
            if self.unit in ("x", "ms", "us", "KB", "MB")
            else f"{self.value:g} {self.unit}"
        )


def _target_that_reads(text: str) -> str:
    """The text of a target; of one that cannot be read the error belongs to its key."""
    try:
        Target.parse(text)
    except RecipeError as error:
        raise ValueError(f"{error.what}: {error.hint}") from error
    return text


class ModelSection(Section):
    """Which model: a timm name, or the user's own `package.module:factory` (or `file.py:factory`).

    `accuracy`: what it is known to have, as a share of the test images; `untrained`: it may know nothing yet."""

    name: str | None = None
    factory: str | None = None
    arguments: dict[str, Any] = {}
    pretrained: bool = False
    checkpoint: Path | None = None
    weights: Literal["ema", "raw"] | None = None
    num_classes: int | None = Field(default=None, gt=0, le=1_000_000)
    input_size: tuple[Side, Side, Side] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    labels: tuple[str, ...] | Path | None = None
    accuracy: float | None = Field(default=None, gt=0, le=1)
    untrained: bool = False

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> ModelSection:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and self.input_size is not None and len(values) != self.input_size[0]:
                raise ValueError(f"`{name}` has {len(values)} values, and `input_size` {self.input_size[0]} channels")
        return self

    @model_validator(mode="after")
    def _one_expectation(self) -> ModelSection:
        if self.untrained and self.accuracy is not None:
            raise ValueError("`untrained` says that the model knows nothing, and `accuracy` what it knows: give one")
        return self

    @property
    def source(self) -> str:
        """Where the model comes from: `timm:NAME`, or the factory."""
        return self.factory if self.factory is not None else f"timm:{(self.name or '').removeprefix('timm:')}"

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        if (self.name is None) == (self.factory is None):
            raise ValueError("give exactly one of `name` (a timm model) and `factory` (package.module:function)")
        return self


class DataSection(Section):
    """Where images come from. `digits` is embedded; a path is an ImageFolder; `timm:NAME` asks timm's factory.

    `train`, `test` and `calibration` name either sub-folders of `root` or sources of their own. Without `train`
    only the calibration images are seen. Validation and calibration images are taken out of the training
    split (seeded), so accuracy is never computed on what was trained or calibrated on.
    """

    source: str
    train: str | None = None
    test: str | None = None
    calibration: str | None = None
    validation_images: int = Field(default=500, ge=0, le=MOST_IMAGES)
    calibration_images: int = Field(default=256, ge=1, le=MOST_IMAGES)
    resize: Side | None = None
    crop_pct: float | None = Field(default=None, ge=0.05, le=1)

    @property
    def sources(self) -> tuple[str, ...]:
        """All that images come from."""
        return tuple(one for one in (self.source, self.train, self.test, self.calibration) if one is not None)


class DeviceSection(Section):
    """Where and how latency is measured. `wait_minutes`: for how long another job's measuring is waited for."""

    id: str = Field(default="local", pattern=r"\S")
    runtime: Runtime = "litert"
    threads: int = Field(default=1, ge=1, le=1024)
    protocol: Literal["quick", "standard", "mlperf"] = "quick"
    wait_minutes: float = Field(default=0.0, ge=0, le=MOST_MINUTES)


# Keys of [prune] that are in a method's table now: (method, key, what it was unless said).
MOVED: dict[str, tuple[str, str, object]] = {
    "scoring_batches": ("taylor", "scoring_batches", 8),
    "auto_minutes": (AUTO, "minutes", 30.0),
}


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


class PruneSection(Section):
    """How the plan is found. `branches`: whether whole residual branches may go, beside channels; unless said,
    they may where there are training images: what goes with a branch has to be learned again. `squeeze_excitation`:
    whether such gates may go, a constant for each channel in their place.

    `reconstruct`: images on which the layers that stay are fitted to the unpruned model by least squares; 0: they stay
    as they were cut.

    With `epochs` the model trains while it is pruned, and what stays is chosen anew every `interval` epochs: step by
    step on the way to the target, or with `regrow` (CHEX's delta_0) at the target, that share of each layer coming
    back.

    A method's own settings are in a table of its name, `[prune.taylor]`; its class says which there are, and which
    allocators it goes with: the first of them where none is named. `method = "auto"` tries several methods, each with
    an allocator of its own, and takes the best."""

    target: str = "0.5x"
    method: Method = "taylor"
    allocator: AllocatorName | None = None
    tolerance: float = Field(default=0.03, gt=0, lt=1)
    corrections: int = Field(default=6, ge=0, le=1000)
    granularity: int | None = Field(default=None, ge=1, le=MOST_WIDTH)
    minimum_width: int = Field(default=8, ge=1, le=MOST_WIDTH)
    keep: tuple[str, ...] = ()
    branches: bool | None = None
    squeeze_excitation: bool = False
    judging_images: int = Field(default=256, ge=32, le=MOST_IMAGES)
    reconstruct: int = Field(default=512, ge=0, le=MOST_IMAGES)
    epochs: int = Field(default=0, ge=0, le=MOST_EPOCHS)
    interval: int = Field(default=2, ge=1, le=MOST_EPOCHS)
    regrow: float = Field(default=0.0, ge=0, lt=1)
    methods: dict[str, dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _tables_of_methods(cls, tree: Any) -> Any:
        """A table in [prune] is a method's; keys that were in [prune] before methods had tables go into theirs."""
        if not isinstance(tree, Mapping):
            return tree
        tables = {name: value for name, value in tree.items() if name not in cls.model_fields and _is_table(value)}
        rest = {name: value for name, value in tree.items() if name not in tables}
        if not _is_table(given := rest.get("methods", {})):
            return tree
        methods = {name: dict(table) for name, table in {**given, **tables}.items() if _is_table(table)}
        for key, (method, name, default) in MOVED.items():
            if key in rest and (value := rest.pop(key)) != default:
                methods.setdefault(method, {}).setdefault(name, value)
        return {**rest, "methods": methods} if methods else rest

    @field_validator("target")
    @classmethod
    def _target_reads(cls, text: str) -> str:
        return _target_that_reads(text)

    @model_validator(mode="after")
    def _goes_together(self) -> PruneSection:
        if Target.parse(self.target).takes_nothing and (self.epochs or self.method == AUTO):
            raise ValueError("the target 1x prunes no channel: leave `epochs`, `regrow` and `auto` out")
        if self.regrow and not self.epochs:
            raise ValueError("`regrow` brings units back while the model trains: say for how many `epochs`, too")
        if self.regrow and self.epochs <= self.interval:
            raise ValueError(
                "`regrow` brings fewer units back with every turn, and there is one turn: raise `epochs`, or lower "
                "`interval`"
            )
        if self.method == AUTO and self.allocator not in (None, "judged"):
            raise ValueError("`auto` tries methods with allocators of its own: leave `allocator` out")
        if self.method == AUTO and self.epochs:
            raise ValueError("`auto` tries what is cut at once, no turns: leave `epochs` out, or name a method")
        if self.squeeze_excitation and ((self.allocator or DROPPING[0]) not in DROPPING or self.epochs):
            raise ValueError(
                "`squeeze_excitation` goes as a whole and at once, with an allocator that judges that "
                f"({', '.join(DROPPING)}) and without training in turns: leave `squeeze_excitation` or `epochs` out, "
                "or take another allocator"
            )
        if self.branches and (self.allocator or DROPPING[0]) not in DROPPING and self.method != AUTO:
            raise ValueError(
                f"allocator `{self.allocator}` lets no branch go: leave `branches` out, or take `judged` or `additive`"
            )
        return self


class SparseSection(Section):
    """Zeros among the weights of 1x1 convolutions, kept through re-training, and a .tflite file that stores them as
    such where the device runs it faster; with `layers` "all" among those of every convolution and linear layer, which
    saves no time beside. `zeros` is a share of these weights, or of their multiply-accumulates (`of`);
    0 leaves all of that out. With `target` the share is found: the least by which the file takes that latency on the
    device (`0.5x` of the unpruned model's, `8ms`), or the model so many multiply-accumulates (`60MMACs`)."""

    zeros: float = Field(default=0.0, ge=0, lt=1)
    target: str | None = None
    of: Literal["weights", "macs"] = "weights"
    scope: Literal["global", "uniform"] = "global"
    block: Literal[1, 2, 4] = 2
    layers: SparseLayers = "1x1"

    @field_validator("target")
    @classmethod
    def _target_reads(cls, text: str | None) -> str | None:
        return None if text is None else _target_that_reads(text)

    @model_validator(mode="after")
    def _one_way(self) -> SparseSection:
        if self.target is None:
            if self.model_fields_set and "zeros" not in self.model_fields_set:
                raise ValueError(
                    f"{', '.join(sorted(self.model_fields_set))}: of how many zeros? Give their share, `zeros`, or a "
                    "`target` (`zeros = 0` is none)"
                )
            return self
        target = Target.parse(self.target)
        if target.is_latency and self.layers != "1x1":
            raise ValueError(
                "no other zeros than those of 1x1 convolutions save time: leave `layers` out, or give MACs"
            )
        if not target.is_latency and target.unit not in ("MMACs", "GMACs"):
            raise ValueError(f"zeros take no {target.unit} away that are counted: give a latency or MACs")
        if self.zeros:
            raise ValueError("`target` says what the zeros are to reach, `zeros` how many there are: give one of them")
        return self

    @property
    def asked(self) -> bool:
        """Whether there are to be zeros."""
        return self.zeros > 0 or self.target is not None


class TuneSection(Section):
    """Re-training of the pruned model with distillation from the unpruned one."""

    epochs: int = Field(default=5, ge=0, le=MOST_EPOCHS)
    batch_size: int = Field(default=128, ge=1, le=1 << 16)
    lr: float = Field(default=0.015, gt=0, le=1000)
    weight_decay: float = Field(default=5e-4, ge=0, le=1000)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    distillation: float = Field(default=0.7, ge=0, le=1)
    temperature: float = Field(default=4.0, ge=0.01, le=1000)
    precision: Computing = "fp32"
    augment: Literal["none", "crop", "crop-flip"] = "crop-flip"
    cuda_graphs: bool = False


class QuantizeSection(Section):
    """Post-training quantization to int8. `formats`: those of `export.formats` that get an int8 file; all that can
    have one, unless said."""

    enabled: bool = True
    formats: tuple[Format, ...] | None = None


class ExportSection(Section):
    """Which files to write."""

    formats: tuple[Format, ...] = Field(default=("tflite", "pte", "coreml", "onnx"), min_length=1)


class VerdictLimits(Section):
    """[verify.gates], the limits of the verdict; one set to `false` is reported but cannot fail. Agreements and drops
    are shares: 0.01 is one point."""

    sqnr_fp32_db: float | _Off = 100.0
    sqnr_fp16_db: float | _Off = 45.0
    int8_agreement: _Share | _Off = 0.97
    int8_accuracy_drop: _Drop | _Off = 0.005
    accuracy_drop: _Drop | _Off = False
    host_agreement: _Share | _Off = 0.995  # of an attached device with this machine
    host_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] | _Off = 0.003  # either way
    latency_tolerance: Annotated[float, Field(ge=0)] | _Off = 0.03
    size_bytes: Annotated[float, Field(gt=0)] | _Off = False
    peak_memory_bytes: Annotated[float, Field(gt=0)] | _Off = False


class VerifySection(Section):
    """What is checked on the device."""

    images: int | None = Field(default=None, ge=1, le=MOST_IMAGES)
    gates: VerdictLimits = VerdictLimits()


class Recipe(Section):
    """One whole job."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0, lt=2**32)  # as numpy takes it
    model: ModelSection
    data: DataSection
    device: DeviceSection = DeviceSection()
    prune: PruneSection = PruneSection()
    sparse: SparseSection = SparseSection()
    tune: TuneSection = TuneSection()
    quantize: QuantizeSection = QuantizeSection()
    export: ExportSection = ExportSection()
    verify: VerifySection = VerifySection()

    @model_validator(mode="after")
    def _something_goes(self) -> Recipe:
        target = Target.parse(self.prune.target)
        if target.unit == "x" and target.value >= 1 and not (target.takes_nothing and self.sparse.asked):
            raise ValueError(
                f"the target {target} is not faster than the model: choose a share below 1, as 0.5x; 1x, which prunes "
                "no channel, is for recipes with zeros ([sparse])"
            )
        return self

    @model_validator(mode="after")
    def _zeros_are_timed_in_a_tflite_file(self) -> Recipe:
        if self.sparse.target is None or not Target.parse(self.sparse.target).is_latency:
            return self
        if self.device.runtime != "litert" or "tflite" not in self.export.formats:
            raise ValueError(
                f"zeros reach `sparse.target` {self.sparse.target} in a .tflite file alone: set device.runtime = "
                "'litert', and name tflite in export.formats"
            )
        return self

    @model_validator(mode="after")
    def _zeros_take_more_than_channels(self) -> Recipe:
        if self.sparse.target is not None:
            zeros, channels = Target.parse(self.sparse.target), Target.parse(self.prune.target)
            if zeros.unit == channels.unit and zeros.value >= channels.value:
                raise ValueError(
                    f"channels go first, to `prune.target` {channels}, and zeros have nothing left to do for "
                    f"`sparse.target` {zeros}: give them less than that (prune.target = '1x' prunes no channel)"
                )
        return self

    @property
    def latency_target(self) -> Target | None:
        """What the judged file's latency is held to: the target of zeros, where it is one, else that of pruning."""
        texts = (self.sparse.target, self.prune.target)
        return next((t for text in texts if text is not None and (t := Target.parse(text)).is_latency), None)
