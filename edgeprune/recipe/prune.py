"""[prune]: how the plan is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from edgeprune.recipe.section import (
    AUTO,
    DROPPING,
    MOST_EPOCHS,
    MOST_IMAGES,
    MOST_WIDTH,
    AllocatorName,
    Method,
    Section,
)
from edgeprune.recipe.target import Target, TargetFile, target_that_reads

# Keys of [prune] that are in a method's table now: (method, key, what it was unless said).
MOVED: dict[str, tuple[str, str, object]] = {
    "scoring_batches": ("taylor", "scoring_batches", 8),
    "auto_minutes": (AUTO, "minutes", 30.0),
}


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


class PruneSection(Section):
    """How the plan is found; with `enabled` false nothing is pruned, which is the target `1x`, and no other key has a
    meaning. `target_file`: the exported file that a latency target is about, as `tflite-int8`; unless said, the fp32
    file that `device.runtime` runs.

    `branches`: whether whole residual branches may go, beside channels; unless said,
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

    enabled: bool = True
    target: str = "0.5x"
    target_file: str | None = None
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
    methods: dict[str, dict[str, Any]] = Field(default={})

    @model_serializer(mode="wrap")
    def _as_it_was_written(self, whole: SerializerFunctionWrapHandler) -> Any:
        """A disabled section says no more than that, so that it can be read back."""
        return whole(self) if self.enabled else {"enabled": False}

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

    @model_validator(mode="before")
    @classmethod
    def _disabled_takes_nothing(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping) or tree.get("enabled") is not False:
            return tree
        if others := sorted(str(key) for key in tree if key != "enabled"):
            raise ValueError(
                f"`enabled = false` prunes nothing, so {', '.join(others)} would have no effect: leave "
                f"{'it' if len(others) == 1 else 'them'} out, or prune"
            )
        return {"enabled": False, "target": "1x"}

    @field_validator("target")
    @classmethod
    def _target_reads(cls, text: str) -> str:
        return target_that_reads(text)

    @field_validator("target_file")
    @classmethod
    def _target_file_reads(cls, text: str | None) -> str | None:
        return None if text is None else str(TargetFile.parse(text))

    @property
    def file(self) -> TargetFile | None:
        """The file that `target_file` names."""
        return None if self.target_file is None else TargetFile.parse(self.target_file)

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
