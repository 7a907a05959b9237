"""Train the small CNN on the embedded digits: a checkpoint to try EdgePrune on, without a download.

python examples/train_digits.py digits.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgeprune.data.open import open_data
from edgeprune.errors import EdgePruneError
from edgeprune.models.checkpoint import save_state
from edgeprune.models.load import load
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection, TuneSection
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune

FACTORY = f"{Path(__file__).resolve().parent / 'small_cnn.py'}:small_cnn"


def train(out: Path, *, epochs: int, channels: int, seed: int) -> float:
    """Train, save, and return the accuracy on the test digits."""
    model = load(FACTORY, arguments={"channels": channels}, input_size=(channels, 32, 32))
    data = open_data(DataSection(source="digits", validation_images=100, calibration_images=100), model.spec, seed=seed)
    settings = TuneSection(epochs=epochs, batch_size=64, lr=0.1, augment="crop", distillation=0)
    tuned = tune(model.module, None, data.train, data.validation, settings, seed=seed, snapshots=None, progress=Lines())
    save_state(out, tuned.module)
    return top1(tuned.module, data.test)


class Lines(Silent):
    """Each epoch as a line."""

    def say(self, text: str) -> None:
        print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--channels", type=int, default=1, choices=(1, 3))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        accuracy = train(given.out, epochs=given.epochs, channels=given.channels, seed=given.seed)
    except EdgePruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{given.out}: {accuracy:.1%} of the test digits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
