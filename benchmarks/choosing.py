"""From a recipe to the chosen subnet, without training: how long it takes, and what beginning at the difference saves.

    python benchmarks/choosing.py --data ../shared/data --cache .cache/bench

MobileNetV2 with its real ImageNet weights at 224 pixels, to half of its multiply-accumulates (counted: no device), by
Taylor and the judged allocator with the recipe's defaults, in the precision that benchmarks/mobilenetv2.py trains in
(bf16: for processors that have it) or another. Some of the models that were judged are judged again with everything
run, for the ratio. Writes benchmarks/results/choosing.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from common import ROOT, imagenet_folders, write_result
from mobilenetv2 import recipe_for

from edgeprune.data.open import open_data
from edgeprune.latency.cost import MacsCost
from edgeprune.memory import keep_freed_memory
from edgeprune.methods.method import ToRank
from edgeprune.methods.registry import judge_of, limits_of, method_of, resolved
from edgeprune.models.load import load_from
from edgeprune.search.path import PathAllocator
from edgeprune.search.prefix import Prefixes
from edgeprune.search.problem import Problem
from edgeprune.space.decisions import Space
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet

SHARE, MULTIPLE, AGAIN = 0.5, 8, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--images", type=int, default=256, help="prune.judging_images")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="tune.precision")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    recipe = recipe_for(arguments.data, imagenet_folders(arguments.data, arguments.cache.resolve()), SHARE, 0)
    tune = recipe.tune.model_copy(update={"precision": arguments.precision})
    settings = resolved(recipe.prune).model_copy(update={"branches": True, "judging_images": arguments.images})
    times: dict[str, float] = {}

    def done(what: str, since: float) -> None:
        times[what] = round(time.perf_counter() - since, 1)
        print(f"{what}: {times[what]} s", flush=True)

    start = time.perf_counter()
    model = load_from(recipe.model)
    splits = open_data(recipe.data, model.spec, seed=recipe.seed)
    done("load", start)
    since = time.perf_counter()
    structure = find_structure(model.module, model.example_input())
    done("find", since)
    since = time.perf_counter()
    ranking = method_of(settings).rank(ToRank(model, structure, splits.train, settings, recipe.seed))
    done("rank", since)
    judge = judge_of(model, structure, settings, tune, splits.train, seed=recipe.seed)
    judged: list[tuple[Subnet, float, float]] = []

    def watched(subnet: Subnet) -> float:
        began = time.perf_counter()
        loss = judge(subnet)
        judged.append((subnet, loss, time.perf_counter() - began))
        return loss

    problem = Problem(Space(structure, limits_of(settings, MULTIPLE)), ranking, MacsCost(), watched)
    since = time.perf_counter()
    judge.check()
    chosen = PathAllocator(problem).within(SHARE * problem.whole_cost)
    done("choose", since)
    done("all", start)
    skipped = judge.prefixes.skipped / (judge.prefixes.skipped + judge.prefixes.ran)
    judge.prefixes = Prefixes(model.module, structure, most_bytes=0)
    whole = []
    for subnet, loss, _ in judged[:: max(1, len(judged) // AGAIN)]:
        began = time.perf_counter()
        assert judge(subnet) == loss, "the same number, whatever is kept"
        whole.append(time.perf_counter() - began)
    each = sum(seconds for _, _, seconds in judged) / len(judged)
    result = {
        "images": arguments.images,
        "precision": arguments.precision,
        "threads": torch.get_num_threads(),
        "seconds": times,
        "judged": len(judged),
        "judged_twice_for_the_ratio": len(whole),
        "loss": chosen.loss,
        "cost": chosen.cost / problem.whole_cost,
        "blocks_skipped": round(skipped, 3),
        "seconds_a_model": {"from its difference": round(each, 3), "whole, median": round(median(whole), 3)},
        "ratio": round(each / (sum(whole) / len(whole)), 3),
    }
    print(result)
    print(f"wrote {write_result('choosing', result)}")


if __name__ == "__main__":
    main()
