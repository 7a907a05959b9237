"""How long finding units takes: EdgePrune and Torch-Pruning in turns, in one process, processor time.

    python benchmarks/finding.py --families ../shared/bench/timm_families.json --cache .cache/finding.json

Set OMP_NUM_THREADS=1. Of every family of which benchmarks/results/coverage.json has a time of both sides. Ours is
`find_structure`, with all of its trials; theirs is the making of its pruner, as in `coverage_torch_pruning` (the first
of its attempts that ends). Families that are in --cache are not timed again. Prints a line for each and the sums.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from pathlib import Path
from typing import Any

import torch
from coverage_models import build, read_families
from coverage_torch_pruning import _prune, attempts, attention_projections
from torch import Tensor, nn

from edgeprune.graph.trace import TRACE_ERRORS
from edgeprune.space.find import find_structure

KNOWN = Path(__file__).parent / "results" / "coverage.json"


class Found(Exception):
    """Torch-Pruning has found its groups: the rest is not timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=Path, required=True, help="timm_families.json")
    parser.add_argument("--cache", type=Path, required=True, help="where the times are kept (made)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times: dict[str, dict[str, float | None]] = {}
    if arguments.cache.exists():
        times = json.loads(arguments.cache.read_text())
    timed = {name for name, known in json.loads(KNOWN.read_text())["families"].items() if _of_both(known)}
    for family in read_families(arguments.families):
        if family.name in times or family.name not in (arguments.only or timed):
            continue
        module, example = build(family)
        times[family.name] = {"edgeprune": _ours(module, example), "torch_pruning": _theirs(module, example)}
        arguments.cache.write_text(json.dumps(times, indent=1) + "\n")
        print(family.name, times[family.name], flush=True)
    both = [one for one in times.values() if None not in one.values()]
    sums = {side: round(sum(one[side] or 0.0 for one in both), 1) for side in ("edgeprune", "torch_pruning")}
    print(f"{len(both)} families: {sums}, {sums['edgeprune'] / sums['torch_pruning']:.2f} times as long")


def _of_both(known: dict[str, Any]) -> bool:
    return all(known.get(side, {}).get("find_cpu_s") is not None for side in ("edgeprune", "torch_pruning"))


def _ours(module: nn.Module, example: Tensor) -> float:
    gc.collect()
    begin = time.process_time()
    find_structure(module, example)
    return time.process_time() - begin


def _theirs(module: nn.Module, example: Tensor) -> float | None:
    """With fused attention off, as its examples have it; None where no attempt ends."""
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if getattr(part, "fused_attn", None) is True:
            part.fused_attn = False  # type: ignore[assignment]

    def at(stage: str) -> None:
        if stage == "pruning":
            raise Found

    for attempt in attempts(bool(attention_projections(plain))):
        gc.collect()
        result: dict[str, Any] = {}
        try:
            _prune(copy.deepcopy(plain), example, attempt, result, at)
        except (Found, *TRACE_ERRORS):
            if "find_cpu_s" in result:
                return float(result["find_cpu_s"])
    return None


if __name__ == "__main__":
    main()
