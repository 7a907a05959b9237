"""A whole recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeprune.recipe.data import DataSection
from edgeprune.recipe.device import DeviceSection
from edgeprune.recipe.files import ExportSection, QuantizeSection
from edgeprune.recipe.model import ModelSection
from edgeprune.recipe.prune import PruneSection
from edgeprune.recipe.section import (
    Section,
)
from edgeprune.recipe.sparse import SparseSection
from edgeprune.recipe.target import Target
from edgeprune.recipe.task import TaskSection
from edgeprune.recipe.tune import TuneSection
from edgeprune.recipe.verify import VerifySection


class Recipe(Section):
    """One whole job."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0, lt=2**32)  # as numpy takes it
    model: ModelSection
    data: DataSection
    task: TaskSection = TaskSection()
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
        if target.unit == "x" and target.value > 1:
            raise ValueError(
                f"the target {target} is slower than the model: choose a share below 1, as 0.5x; 1x prunes nothing"
            )
        if self.sparse.asked and not self.prune.enabled:
            raise ValueError(
                "zeros ([sparse]) are pruning, too, and `prune.enabled = false` forbids it: leave one of them out; "
                "prune.target = '1x' prunes no channel and lets [sparse] set zeros"
            )
        return self

    @model_validator(mode="after")
    def _what_is_not_pruned_is_not_trained(self) -> Recipe:
        """Unless `tune.epochs` is given: a model that nothing was taken from ships as it was given."""
        return self._settled()

    def _settled(self) -> Recipe:
        if not self.prunes and "epochs" not in self.tune.model_fields_set:
            tune = self.tune.model_copy(update={"epochs": 0})
            self.__dict__["tune"] = tune  # a validator has to return the very object, and that is frozen by now
            self.__pydantic_fields_set__.add("tune")
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
    def _zeros_are_timed_in_the_file_of_the_target(self) -> Recipe:
        named = self.prune.file
        if named is None or self.sparse.target is None or not Target.parse(self.sparse.target).is_latency:
            return self
        if (named.format, named.precision) != ("tflite", "fp32"):
            raise ValueError(
                f"zeros save time in the fp32 .tflite file alone, which is the file that `sparse.target` "
                f"{self.sparse.target} is about, and `prune.target_file` names {named}: leave `prune.target_file` out, "
                "or give the zeros as MACs or a share"
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
    def prunes(self) -> bool:
        """Whether anything is to go from the model: channels or branches, or weights that become zero."""
        return self.sparse.asked or not Target.parse(self.prune.target).takes_nothing

    def with_target(self, text: str) -> Recipe:
        """The same job to another target.

        Raises:
            ValueError: the job prunes nothing (`prune.enabled` is false).
        """
        if not self.prune.enabled:
            raise ValueError("`prune.enabled` is false: there is no target to change")
        other = self.model_copy(update={"prune": self.prune.model_copy(update={"target": text})})
        return other._settled()

    @property
    def latency_target(self) -> Target | None:
        """What the judged file's latency is held to: the target of zeros, where it is one, else that of pruning; None
        where nothing is pruned."""
        if not self.prunes:
            return None
        texts = (self.sparse.target, self.prune.target)
        return next((t for text in texts if text is not None and (t := Target.parse(text)).is_latency), None)
