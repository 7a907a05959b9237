"""A model is searched once in a process, whichever stages it does and whatever they rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import edgeprune.space.find as finding
from edgeprune.pipeline import do_stage
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import create_run
from edgeprune.stages.context import Context
from edgeprune.stages.probe import structure_of

FACTORY = Path(__file__).parents[1] / "pipeline" / "two_convolutions.py"
TREE: dict[str, Any] = {
    "model": {"factory": f"{FACTORY}:net", "input_size": (1, 16, 16), "untrained": True},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "tune": {"epochs": 0},
    "export": {"formats": ("onnx",)},
}


def test_all_stages_of_a_process_search_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[tuple[int, ...]] = []
    record = finding.record

    def counted(module: torch.nn.Module, example: torch.Tensor) -> Any:
        searches.append(tuple(example.shape))
        return record(module, example)

    monkeypatch.setattr(finding, "record", counted)
    context = Context(create_run(tmp_path / "run", parse_recipe(TREE), {}), Silent())
    for stage in ("load", "probe", "prune", "tune", "merge"):
        do_stage(context, stage)
    assert len(searches) == 1
    made = {stage: context.model(stage).module.state_dict() for stage in ("prune", "tune", "merge")}

    for first in ("load", "prune"):  # another process, which goes on from what lies there
        searches.clear()
        again = Context(context.run, Silent(), trust=True)
        assert again.model(first).module is again.model(first).module
        for stage, state in made.items():
            rebuilt = again.model(stage).module.state_dict()
            assert rebuilt.keys() == state.keys()
            assert all(torch.equal(rebuilt[name], value) for name, value in state.items())
        assert len(searches) == 1
        if first == "load":
            assert structure_of(again).sizes
            assert len(searches) == 1
