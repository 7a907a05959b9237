"""Few steps of training: how long the learning rate rises decides whether a pruned model is helped or harmed.

    python benchmarks/few_steps.py --data ../shared/data --cache .cache/bench

ResNet-20 with its author's weights is pruned to 0.5x of its latency on this machine once (Taylor, reconstructed), and
trained for 3 epochs on few of its training images, at two rates, from several seeds (one, on 10,000 images):
with the rate rising over 5 % of the steps (`before`), by 0.0005 a step or over half of them (`slow`), and so but to no
more than 0.05 sqrt(steps / 250) (`low`, as it is). Top-1 on the 10,000 test images, before and after, with the running
statistics of batch norms as training leaves them and taken anew from training images (`adapted`, as it is in fewer than
250 steps). One process a core, one thread each. Writes benchmarks/results/few_steps.json; it resumes.
"""

from __future__ import annotations

import argparse
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cnn_nets import recipe_of
from common import ROOT, Lines, cifar10_npz, keep_row, workers, write_result

from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.runs import lock, open_run
from edgeprune.stages.context import Context
from edgeprune.stages.stage import STAGES
from edgeprune.training import loop, schedule, trainer
from edgeprune.training.accuracy import recalibrate_batchnorm, top1
from edgeprune.training.best import ADAPTED_ON

NET, EPOCHS = "resnet20", 3
IMAGES, RATES = (1000, 3000, 10_000), (0.05, 0.015)
WAYS: dict[str, dict[str, Any]] = {  # what of the loop is as it was
    "before": {
        "rising_steps": lambda settings, total: round(settings.warmup * total),
        "peak_rate": lambda settings, _: settings.lr,
    },
    "slow": {"peak_rate": lambda settings, _: settings.lr},
    "low": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    root = cache / "few_steps"
    recipe = recipe_of(NET, arguments.data, cifar10_npz(arguments.data, cache), "0.5x", EPOCHS)
    with lock(root / "run"):
        context = Context(prepare_run(recipe, root / "run", resume=True), Lines())
        for stage in STAGES[: STAGES.index("tune")]:
            do_stage(context, stage)
    seeds = {images: arguments.seeds[: 1 if images == max(IMAGES) else None] for images in IMAGES}
    todo = [(n, rate, way, seed) for n, rate, way in itertools.product(IMAGES, RATES, WAYS) for seed in seeds[n]]
    with workers() as pool:
        rows = list(pool.map(partial(trained, root), todo))
    before = {name: top1(context.model(name).module, context.splits.test) for name in ("load", "prune")}
    figures = {"original": before["load"], "pruned": before["prune"], "rows": rows}
    print(f"wrote {write_result('few_steps', {'net': NET, 'target': '0.5x', 'epochs': EPOCHS, **figures})}")


def trained(root: Path, setting: tuple[int, float, str, int]) -> dict[str, Any]:
    """One training: on so many images, at a rate that rises one way, from a seed."""
    images, rate, way, seed = setting
    done = root / f"images-{images}-rate-{rate}-{way}-seed-{seed}.json"
    if not done.exists():
        context = Context(open_run(root / "run"), Silent())
        settings = context.recipe.tune.model_copy(update={"lr": rate})
        train, none = context.splits.train.take(images), context.splits.validation.take(0)
        with patch.object(trainer, "SHORT", 0), patch.multiple(schedule, **WAYS[way]):
            result = loop.tune(
                context.model("prune").module,
                context.model("load").module,
                train,
                none,
                settings,
                seed=seed,
                snapshots=None,
            )
            steps = EPOCHS * (images // settings.batch_size)
            rates = {"rising": schedule.rising_steps(settings, steps), "peak": schedule.peak_rate(settings, steps)}
        row = {"images": images, "rate": rate, "way": way, "seed": seed, "steps": steps, **rates}
        adapted = recalibrate_batchnorm(result.module, train, ADAPTED_ON)
        found = {"top1": top1(result.module, context.splits.test), "adapted": top1(adapted, context.splits.test)}
        keep_row(done, {**row, **found})
    row = json.loads(done.read_text())
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
