"""Several processes end where one does, to the rounding of a sum."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from listening import Listening
from safetensors.torch import load_file
from torch import Tensor
from trained_together import trained

from edgeprune.recipe import TuneSection

HERE = Path(__file__).parent
SETTINGS = TuneSection(epochs=3, batch_size=33, lr=0.05)  # an odd batch, and a split that it does not divide
CLOSE = 1e-6


@dataclass(frozen=True)
class Two:
    state: dict[str, Tensor]
    told: dict[str, Any]


def by_two(out: Path, settings: TuneSection, *more: str, interrupted: bool = False) -> Two | None:
    """What a training by two processes gives; None where it is interrupted."""
    paths = [os.environ.get("PYTHONPATH", ""), str(HERE), str(HERE.parent)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, str(HERE / "trained_together.py"), str(out), settings.model_dump_json()]
    done = subprocess.run([*command, *more], check=False, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode != 0) == interrupted, done.stderr[-3000:]
    return None if interrupted else Two(load_file(out), json.loads(out.with_suffix(".json").read_text()))


@pytest.mark.parametrize("asked", [{}, {"clip": 0.5, "ema": 0.9, "features": 0.3, "layer_decay": 0.8}])
def test_two_processes_end_where_one_does(tmp_path: Path, asked: dict[str, Any]) -> None:
    settings, heard = SETTINGS.model_copy(update=asked), Listening()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = trained(settings, heard, None)
    finally:
        torch.set_num_threads(threads)
    two = by_two(tmp_path / "two.safetensors", settings)
    assert two is not None
    assert (one.processes, two.told["processes"]) == (1, 2)
    state = one.module.state_dict()
    assert state.keys() == two.state.keys()
    assert max(float((state[name].double() - two.state[name].double()).abs().max()) for name in state) < CLOSE
    assert (two.told["kept"], two.told["began"]) == (one.kept, one.began)
    for first, second in zip(one.history, two.told["history"], strict=True):
        assert second["loss"] == pytest.approx(first.loss, abs=1e-5)
        same = ("epoch", "validation", "train", "lr", "kept")
        assert [second[key] for key in same] == [getattr(first, key) for key in same]
    assert len(two.told["said"]) == len(heard.said)


def test_an_interrupted_training_goes_on_in_all_processes(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    by_two(tmp_path / "cut.safetensors", SETTINGS, str(folder), "3", interrupted=True)
    assert sorted(path.name for path in folder.glob("*.json")) == ["epoch-0001.json", "epoch-0002.json"]
    resumed = by_two(tmp_path / "resumed.safetensors", SETTINGS, str(folder))
    whole = by_two(tmp_path / "whole.safetensors", SETTINGS)
    assert resumed is not None
    assert whole is not None
    assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
    assert [record["epoch"] for record in resumed.told["history"]] == [1, 2, 3]
