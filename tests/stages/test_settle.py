"""What the prune stage makes of a cut model before it is trained: fitted where that helps, as it was cut where not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgeprune.pipeline import do_stage
from edgeprune.recipe import parse_recipe
from edgeprune.runs import STAGES, create_run
from edgeprune.stages.context import Context
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.settle import Reconstruction
from edgeprune.structure.surgery import apply_plan

FACTORY = Path(__file__).parents[1] / "pipeline" / "two_convolutions.py"
TREE: dict[str, Any] = {
    "model": {"factory": f"{FACTORY}:net", "input_size": (1, 16, 16)},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "export": {"formats": ("onnx",)},
}


class Heard:
    """Keeps what a job says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, name: str) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, text: str, done: float, total: float) -> None: ...


def pruned(folder: Path, images: int, **more: Any) -> tuple[Context, PruneRecord, list[str]]:
    heard = Heard()
    recipe = parse_recipe({**TREE, "prune": {**TREE["prune"], "reconstruct": images, **more}})
    context = Context(create_run(folder, recipe, {}), heard)
    for stage in STAGES[: STAGES.index("prune") + 1]:
        do_stage(context, stage)
    record = PruneRecord.model_validate_json(context.file("prune", "prune.json").read_bytes())
    return context, record, heard.said


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_what_stays_is_fitted_and_the_gain_is_told(tmp_path: Path) -> None:
    context, record, said = pruned(tmp_path / "run", 200)
    found = record.reconstruction
    assert found is not None
    assert (found.images, found.layers) == (200, 3)
    assert found.words in said
    whole = context.model("load")
    cut = apply_plan(whole.module, context.plan, whole.example_input())
    same = same_weights(cut, context.model("prune").module)
    assert same is not found.kept
    reread = Context(context.run, Heard()).model("prune").module
    assert same_weights(reread, context.model("prune").module)


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    context, record, said = pruned(tmp_path / "run", 0)
    assert record.reconstruction is None
    assert not any("reconstruct" in text for text in said)
    whole = context.model("load")
    cut = apply_plan(whole.module, context.plan, whole.example_input())
    assert same_weights(cut, context.model("prune").module)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(2.0, 1.0, "14 layers reconstructed"), (1.0, 1.0, "does not help"), (1.0, float("nan"), "does not help")],
)
def test_a_loss_that_does_not_fall_leaves_the_weights(before: float, after: float, words: str) -> None:
    assert words in Reconstruction(images=256, layers=14, loss_before=before, loss_after=after).words


def test_a_loss_that_is_no_number_is_read_as_it_was_written() -> None:
    found = Reconstruction(images=256, layers=14, loss_before=float("inf"), loss_after=float("nan"))
    reread = Reconstruction.model_validate_json(found.model_dump_json())
    assert (reread.loss_before, reread.loss_after) == (math.inf, pytest.approx(math.nan, nan_ok=True))


@pytest.mark.parametrize("judging", [256, 100_000])
def test_no_image_is_fitted_on_and_judged_by(tmp_path: Path, judging: int) -> None:
    """All training images are asked for to fit on: it gets those that do not judge, which are a quarter at most."""
    context, record, _ = pruned(tmp_path / "run", 100_000, judging_images=judging)
    assert record.reconstruction is not None
    there = len(context.splits.train)
    assert there - record.reconstruction.images == min(256, there // 4 // 128 * 128)
