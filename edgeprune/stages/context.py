"""What every stage works with: the run, its data, its device, and the models rebuilt from what earlier stages wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from torch import nn

from device_profiles import DeviceProfile
from edgeprune.data.open import open_data, with_preprocessing
from edgeprune.data.record import RECORD, read_record
from edgeprune.data.split import Splits
from edgeprune.devices.base import Device
from edgeprune.devices.discovery import open_device
from edgeprune.errors import RunError
from edgeprune.latency.isolation import profile_of
from edgeprune.latency.table import LatencyTable
from edgeprune.latency.typical import Typical, is_typical, open_typical
from edgeprune.models.answers import PLAIN, form_of
from edgeprune.models.checkpoint import load_state
from edgeprune.models.load import build
from edgeprune.models.spec import Model, ModelSpec
from edgeprune.models.trust import is_of, require, require_data, require_device, require_task
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe
from edgeprune.runs import Run, read_as
from edgeprune.space.plan import Plan, read_plan
from edgeprune.stages.stage import PIPELINE, WEIGHTS, Pipeline
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.tasks.task import Task

Record = TypeVar("Record", bound=BaseModel)
AGAIN_S = 600  # for another job's measurement, where the work of minutes would be for nothing without the device


class Context:
    """One process's view of a run. Models are rebuilt from plan + safetensors, once each."""

    def __init__(
        self,
        run: Run,
        progress: Progress,
        *,
        trust: bool = False,
        pipeline: Pipeline = PIPELINE,
    ) -> None:
        """`trust`: the recipe is its user's own word, or they trust the folder: the code that it names may run."""
        self.run, self.progress, self.pipeline = run, progress, pipeline
        self._trust = trust
        self._models: dict[str, Model] = {}
        self._unpruned: nn.Module | None = None

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's, with the preprocessing that the recipe gives its images."""
        spec = self.read("load", "spec.json", ModelSpec)
        if not is_of(spec, self.recipe.model):
            raise RunError(
                f"the run's model is {spec.source!r} with {spec.arguments}, which is not what its recipe names",
                where=str(self.run.folder / "load" / "spec.json"),
                hint="this folder was changed by hand: delete `load` in it and go on with --resume",
            )
        return with_preprocessing(spec, self.recipe.data)

    def require_trust(self) -> None:
        """Refuse to run code, or to open images by code, that the run folder alone names.

        Raises:
            RunError: its user has not named it, and does not say that they trust it.
        """
        if not self._trust:
            require(self.spec.source, self.spec.arguments, self.run.folder)
            for source in self.recipe.data.sources:
                require_data(source, self.run.folder)

    @cached_property
    def task(self) -> Task:
        """What the model's answers mean."""
        if self.recipe.task.is_users and not self._trust:
            require_task(self.recipe.task.name, self.run.folder)
        return task_of(self.recipe.task)

    @property
    def objective(self) -> Objective:
        """The task on the model: what training lowers and verification measures."""
        return Objective.of(self.task, self.recipe.task, form_of(self.model("load").module) or PLAIN)

    @cached_property
    def splits(self) -> Splits:
        self.progress.update(f"opening data {self.recipe.data.source}", 0, 1)
        if not self._trust:
            for source in self.recipe.data.sources:
                require_data(source, self.run.folder)
        path = self.run.stage_folder("load") / RECORD
        record = read_record(path) if path.exists() else None
        recipe = self.recipe
        return open_data(recipe.data, self.spec, seed=recipe.seed, record=record, progress=self.progress)

    @cached_property
    def device(self) -> Device:
        if not self._trust:
            require_device(self.recipe.device.id, self.run.folder)
        return open_device(self.recipe.device.id)

    @contextmanager
    def lease(self, *, again: bool = False) -> Iterator[None]:
        """The device alone, for as long as something is measured on it.

        Args:
            again: it was given back in the middle of a stage: so what another job measures by now is waited for, ten
                minutes at least.

        Raises:
            DeviceError: another job has it, and did not give it back within the recipe's `device.wait_minutes`.
        """
        wait_s = max(60 * self.recipe.device.wait_minutes, AGAIN_S if again else 0)
        if wait_s:
            self.progress.update(f"waiting until {self.recipe.device.id} is free", 0, 1)
        with self.device.lease(wait_s=wait_s):
            yield

    @cached_property
    def typical(self) -> Typical | None:
        """The typical tables that stand in for a device, where the recipe names a profile instead of one."""
        return open_typical(self.recipe.device.id) if is_typical(self.recipe.device.id) else None

    @property
    def profile(self) -> DeviceProfile:
        """What is known of the device before it is measured."""
        return self.typical.profile if self.typical else profile_of(self.device)

    @cached_property
    def table(self) -> LatencyTable:
        return LatencyTable()

    @property
    def plan(self) -> Plan:
        return read_plan(self.file("prune", "plan.json"))

    def file(self, stage: str, name: str) -> Path:
        """A file of a finished stage.

        Raises:
            RunError: the stage has not made it.
        """
        record = self.run.record(stage)
        path = self.run.stage_folder(stage) / name
        if record is None or all(file.path != name for file in record.files):
            raise RunError(
                f"the stage `{stage}` has not made {name}", where=str(self.run.folder), hint=f"run `{stage}` first"
            )
        return path

    def read(self, stage: str, name: str, kind: type[Record]) -> Record:
        """A record that a finished stage wrote.

        Raises:
            RunError: the stage has not made it, or it is no such record.
        """
        return read_as(self.file(stage, name), kind)

    def model(self, stage: str) -> Model:
        """The model as a stage left it, in eval mode."""
        if stage not in self._models:
            self._models[stage] = self._rebuild(stage)
        return self._models[stage]

    def keep_model(self, stage: str, model: Model) -> None:
        """Remember a model that this process has just made, so that it is not rebuilt."""
        self._models[stage] = model

    def forget_from(self, stage: str) -> None:
        """Forget the models of a stage that is done again and of those after it."""
        for later in (stage, *(one.name for one in self.pipeline.after(stage))):
            self._models.pop(later, None)
        if stage == "load":
            self._unpruned = None
            vars(self).pop("spec", None)
            vars(self).pop("splits", None)

    def _rebuild(self, stage: str) -> Model:
        self.require_trust()
        model = Model(self.spec, build(self.spec) if stage == "load" else self._base())
        for earlier in self.pipeline.up_to(stage):
            if earlier.leaves is not None:
                model = earlier.leaves.formed(self, model)
        load_state(model.module, self.file(stage, WEIGHTS))
        model.module.eval()
        return model

    def _base(self) -> nn.Module:
        """What plans are applied to, always the same module, so that it is searched once: the model of `load`, or one
        that is built like it, as the weights come from the stage's own file."""
        if "load" in self._models:
            return self._models["load"].module
        if self._unpruned is None:
            self._unpruned = build(self.spec)
        return self._unpruned
