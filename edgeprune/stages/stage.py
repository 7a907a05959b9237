"""A stage is one object, and the list of them is the only place where stages are named in order.

The list is read by the command line before it does anything, and by whatever looks at run folders: so this module
imports nothing heavy. A stage of the house names its functions ("module:function"), which are imported when they are
called; one from elsewhere may give the functions themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import UsageError
from edgeprune.recipe import Recipe

if TYPE_CHECKING:
    from edgeprune.models.spec import Model
    from edgeprune.stages.context import Context

Does = Callable[["Context", Path], dict[str, Any]]
Form = Callable[["Context", "Model"], "Model"]
WEIGHTS = "model.safetensors"  # of the model that a stage leaves, in its folder


@dataclass(frozen=True)
class Left:
    """The model that a stage leaves, its weights in `WEIGHTS`.

    `word`, without a space, names it in verdicts and reports ("pruned"). `form` makes this model's modules of the one's
    before, whatever the weights; None where only weights change.
    """

    word: str
    form: Form | str | None = None

    def __post_init__(self) -> None:
        if not self.word.isidentifier():  # with a space it would be a file's there
            raise UsageError(f"one word names a model, and {self.word!r} is none")

    def formed(self, context: Context, before: Model) -> Model:
        form: Form | None = _function(self.form)
        return before if form is None else form(context, before)


@dataclass(frozen=True)
class Stage:
    """What there is to know of a stage.

    Args:
        name: of its folder in the run, and of its command.
        does: makes the stage's files in the folder that it is given; what it returns is kept in the stage's record.
        reads: the recipe's sections that no stage before it reads, or single keys of one (`prune.target_file`); done
            again when they change. A function where that depends on the recipe.
        leaves: the model that it leaves, if any.
        snapshots: the recipe's sections that an interrupted stage has to find unchanged to go on in its middle; None
            where it begins anew.
        needs: raises what a recipe lacks here, before the first stage of a run begins.
        runs_code: that the run folder names; its user has to have named it, or to trust the folder.
        said: what its command `edgeprune NAME RUN` is for; none without.
        begun_by: the command that does it.
    """

    name: str
    does: Does | str
    reads: tuple[str, ...] | Callable[[Recipe], tuple[str, ...]] = ()
    leaves: Left | None = None
    snapshots: tuple[str, ...] | None = None
    needs: Callable[[Recipe], None] | str | None = None
    runs_code: bool = True
    said: str = ""
    begun_by: str = "{name} {run}"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(f"a stage names a folder and a command, and {self.name!r} is no name for one")

    def run(self, context: Context, folder: Path) -> dict[str, Any]:
        """Do it; every file in the folder belongs to it afterwards."""
        does: Does | None = _function(self.does)
        assert does is not None
        return does(context, folder)

    def settings(self, recipe: Recipe) -> tuple[str, ...]:
        """The sections that it reads of a recipe, beside those that the stages before it read."""
        return self.reads(recipe) if callable(self.reads) else self.reads

    def check(self, recipe: Recipe) -> None:
        """Raise what a recipe lacks here for this stage."""
        needs: Callable[[Recipe], None] | None = _function(self.needs)
        if needs is not None:
            needs(recipe)

    @property
    def snapshot_folder(self) -> str:
        """In the run: what an interrupted stage goes on with, until it is finished."""
        return f"{self.name}.snapshots"

    def command(self, run: Path) -> str:
        """The command that does it, on a run folder."""
        return self.begun_by.format(name=self.name, run=run)


@dataclass(frozen=True)
class Pipeline:
    """Stages in their order: each is made from the recipe and from what those before it made."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.stages):
            raise UsageError(f"two stages have one name: {', '.join(self.names)}")

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    def stage(self, name: str) -> Stage:
        """The stage of a name.

        Raises:
            UsageError: there is none.
        """
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise UsageError(f"there is no stage {name!r}", hint=f"the stages are {', '.join(self.names)}")
        return found

    def before(self, name: str) -> tuple[Stage, ...]:
        """The stages that one is made from."""
        return self.stages[: self.stages.index(self.stage(name))]

    def up_to(self, name: str) -> tuple[Stage, ...]:
        """Those, and the stage itself."""
        return (*self.before(name), self.stage(name))

    def after(self, name: str) -> tuple[Stage, ...]:
        """The stages that are made from one."""
        return self.stages[len(self.up_to(name)) :]

    def models(self) -> dict[str, str]:
        """The word for each model that is left -> its stage."""
        return {stage.leaves.word: stage.name for stage in self.stages if stage.leaves is not None}

    def settings(self, name: str, recipe: Recipe) -> tuple[str, ...]:
        """The recipe's sections that a stage and those before it read."""
        return tuple(section for stage in self.up_to(name) for section in stage.settings(recipe))

    def with_stage(self, stage: Stage, *, after: str) -> Pipeline:
        """These stages and one more."""
        return replace(self, stages=(*self.up_to(after), stage, *self.after(after)))


