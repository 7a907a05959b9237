"""200 mutated run folders: each is shown, loaded and gone on with, or refused in our own words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mutations import SEED, Judge, Mutator

from edgeprune import api
from edgeprune.checksum import file_sha256
from edgeprune.pipeline import is_finished, prepare_run, require_earlier
from edgeprune.progress import Silent
from edgeprune.recipe_file import read_recipe
from edgeprune.runs import create_run, open_run
from edgeprune.space.find import find_structure
from edgeprune.space.plan import Narrowed, Plan
from edgeprune.stages.context import Context
from edgeprune.stages.stage import STAGES

COUNT = 200
FACTORY = """
from torch import nn


def tiny(width=8):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )
"""
RECIPE = """
[model]
factory = "tiny.py:tiny"
input_size = [1, 8, 8]
untrained = true
[data]
source = "digits"
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first stages are finished as the pipeline finishes them."""
    from edgeprune.models.checkpoint import save_state
    from edgeprune.pipeline import _recorded_data, _settings, do_stage
    from edgeprune.space.apply import apply_plan

    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.py").write_text(FACTORY)
    (folder / "recipe.toml").write_text(RECIPE)
    run = create_run(folder / "run", read_recipe(folder / "recipe.toml"), {})
    context = Context(run, Silent())
    do_stage(context, "load")
    data = _recorded_data(run)
    (run.clear("probe") / "note.json").write_text("{}")
    run.finish("probe", settings=_settings(run, "probe", data), seconds=1.0, result={})
    model = context.model("load")
    structure = find_structure(model.module, model.example_input())
    group, size = next(iter(structure.sizes.items()))
    decisions = {group: Narrowed(size=size, removed=(0, 3))}
    parameters = sum(p.numel() for p in model.module.parameters())
    plan = Plan(base=model.spec.source, base_parameters=parameters, decisions=decisions)
    made = run.clear("prune")
    (made / "plan.json").write_text(plan.model_dump_json(indent=1))
    save_state(made / "model.safetensors", apply_plan(model.module, plan, model.example_input()))
    run.finish("prune", settings=_settings(run, "prune", data), seconds=1.0, result={})
    return run.folder


def use(folder: Path) -> None:
    """`show`, `edgeprune.load`, and `run --resume` up to the first stage that would be done."""
    from edgeprune.cli import show as shown

    shown._run(folder)
    api.load(folder)
    run = open_run(folder)
    for stage in STAGES[:3]:
        if not is_finished(run, stage):
            require_earlier(run, stage)
            break
    prepare_run(run.recipe, folder, resume=True)


def stamp(folder: Path) -> None:
    """Let the records agree with the files, as somebody who changes a run on purpose would."""
    for record in folder.glob("*/stage.json"):
        body = json.loads(record.read_bytes())
        for file in body["files"]:
            there = record.parent / file["path"]
            file |= {"size": there.stat().st_size, "sha256": file_sha256(there)}
        record.write_text(json.dumps(body))


def test_the_whole_run(whole: Path) -> None:
    use(whole)


def test_mutated_run_folders(whole: Path, tmp_path: Path) -> None:
    mutator, judge = Mutator(SEED), Judge()
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.name != ".lock")
    for number in range(COUNT):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        chosen = folder / mutator.random.choice(files)
        content = chosen.read_bytes()
        chosen.write_bytes(mutator.json(content) if chosen.suffix == ".json" else mutator.bytes(content))
        if chosen.name != "stage.json" and number % 3:
            stamp(folder)
        judge.look(lambda folder=folder: use(folder), (number, chosen, chosen.read_bytes()[:3000]))  # type: ignore[misc]
    judge.saw_both(5)
