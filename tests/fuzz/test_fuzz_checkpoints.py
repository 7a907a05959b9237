"""100 mutated checkpoints: each is read, or refused in our own words; none is executed."""

from __future__ import annotations

from pathlib import Path

import torch
from mutations import SEED, Judge, Mutator
from safetensors.torch import save_file
from torch import nn

from edgeprune.models.checkpoint import load_state

COUNT = 100


def test_mutated_checkpoints(tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(4, 3), "a.bias": torch.zeros(4)}
    save_file(state, tmp_path / "0.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "1.pth")
    torch.save(state, tmp_path / "2.pt", _use_new_zipfile_serialization=False)
    whole = [(path.suffix, path.read_bytes()) for path in sorted(tmp_path.iterdir())]
    mutator, judge = Mutator(SEED), Judge()
    module = nn.ModuleDict({"a": nn.Linear(3, 4)})
    for number in range(COUNT):
        suffix, content = whole[number % len(whole)]
        path = tmp_path / f"x{suffix}"
        path.write_bytes(mutator.bytes(content))
        judge.look(lambda path=path: load_state(module, path), (number, suffix))  # type: ignore[misc]
    judge.saw_both(5)
