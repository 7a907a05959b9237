"""Methods for transformers, from a recipe to proven files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facts import refused
from small_jobs import Hearer, recipe

import edgeprune
from edgeprune.errors import ModelError, RecipeError
from edgeprune.recipe import Recipe

FACTORY = f"{Path(__file__).with_name('vit_net.py')}:net"
ASKED: dict[str, Any] = {"target": "0.16MMACs", "method": "nvit", "granularity": 2, "minimum_width": 2}


def asked(**prune: Any) -> Recipe:
    return recipe(
        model={"factory": FACTORY, "input_size": (1, 16, 16), "untrained": True},
        prune={**ASKED, **prune},
        tune={"epochs": 3, "lr": 0.02},
    )


def test_nvit_prunes_while_the_model_trains_and_an_interrupted_run_comes_to_the_same(tmp_path: Path) -> None:
    wanted = asked(epochs=3, interval=1)
    said: list[str] = []
    whole = edgeprune.run(wanted, tmp_path / "whole", progress=Hearer(said))
    turns = [text for text in said if text.startswith("turn")]
    assert [text.split(":")[0] for text in turns] == ["turn 1", "turn 2", "turn 3"]
    for stop in ("turn 2", "turn 3"):
        with pytest.raises(KeyboardInterrupt):
            edgeprune.run(wanted, tmp_path / "stopped", resume=stop != "turn 2", progress=Hearer([], stop_at=stop))
    stopped = edgeprune.run(wanted, tmp_path / "stopped", resume=True, progress=Hearer([]))
    plans = [edgeprune.read_plan(one.folder / "prune" / "plan.json").subnet for one in (whole, stopped)]
    assert plans[0] == plans[1]
    assert plans[0].units
    assert whole.verdict.outcome == "pass"


def test_nvit_without_training_scores_on_training_images(tmp_path: Path) -> None:
    outcome = edgeprune.run(asked(nvit={"scoring_batches": 1}), tmp_path / "run", progress=Hearer([]))
    assert edgeprune.read_plan(outcome.folder / "prune" / "plan.json").subnet.units


def test_what_a_second_is_worth_is_refused_where_the_target_is_no_latency(tmp_path: Path) -> None:
    with refused(RecipeError, "prune.nvit.eta", "0.16MMACs"):
        edgeprune.run(asked(nvit={"eta": 5e-4}), tmp_path / "run", progress=Hearer([]))


def test_isomorphic_takes_of_every_block(tmp_path: Path) -> None:
    outcome = edgeprune.run(asked(method="isomorphic"), tmp_path / "run", progress=Hearer([]))
    units = edgeprune.read_plan(outcome.folder / "prune" / "plan.json").subnet.units
    assert {"patch_embed.proj:out", "blocks.0.attn:qk", "blocks.1.attn:v"} <= units.keys()


def test_nvit_refuses_a_model_without_attention(tmp_path: Path) -> None:
    with refused(ModelError, "attention"):
        edgeprune.run(recipe(prune={"method": "nvit"}), tmp_path / "run", progress=Hearer([]))
