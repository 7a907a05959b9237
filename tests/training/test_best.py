"""Re-training never ends below its beginning: the best epoch is kept, the model before the first included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from listening import Listening
from torch import nn
from toy_training import make_net, make_split

from edgeprune.data.split import Split
from edgeprune.recipe import TuneSection
from edgeprune.training.accuracy import recalibrate_batchnorm, top1
from edgeprune.training.loop import TuneResult, tune

WILD = TuneSection(epochs=6, batch_size=32, lr=2.0, warmup=0.0, augment="crop")
HARMFUL = TuneSection(epochs=3, batch_size=32, lr=0.1, warmup=0.0, augment="none")  # with labels that are all wrong


@pytest.fixture(scope="module")
def learned() -> nn.Module:
    settings = TuneSection(epochs=8, batch_size=32, lr=0.05, augment="none")
    train = make_split(200, 1)
    return tune(make_net(), None, train, train.take(0), settings, seed=0, snapshots=None).module


def _same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _with_noise(split: Split) -> Split:
    """Labels of which a third are wrong: epochs differ by chance, and some are alike."""
    labels = split.labels.copy()
    labels[::3] = (labels[::3] + 1) % 3
    return replace(split, labels=labels)


def _wrong(split: Split) -> Split:
    return replace(split, labels=(split.labels + 1) % 3)


def _best_of(result: TuneResult) -> int:
    """The epoch that is best by what was written down; the later one of equals."""
    assert result.began is not None
    values = [result.began, *(record.validation or 0.0 for record in result.history)]
    return len(values) - 1 - int(np.argmax(values[::-1]))


def test_the_best_epoch_is_kept_and_of_equals_the_later(train: Split, validation: Split) -> None:
    few, kept = _with_noise(validation.take(24)), set()
    for seed in range(4):
        heard = Listening()
        result = tune(make_net(seed), None, train, few, WILD, seed=seed, snapshots=None, progress=heard)
        assert result.kept == _best_of(result)
        best = max(result.began or 0.0, *(record.validation or 0.0 for record in result.history))
        assert top1(result.module, few) == best
        assert [record.epoch for record in result.history if record.kept] == [result.kept] * (result.kept > 0)
        assert result.kept == 0 or f"epoch {result.kept} of 6" in heard.said[-1]
        assert f"{100 * best:.2f} %" in heard.said[-1]
        kept.add(result.kept)
    assert kept - {6}, "some training ends below its best epoch, or this test shows nothing"


def test_a_training_that_does_harm_gives_back_what_it_was_given(
    learned: nn.Module, train: Split, validation: Split
) -> None:
    heard = Listening()
    result = tune(learned, None, _wrong(train), validation, HARMFUL, seed=0, snapshots=None, progress=heard)
    assert result.kept == 0
    assert not any(record.kept for record in result.history)
    assert top1(result.module, validation) == result.began == top1(learned, validation)
    assert max(record.validation or 0.0 for record in result.history) < top1(learned, validation)
    assert _same(result.module, learned)
    assert "`lr` in [tune]" in heard.said[-1]


def test_a_model_with_old_statistics_begins_with_new_ones(learned: nn.Module, train: Split, validation: Split) -> None:
    """What pruning did to the batch norms is mended without a step, where that is better."""
    pruned = make_net()
    pruned.load_state_dict(learned.state_dict())
    nn.init.constant_(pruned[1].running_mean, 30.0)
    adapted = recalibrate_batchnorm(pruned, train, 1024)
    assert top1(adapted, validation) > top1(pruned, validation)
    result = tune(pruned, None, _wrong(train), validation, HARMFUL, seed=0, snapshots=None)
    assert result.kept == 0
    assert result.began == top1(adapted, validation)
    assert _same(result.module, adapted)


def test_the_beginning_has_its_zeros(learned: nn.Module, train: Split, validation: Split) -> None:
    masks = {"5.weight": torch.rand(learned[5].weight.shape, generator=torch.Generator().manual_seed(0)) > 0.1}
    result = tune(learned, None, _wrong(train), validation, HARMFUL, seed=0, snapshots=None, masks=masks)
    assert result.kept == 0
    assert torch.equal(result.module[5].weight, learned[5].weight.masked_fill(~masks["5.weight"], 0))
    assert result.began == top1(result.module, validation)


def test_without_validation_images_it_is_the_last(learned: nn.Module, train: Split, validation: Split) -> None:
    result = tune(learned, None, _wrong(train), validation.take(0), HARMFUL, seed=0, snapshots=None)
    assert (result.kept, result.began) == (3, None)
    assert [record.kept for record in result.history] == [False, False, True]
    assert not _same(result.module, learned)


class Stops(Listening):
    """Ends the process, as a user would, in the fourth epoch."""

    def update(self, text: str, done: float, total: float) -> None:
        if text.startswith("epoch 4/"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("first", [1, 2])
def test_an_interrupted_run_keeps_the_same_epoch(train: Split, validation: Split, tmp_path: Path, first: int) -> None:
    few, kept = _with_noise(validation.take(24)), set()
    for seed in range(4):
        folder = tmp_path / str(seed)

        def run(progress: Listening, snapshots: Path | None, seed: int = seed) -> TuneResult:
            return tune(
                *(make_net(seed), None, train, few, WILD),
                seed=seed,
                snapshots=snapshots,
                first=first,
                progress=progress,
            )

        with pytest.raises(KeyboardInterrupt):
            run(Stops(), folder)
        resumed, whole = run(Listening(), folder), run(Listening(), None)
        assert (resumed.kept, resumed.began) == (whole.kept, whole.began)
        assert _same(resumed.module, whole.module)
        assert resumed.history[0].epoch == first
        kept.add(whole.kept)
    assert kept & set(range(4)), "some training is best before it is interrupted, or this test shows nothing"
