"""A run that lets a squeeze-excitation gate go: in its place a constant from the data, and nothing in the files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from facts import refused

import edgeprune
from edgeprune.errors import RecipeError
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import open_run
from edgeprune.space.gates import UNSET, ConstantGate
from edgeprune.space.plan import read_plan
from edgeprune.stages.context import Context

TREE = {
    "model": {
        "factory": f"{Path(__file__).parents[1] / 'space' / 'gated.py'}:net",
        "input_size": (1, 16, 16),
        "untrained": True,
    },
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    # 898 parameters are the least with the gate
    "prune": {"target": "0.85kparams", "method": "magnitude", "scoring_batches": 1, "squeeze_excitation": True},
    "tune": {"epochs": 0},
    "quantize": {"enabled": False},
    "export": {"formats": ("onnx",)},
    "verify": {"images": 16},
}


def test_a_gate_goes_and_leaves_its_mean(tmp_path: Path) -> None:
    outcome = edgeprune.run(parse_recipe(TREE), tmp_path / "run")
    assert outcome.verdict.outcome == "pass"
    plan = read_plan(outcome.folder / "prune" / "plan.json")
    assert plan.subnet.dropped == ("3:gate",)
    pruned = Context(open_run(outcome.folder), Silent()).model("prune").module
    constant = pruned.get_submodule("3.gate")
    assert isinstance(constant, ConstantGate)
    assert float((constant.value - UNSET).abs().min().detach()) > 1e-6  # taken from the data
    assert torch.isfinite(constant.value).all()
    graph = onnx.load(next(outcome.folder.rglob("*.onnx"))).graph
    kinds = [node.op_type for node in graph.node]
    assert not {"Mul", "Sigmoid"}.intersection(kinds)
    assert kinds.count("ReduceMean") == 1  # the net's own, at its end


@pytest.mark.parametrize("other", [{"allocator": "uniform"}, {"epochs": 2}])
def test_where_no_gate_can_go_asking_for_it_is_refused(other: dict[str, object]) -> None:
    with refused(RecipeError, "`squeeze_excitation`"):
        parse_recipe({**TREE, "prune": {**TREE["prune"], **other}})
