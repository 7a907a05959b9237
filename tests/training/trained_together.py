"""A training of a small net, in each process that torchrun begins: the main one writes down what came of it.

    torchrun --nproc-per-node 2 trained_together.py OUT SETTINGS [FOLDER [EPOCH]]

With a FOLDER it writes snapshots there, and is interrupted in EPOCH.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from listening import Listening
from safetensors.torch import save_file
from toy_training import make_net, make_split

from edgeprune.launch import is_main
from edgeprune.recipe import TuneSection
from edgeprune.training.loop import TuneResult, tune


class Stops(Listening):
    def __init__(self, epoch: str) -> None:
        super().__init__()
        self._epoch = epoch

    def update(self, text: str, done: float, total: float) -> None:
        if text.startswith(f"epoch {self._epoch}/"):
            sys.exit(7)


def trained(settings: TuneSection, progress: Listening, snapshots: Path | None) -> TuneResult:
    return tune(
        make_net(dropout=0.0),
        make_net(1, dropout=0.0),
        make_split(203, 1),
        make_split(121, 2),
        settings,
        seed=3,
        snapshots=snapshots,
        progress=progress,
    )


def main() -> None:
    torch.set_num_threads(1)
    out, settings, *more = sys.argv[1:]
    progress = Stops(more[1] if len(more) > 1 else "none")
    result = trained(TuneSection.model_validate_json(settings), progress, Path(more[0]) if more else None)
    if is_main():
        save_file(result.module.state_dict(), out)
        told = {"history": [record.model_dump() for record in result.history], "kept": result.kept}
        told |= {"began": result.began, "processes": result.processes, "said": progress.said}
        Path(out).with_suffix(".json").write_text(json.dumps(told))
    else:
        assert not progress.said


if __name__ == "__main__":
    main()
