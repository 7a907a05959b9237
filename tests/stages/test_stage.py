"""Stages as objects: what follows from one, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from torch import nn

import edgeprune
import edgeprune.verbs
from edgeprune.errors import RunError, UsageError
from edgeprune.models.checkpoint import save_state
from edgeprune.models.spec import Model
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.stages.context import Context
from edgeprune.stages.stage import PIPELINE, WEIGHTS, Left, Pipeline, Stage

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from small_jobs import Listener, recipe


def doubled(_: Context, model: Model) -> Model:
    return model.with_module(nn.Sequential(model.module, nn.Linear(10, 20)))


def double(context: Context, folder: Path) -> dict[str, Any]:
    module = doubled(context, context.model("load")).module
    save_state(folder / WEIGHTS, module)
    return {}


def refuse(_: object) -> None:
    raise UsageError("no saw is installed")


LOAD = PIPELINE.stage("load")
DOUBLE = Stage("double", double, reads=("prune",), leaves=Left("doubled", doubled))


def test_what_the_house_names_is_there() -> None:
    for stage in PIPELINE:
        stage.check(recipe())
        for named in (stage.does, stage.leaves and stage.leaves.form):
            if isinstance(named, str):
                module, function = named.split(":")
                __import__(module)
                assert callable(getattr(sys.modules[module], function))


def test_a_stage_that_leaves_a_model_is_rebuilt_from_its_file(tmp_path: Path) -> None:
    short = Pipeline((LOAD, DOUBLE))
    assert short.models() == {"original": "load", "doubled": "double"}
    run = prepare_run(recipe(), tmp_path / "run", resume=False)
    for name in short.names:
        do_stage(Context(run, Listener(), trust=True, pipeline=short), name)
    x = torch.randn(2, 1, 16, 16)
    first, second = (Context(run, Listener(), trust=True, pipeline=short).model("double").module(x) for _ in range(2))
    assert first.shape == (2, 20)
    assert torch.equal(first, second)


def test_needs_are_told_before_anything_is_done(tmp_path: Path) -> None:
    saw = Stage("saw", double, needs=refuse)
    listener = Listener()
    with refused(UsageError, "no saw"):
        edgeprune.run(recipe(), tmp_path / "run", progress=listener, pipeline=PIPELINE.with_stage(saw, after="report"))
    assert listener.stages == []


def test_a_stage_waits_for_those_before_it(tmp_path: Path) -> None:
    run = prepare_run(recipe(), tmp_path / "run", resume=False)
    with pytest.raises(RunError) as caught:
        do_stage(Context(run, Listener(), trust=True, pipeline=Pipeline((LOAD, DOUBLE))), "double")
    assert "load" in caught.value.what
    assert "edgeprune prune MODEL" in str(caught.value.hint)


def test_names_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="sawing"):
        PIPELINE.stage("sawing")
    with refused(UsageError, "load"):
        Pipeline((LOAD, LOAD))
    for name in ("../load", "", "a b"):
        with pytest.raises(UsageError):
            Stage(name, double)
        with pytest.raises(UsageError):
            Left(name)


def test_settings_given_to_a_stage_that_has_none(tmp_path: Path) -> None:
    run = prepare_run(recipe(), tmp_path / "run", resume=False)
    with pytest.raises(UsageError, match="lr"):
        edgeprune.verbs.do(run, "merge", lr=1.0)
