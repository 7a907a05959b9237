"""A run of a model with nn.MultiheadAttention: it is said, and built again from its folder; old folders, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from encoder import Net
from small_jobs import Hearer, recipe

import edgeprune
from edgeprune.models.attention import written_plainly
from edgeprune.models.checkpoint import save_state
from edgeprune.models.spec import Model
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.runs import Run
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet
from edgeprune.stages.context import Context

FACTORY = f"{Path(__file__).with_name('encoder.py')}:Net"


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[Run, Model, list[str]]:
    said: list[str] = []
    run = prepare_run(recipe(model={"factory": FACTORY, "input_size": (1, 16, 16)}), tmp_path / "run", resume=False)
    context = Context(run, Hearer(said))
    do_stage(context, "load")
    return run, context.model("load"), said


def test_the_run_is_built_again_and_a_plan_fits_it(loaded: tuple[Run, Model, list[str]]) -> None:
    run, model, said = loaded
    assert "2 nn.MultiheadAttention written as plain layers" in said
    again, x = edgeprune.load(run.folder, stage="load"), model.example_input(2)
    structure = find_structure(model.module, x)
    removed = {group.id: (0,) for group in structure.groups if ".self_attn:" in group.id}
    assert len(removed) == 6
    plan = make_plan("net", model.module, structure, Subnet(removed, ("encoder.layers.1.dropout1:branch",)))
    with torch.no_grad():
        assert torch.equal(again.module(x), model.module(x))
        assert torch.equal(apply_plan(again.module, plan, x)(x), apply_plan(model.module, plan, x)(x))


def test_a_run_from_before_keeps_torchs_module(loaded: tuple[Run, Model, list[str]]) -> None:
    """Its spec names no such modules, and its weights are those of torch's."""
    run, _, _ = loaded
    folder, record = run.stage_folder("load"), run.record("load")
    assert record is not None
    spec = json.loads((folder / "spec.json").read_text())
    assert len(spec.pop("written_plainly")) == 2
    (folder / "spec.json").write_text(json.dumps(spec))
    torch.manual_seed(5)
    original = Net().eval()
    save_state(folder / "model.safetensors", original)
    run.finish("load", settings=record.settings, seconds=record.seconds, result=record.result)
    again = edgeprune.load(run.folder, stage="load")
    assert written_plainly(again.module) == ()
    with torch.no_grad():
        assert torch.equal(again.module(again.example_input()), original(again.example_input()))
