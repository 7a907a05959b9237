"""What exchanges bring the allocator: the judged loss of its choice with and without them, and how often it judged.

    python benchmarks/exchanges.py --data ../shared/data --cache .cache/bench

CIFAR ResNets with their real weights, to shares of their multiply-accumulates (counted: no device), before training;
the loss is cross entropy on the images that choices are judged on. Writes benchmarks/results/exchanges.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cnn_nets import NETS, recipe_of
from common import ROOT, cifar10_npz, write_result

from edgeprune.data.open import open_data
from edgeprune.latency.cost import MacsCost, total
from edgeprune.methods.method import ToRank
from edgeprune.methods.registry import judge_of, method_of
from edgeprune.models.load import load_from
from edgeprune.recipe import PruneSection
from edgeprune.search.path import EXCHANGES, PathAllocator
from edgeprune.search.problem import Problem
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet

SHARES = (0.7, 0.5, 0.35)
METHODS = ("taylor", "reprune", "magnitude")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--nets", nargs="*", choices=NETS, default=["resnet20", "resnet56"])
    arguments = parser.parse_args()
    npz = cifar10_npz(arguments.data, arguments.cache.resolve())
    rows = [row for net in arguments.nets for row in of_net(net, arguments.data, npz)]
    print(f"wrote {write_result('exchanges', {'exchanges': EXCHANGES, 'rows': rows})}")


def of_net(net: str, data: Path, npz: Path) -> list[dict[str, Any]]:
    recipe = recipe_of(net, data, npz, "0.5x", 0)
    model = load_from(recipe.model)
    train = open_data(recipe.data, model.spec, seed=recipe.seed).train
    structure, costs, rows = find_structure(model.module, model.example_input()), MacsCost(), []
    whole = total(structure.layers, structure.sizes, costs)
    for method in METHODS:
        settings = PruneSection.model_validate({"target": "0.5x", "method": method})
        ranking = method_of(settings).rank(ToRank(model, structure, train, settings, recipe.seed))
        judge = judge_of(model, structure, settings, recipe.tune, train, seed=recipe.seed)
        space = Space(structure, Limits(minimum=settings.minimum_width))
        for share in SHARES:
            row: dict[str, Any] = {"net": net, "method": method, "share": share}
            for name, exchanges in (("without", 0.0), ("with", EXCHANGES)):
                judged = Counted(judge)
                started = time.perf_counter()
                allocator = PathAllocator(Problem(space, ranking, costs, judged), exchanges=exchanges)
                choice = allocator.within(share * whole)
                row[name] = {
                    "loss": choice.loss,
                    "branches": len(choice.subnet.dropped),
                    "judged": judged.count,
                    "seconds": time.perf_counter() - started,
                }
            rows.append(row)
            print(row, flush=True)
    return rows


class Counted:
    """A judge that counts how often it is asked."""

    def __init__(self, judge: Any) -> None:
        self.judge, self.count = judge, 0

    def __call__(self, subnet: Subnet) -> float:
        self.count += 1
        return float(self.judge(subnet))


if __name__ == "__main__":
    main()
