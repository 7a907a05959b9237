"""Training and pruning in turns: one training in all, whatever goes, comes back, or interrupts it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import make_net

from edgeprune.data.split import Split
from edgeprune.recipe import TuneSection
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure
from edgeprune.training.loop import tune
from edgeprune.training.turns import Trained, Turn, share_on_the_way, train_in_turns, turns

SETTINGS = TuneSection(epochs=5, batch_size=32, lr=0.05, augment="crop", distillation=0.5)
OUT = "0:out"


def _structure(net: nn.Module) -> Structure:
    return find_structure(net, torch.randn(2, 1, 8, 8))


def _run(train: Split, validation: Split, choose: object, folder: Path | None = None, **more: int) -> Trained:
    net = make_net()
    settings = {"epochs": 4, "interval": 2, "seed": 3} | more
    return train_in_turns(
        net,
        _structure(net),
        choose,  # type: ignore[arg-type]
        train,
        validation,
        SETTINGS,
        snapshots=folder,
        **settings,  # type: ignore[arg-type]
    )


def test_turns_cover_the_epochs_and_end_before_the_goal() -> None:
    assert turns(5, 2) == (
        Turn(1, 1, 2, 0.0, 0.25),
        Turn(2, 3, 2, 0.4, 0.5),
        Turn(3, 5, 1, 0.8, 0.75),
    )
    assert [share_on_the_way(0.25, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.25])


def test_with_nothing_gone_it_is_the_first_part_of_one_training(train: Split, validation: Split) -> None:
    """Cutting out, putting back, and the momentum between turns change no weight; `tune` ends the same cycle."""
    turned = _run(train, validation, lambda *_: WHOLE, interval=1, epochs=5)
    none = validation.take(0)  # so that the last epoch is kept
    one = tune(make_net(), make_net(), train, none, SETTINGS, seed=3, snapshots=None)
    assert all(torch.equal(dict(turned.module.named_parameters())[n], t) for n, t in one.module.named_parameters())
    assert [e.loss for e in turned.history] == [e.loss for e in one.history]
    rest = tune(turned.module, None, train, none, SETTINGS, seed=3, snapshots=None, first=6)
    assert rest.history == ()
    assert all(torch.equal(rest.module.state_dict()[n], t) for n, t in one.module.state_dict().items())
    last = tune(make_net(), None, train, validation, SETTINGS, seed=3, snapshots=None, first=5)
    assert [e.epoch for e in last.history] == [5]
    assert last.history[0].lr == one.history[4].lr


def test_what_is_gone_keeps_its_weights_until_it_comes_back(train: Split, validation: Split) -> None:
    seen: list[tuple[dict[str, torch.Tensor], Subnet]] = []

    def choose(whole: nn.Module, gone: Subnet, turn: Turn) -> Subnet:
        seen.append((copy.deepcopy(whole.state_dict()), gone))
        return Subnet({OUT: (1, 2)}) if turn.number == 1 else Subnet({OUT: (2, 5)})

    trained = _run(train, validation, choose)
    (first, none), (second, was) = seen
    assert none == WHOLE
    assert was == Subnet({OUT: (1, 2)})
    end = trained.module.state_dict()
    for name in ("0.weight", "1.weight", "1.running_mean"):
        assert torch.equal(first[name][[1, 2]], second[name][[1, 2]])
        assert not torch.equal(first[name][[0, 5]], second[name][[0, 5]])
        assert torch.equal(second[name][[2, 5]], end[name][[2, 5]])
        assert not torch.equal(second[name][1], end[name][1])
    assert trained.gone == Subnet({OUT: (2, 5)})
    net = make_net()
    assert remove_units(trained.module, _structure(net), trained.gone.units)(torch.randn(1, 1, 8, 8)).shape == (1, 3)


def test_an_interrupted_run_ends_at_the_same_weights(train: Split, validation: Split, tmp_path: Path) -> None:
    def choose(_: nn.Module, gone: Subnet, turn: Turn) -> Subnet:
        asked.append((turn.number, gone))
        if stop and turn.number == 2:
            raise KeyboardInterrupt
        return Subnet({OUT: (turn.number,)})

    asked: list[tuple[int, Subnet]] = []
    stop = False
    whole = _run(train, validation, choose)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        _run(train, validation, choose, tmp_path)
    stop, asked = False, []
    resumed = _run(train, validation, choose, tmp_path)
    assert asked == [(2, Subnet({OUT: (1,)}))]  # the first turn is not done again
    assert all(torch.equal(resumed.module.state_dict()[n], t) for n, t in whole.module.state_dict().items())
    assert [(e.epoch, e.loss) for e in resumed.history] == [(e.epoch, e.loss) for e in whole.history]
    assert resumed.gone == whole.gone