def _function(named: Any) -> Any:
    """The function that "module:function" names; what is no name stays."""
    if not isinstance(named, str):
        return named
    module, _, function = named.partition(":")
    return getattr(importlib.import_module(module), function)


def _prune_reads(recipe: Recipe) -> tuple[str, ...]:
    return ("prune", "tune") if recipe.prune.epochs else ("prune",)  # they are the first epochs of one training


_BEGUN_BY_PRUNE = "prune MODEL --target ... --data ... --out {run}"
PIPELINE = Pipeline(
    (
        Stage(
            "load",
            "edgeprune.stages.load:load_stage",
            reads=("model", "data", "task"),
            leaves=Left("original"),
            runs_code=False,  # it finds out what code there is, and asks for it itself
            begun_by=_BEGUN_BY_PRUNE,
        ),
        Stage(
            "probe",
            "edgeprune.stages.probe:probe_stage",
            reads=("device", "prune.target_file"),
            begun_by=_BEGUN_BY_PRUNE,
        ),
        Stage(
            "prune",
            "edgeprune.stages.prune:prune_stage",
            reads=_prune_reads,
            leaves=Left("pruned", "edgeprune.stages.forms:pruned"),
            snapshots=("prune", "tune", "data", "device"),
            begun_by=_BEGUN_BY_PRUNE,
        ),
        Stage(
            "tune",
            "edgeprune.stages.tune:tune_stage",
            reads=("sparse", "tune"),
            needs="edgeprune.stages.tune:check_tuning",
            leaves=Left("tuned"),
            snapshots=("tune", "data", "sparse"),
            said="Re-train the pruned model.\n\nThe unpruned model is its teacher (distillation).",
        ),
        Stage(
            "merge",
            "edgeprune.stages.merge:merge_stage",
            leaves=Left("merged", "edgeprune.stages.forms:merged"),
            said="Fold batch norms, and prove that the answers stay.\n\nThey go into the convolutions before them.",
        ),
        Stage(
            "quantize",
            "edgeprune.stages.quantize:quantize_stage",
            reads=("quantize",),
            said="Choose calibration images and schemes for int8 files.",
        ),
        Stage(
            "export",
            "edgeprune.stages.export:export_stage",
            reads=("export",),
            needs="edgeprune.stages.export:require_toolkits",
            said="Write the files of a run, or of a model.\n\nEach is written in a child process, with a manifest."
            "\n\nA model (a timm name, package.module:factory or file.py:factory) is written as it is, into --out.",
        ),
        Stage(
            "verify",
            "edgeprune.stages.verify:verify_stage",
            reads=("verify",),
            said="Run a run's files, or one file, on the device, and judge.\n\nA run's files are held against the "
            "recipe's gates, one file against its manifest and the gates of --gate.",
        ),
        Stage("report", "edgeprune.stages.report:report_stage", runs_code=False),
    )
)
STAGES = PIPELINE.names
