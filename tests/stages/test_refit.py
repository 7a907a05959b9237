"""What the prune stage makes of a cut model before it is trained: fitted where that helps, as it was cut where not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import edgeprune
from edgeprune.data.open import open_data
from edgeprune.methods.refit import Reconstruction
from edgeprune.pipeline import do_stage
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import create_run
from edgeprune.space.apply import apply_but_gates, apply_plan
from edgeprune.stages.context import Context
from edgeprune.stages.probe import structure_of
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.stage import STAGES
from edgeprune.training.reconstruct import adapt_norms

FACTORY = Path(__file__).parents[1] / "pipeline" / "two_convolutions.py"
TREE: dict[str, Any] = {
    "model": {"factory": f"{FACTORY}:net", "input_size": (1, 16, 16), "untrained": True},
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


def pruned(
    folder: Path, images: int, *, model: dict[str, Any] | None = None, **more: Any
) -> tuple[Context, PruneRecord, list[str]]:
    heard = Heard()
    prune = {**TREE["prune"], "reconstruct": images, **more}
    recipe = parse_recipe({**TREE, "model": model or TREE["model"], "prune": prune})
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


def test_a_gate_leaves_what_it_answers_in_the_cut_model(tmp_path: Path) -> None:
    """Where channels before it go, too, its mean is taken with batch norms that know that."""
    torch.manual_seed(0)
    deep = f"{Path(__file__).parents[1] / 'space' / 'gated.py'}:deep"
    model = {"factory": deep, "input_size": (1, 16, 16), "untrained": True}
    made = edgeprune.load(deep, input_size=(1, 16, 16))
    net, data = made.module, parse_recipe(TREE).data
    seen = open_data(data, made.spec, seed=0).train
    images = torch.cat([batch for batch, _ in seen.take(256).batches(256)])
    adapt_norms(net, images)  # as training would leave them
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model["checkpoint"] = str(tmp_path / "net.safetensors")
    context, record, _ = pruned(tmp_path / "run", 0, target="1kparams", squeeze_excitation=True, model=model)
    assert record.branches == ("6:gate",)
    structure, whole = structure_of(context), context.model("load").module
    subnet = context.plan.subnet
    assert subnet.units
    narrow, answers = apply_but_gates(whole, structure, subnet), list[torch.Tensor]()
    narrow.get_submodule("6.gate").register_forward_hook(lambda _, __, out: answers.append(out.mean((0, 2, 3))))
    with torch.no_grad():
        narrow.eval()(images)
        narrow.train()(images)
    constant = context.model("prune").module.get_submodule("6.gate").value.detach().flatten()
    stale, fresh = ((constant - answer).abs().max() for answer in answers)
    assert fresh < 1e-5
    assert stale > 1e-3


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
    few = min(judging, there // 4)
    batches = max(1, round(few / 128))
    assert there - record.reconstruction.images == few // batches * batches
