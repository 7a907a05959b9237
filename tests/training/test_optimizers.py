"""timm's optimizers and schedules: each resumes to the same weights, and what cannot be used is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from listening import Listening
from pydantic import ValidationError
from torch import nn
from toy_training import make_net

from edgeprune.data.split import Split
from edgeprune.errors import RecipeError
from edgeprune.recipe import TuneSection
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import WHOLE
from edgeprune.training.loop import tune
from edgeprune.training.optimizer import check_optimizer
from edgeprune.training.schedule import Schedule
from edgeprune.training.snapshot import EpochRecord
from edgeprune.training.turns import train_in_turns

SETTINGS = TuneSection(epochs=4, batch_size=32, lr=0.02, augment="crop")


def asking(**settings: Any) -> TuneSection:
    return TuneSection.model_validate(SETTINGS.model_dump() | settings)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stops(Listening):
    def update(self, text: str, done: float, total: float) -> None:
        if text.startswith("epoch 3/"):
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "asked",
    [
        {"optimizer": "adamw", "lr": 0.005, "ema": 0.9},
        {"optimizer": "lamb", "layer_decay": 0.7, "clip": 1.0},
        {"optimizer": "adafactor"},
        {"optimizer": "madgrad", "lr": 0.005},
        {"optimizer": "muon", "schedule": "step", "decay_epochs": 1},
        {"schedule": "plateau", "patience": 0, "features": 0.5},
        {"mixup": 0.2, "cutmix": 0.5, "randaugment": "rand-m9", "erasing": 0.3, "repeats": 2},
    ],
)
def test_an_interrupted_training_ends_at_the_same_weights(
    train: Split, validation: Split, tmp_path: Path, asked: dict[str, Any]
) -> None:
    settings = asking(**asked)
    check_optimizer(settings, in_turns=False)
    given = (make_net(), make_net(1), train, validation, settings)
    with pytest.raises(KeyboardInterrupt):
        tune(*given, seed=5, snapshots=tmp_path, progress=Stops())
    resumed = tune(*given, seed=5, snapshots=tmp_path)
    whole = tune(*given, seed=5, snapshots=None)
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]
    assert same(resumed.module, whole.module)
    assert resumed.module.state_dict().keys() == make_net().state_dict().keys()
    assert not same(whole.module, tune(*given[:4], SETTINGS, seed=5, snapshots=None).module)


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "lion", "nadam"])
def test_in_turns_with_nothing_gone_it_is_one_training(train: Split, validation: Split, optimizer: str) -> None:
    settings, net, none = asking(optimizer=optimizer, lr=0.005), make_net(), validation.take(0)
    check_optimizer(settings, in_turns=True)
    structure = find_structure(net, torch.randn(2, 1, 8, 8))
    turned = train_in_turns(
        *(net, structure, lambda *_: WHOLE, train, none, settings), epochs=4, interval=1, seed=3, snapshots=None
    )
    one = tune(make_net(), make_net(), train, none, settings, seed=3, snapshots=None)
    named = dict(turned.module.named_parameters())
    assert all(torch.equal(named[name], tensor) for name, tensor in one.module.named_parameters())


@pytest.mark.parametrize(
    ("optimizer", "in_turns", "facts"),
    [
        ("adamww", False, ("adamww", "adamw")),
        ("adafactor", True, ("adafactor", "prune.epochs")),
        ("kron", False, ()),
        ("bnbadam8bit", False, ("bnbadam8bit",)),
    ],
)
def test_what_cannot_be_used_is_refused(optimizer: str, in_turns: bool, facts: tuple[str, ...]) -> None:
    with refused(RecipeError, *facts):
        check_optimizer(asking(optimizer=optimizer), in_turns=in_turns)


class Staged(nn.Sequential):
    """Tells timm which of its layers come first."""

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": r"^[01]\.", "blocks": r"^(\d+)\."}


def test_earlier_layers_learn_less_where_it_is_asked_for(train: Split, validation: Split) -> None:
    net, none = Staged(*make_net(dropout=0.0)).eval(), validation.take(0)

    def moved(layer_decay: float | None) -> list[float]:
        settings = asking(optimizer="adamw", layer_decay=layer_decay, epochs=1, lr=1e-3)
        result = tune(net, None, train, none, settings, seed=0, snapshots=None).module
        return [float((result[i].weight - net[i].weight).abs().mean()) for i in (0, 5)]

    (first, last), (less, as_much) = moved(None), moved(0.1)
    assert less < 0.5 * first
    assert as_much == pytest.approx(last, rel=0.3)


def rates(steps: int = 10, **asked: Any) -> list[float]:
    schedule = Schedule(asking(**asked), steps)
    return [schedule.rate(step) for step in range(1, 4 * steps + 1)]


@pytest.mark.parametrize(
    "asked",
    [
        {"schedule": "step", "decay_epochs": 1},
        {"schedule": "multistep", "milestones": [2, 3]},
        {"schedule": "poly", "decay_rate": 0.5},
        {"schedule": "tanh"},
        {"schedule": "wsd", "decay_epochs": 0.5},
        {"schedule": "constant"},
    ],
)
def test_every_schedule_rises_and_never_rises_again(asked: dict[str, Any]) -> None:
    seen = rates(**asked, lr=0.005)
    peak = max(seen)
    top = seen.index(peak)
    assert peak <= 0.005
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)
    assert (seen[-1] < peak) == (asked["schedule"] != "constant")


def test_a_step_schedule_falls_by_its_rate_and_the_cosine_to_its_least() -> None:
    seen = rates(schedule="step", decay_epochs=1, decay_rate=0.5, warmup=0.0)
    assert {round(rate, 6) for rate in seen} == {0.02, 0.01, 0.005, 0.0025}
    assert rates(min_lr=0.001, warmup=0.0)[-1] == pytest.approx(0.001, abs=2e-4)
    assert rates(min_lr=0.001, warmup=0.0)[0] == pytest.approx(0.02, rel=0.01)


def test_a_plateau_lowers_the_rate_and_is_the_same_after_an_interruption() -> None:
    settings = asking(schedule="plateau", patience=0, warmup=0.0)
    epochs = [
        EpochRecord(epoch=n, loss=1.0, lr=0.1, validation=value, seconds=1.0)
        for n, value in enumerate([0.5, 0.6, 0.6, 0.6], start=1)
    ]
    schedule, seen = Schedule(settings, 10), []
    for record in epochs:
        seen.append(schedule.rate(record.epoch * 10))
        schedule.saw([record])
    assert seen[0] == seen[1] == seen[2] == 0.02
    assert seen[3] == pytest.approx(0.002)
    resumed = Schedule(settings, 10)
    resumed.saw(epochs)
    assert resumed.rate(41) == schedule.rate(41) == pytest.approx(0.0002)
    errors = Schedule(settings, 10, higher_is_better=False)
    errors.saw([record.model_copy(update={"validation": -(record.validation or 0)}) for record in epochs])
    assert errors.rate(41) == schedule.rate(41)


@pytest.mark.parametrize(
    ("asked", "fact"),
    [
        ({"schedule": "step"}, "decay_epochs"),
        ({"schedule": "multistep"}, "milestones"),
        ({"schedule": "cosin"}, "cosine"),
        ({"randaugment": "rnd-m9"}, "rand-m9"),
        ({"mixup": 0.5, "batch_size": 1}, "batch_size"),
        ({"feature_layers": ["0"]}, "features"),
        ({"teacher_checkpoint": "w.pth"}, "teacher"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(asked: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValidationError, match=fact):
        asking(**asked)
