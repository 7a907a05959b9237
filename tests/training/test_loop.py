from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given
from hypothesis import strategies as st
from listening import Listening
from torch import nn
from toy_training import make_net, make_split

from edgeprune.data.split import Split
from edgeprune.errors import DataError, TrainingDiverged
from edgeprune.models.checkpoint import save_state
from edgeprune.models.weights_file import read_tree
from edgeprune.recipe import TuneSection
from edgeprune.training.accuracy import predict, recalibrate_batchnorm, top1
from edgeprune.training.hooks import Hook
from edgeprune.training.loop import tune
from edgeprune.training.schedule import peak_rate, rising_steps
from edgeprune.training.trainer import Training

HERE = Path(__file__).parent
SETTINGS = TuneSection(epochs=4, batch_size=32, lr=0.05, augment="crop")


def _same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Rates(Hook):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_step(self, training: Training) -> None:
        self.seen.append(training.lr)


def rates_of(train: Split, validation: Split, settings: TuneSection) -> list[float]:
    rates = Rates()
    training = Training(make_net(), None, train, settings, 0, hooks=[rates])
    training.run(range(1, settings.epochs + 1), validation, (), lambda history: None)
    return rates.seen


def test_each_epoch_is_told_when_it_ends_and_which_is_kept_after_the_last(train: Split, validation: Split) -> None:
    progress = Listening()
    result = tune(make_net(), None, train, validation, SETTINGS, seed=0, snapshots=None, progress=progress)
    *epochs, kept = progress.said
    assert [line.split(",")[0] for line in epochs] == [f"epoch {r.epoch}: loss {r.loss:.4f}" for r in result.history]
    assert f"epoch {result.kept} of 4" in kept
    assert progress.done == [float(step) for step in range(1, 25)]
    assert {total for _, _, total in progress.told} == {24}


def epochs_in(progress: Listening) -> set[int]:
    """The epochs that a training went through, by what it told."""
    return {int(text.removeprefix("epoch ").split("/")[0]) for text, _, _ in progress.told}


def test_it_learns_and_leaves_what_it_was_given(train: Split, validation: Split) -> None:
    student, teacher = make_net(0), make_net(1)
    kept = make_net(0), make_net(1)
    result = tune(student, None, train, validation, SETTINGS, seed=0, snapshots=None)
    assert top1(student, validation) < 0.6
    assert top1(result.module, validation) > 0.9
    assert [r.epoch for r in result.history] == [1, 2, 3, 4]
    assert result.history[-1].validation == top1(result.module, validation)
    assert result.history[-1].loss < result.history[0].loss
    tune(student, teacher, train, validation, SETTINGS, seed=0, snapshots=None)
    assert _same(student, kept[0])
    assert _same(teacher, kept[1])
    assert not any(m.training for net in (result.module, student, teacher) for m in net.modules())
    assert all(p.is_contiguous() for p in result.module.parameters())


def test_the_accuracy_on_training_images_is_that_of_its_steps(train: Split, validation: Split) -> None:
    """With a rate that changes nothing it is the net's own on the images of whole batches; one that learns gains."""
    net = make_net(dropout=0.0)
    still = TuneSection(epochs=1, batch_size=len(train), lr=1e-12, warmup=0.0, augment="none", distillation=0.0)
    (epoch,) = tune(net, None, train, validation, still, seed=0, snapshots=None).history
    images, labels = next(iter(train.batches(len(train))))
    with torch.no_grad():
        right = (net.train()(images).argmax(1) == labels).float().mean().item()
    assert epoch.train == pytest.approx(right, abs=1e-6)
    learning = TuneSection(epochs=4, batch_size=32, lr=0.05, augment="none", distillation=0.0)
    first, *_, last = tune(make_net(), None, train, validation, learning, seed=0, snapshots=None).history
    assert first.train is not None
    assert last.train is not None
    assert first.train < last.train <= 1


def test_the_same_seed_gives_the_same_weights(train: Split, validation: Split) -> None:
    torch.manual_seed(1)
    one = tune(make_net(), make_net(1), train, validation, SETTINGS, seed=7, snapshots=None)
    torch.manual_seed(2)
    again = tune(make_net(), make_net(1), train, validation, SETTINGS, seed=7, snapshots=None)
    torch.manual_seed(1)
    other = tune(make_net(), make_net(1), train, validation, SETTINGS, seed=8, snapshots=None)
    assert _same(one.module, again.module)
    assert not _same(one.module, other.module)


def test_the_callers_random_numbers_are_left_alone(train: Split, validation: Split) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    student = make_net()
    torch.manual_seed(4)
    tune(student, None, train, validation, SETTINGS, seed=7, snapshots=None)
    assert torch.equal(torch.rand(3), expected)


def test_the_teacher_is_followed(train: Split, validation: Split) -> None:
    """With distillation only, the student comes nearer to a teacher that is always wrong, whatever the labels say."""
    teacher = tune(make_net(3), None, train, validation, SETTINGS, seed=0, snapshots=None).module
    with torch.no_grad():
        teacher[5].weight.copy_(teacher[5].weight.roll(1, 0))
        teacher[5].bias.copy_(teacher[5].bias.roll(1, 0))
    assert top1(teacher, validation) < 0.1
    student = make_net(0)
    follow = SETTINGS.model_copy(update={"distillation": 1.0, "epochs": 6})
    result = tune(student, teacher, train, validation.take(0), follow, seed=0, snapshots=None).module
    wanted = predict(teacher, validation)[0].argmax(1)
    assert (predict(result, validation)[0].argmax(1) == wanted).mean() > 0.9
    ignore = SETTINGS.model_copy(update={"distillation": 0.0})
    labels_only = tune(student, teacher, train, validation, ignore, seed=0, snapshots=None).module
    assert _same(labels_only, tune(student, None, train, validation, ignore, seed=0, snapshots=None).module)


def test_the_rate_rises_then_falls_to_almost_nothing(train: Split, validation: Split) -> None:
    rates = rates_of(train, validation, SETTINGS.model_copy(update={"warmup": 0.75}))
    assert len(rates) == 4 * (200 // 32)
    peak = int(np.argmax(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert peak == 17
    assert rates[peak] == pytest.approx(0.05 * math.sqrt(24 / 250))
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize(("warmup", "peak"), [(0.0, 1), (0.05, 12), (0.5, 12)])
def test_a_short_training_rises_for_half_of_its_steps_and_less_far(
    train: Split, validation: Split, warmup: float, peak: int
) -> None:
    rates = rates_of(train, validation, SETTINGS.model_copy(update={"warmup": warmup}))
    assert int(np.argmax(rates)) + 1 == peak
    assert max(rates) == pytest.approx(0.05 * math.sqrt(24 / 250) if warmup else 0.05, rel=0.01)


@given(st.floats(0.001, 0.999), st.floats(1e-4, 1.0), st.integers(1, 100_000))
def test_how_far_and_how_long_the_rate_rises(warmup: float, lr: float, steps: int) -> None:
    """It is the recipe's in a long training; in a shorter one it rises no faster than by 0.0005 a step, or for half."""
    settings = SETTINGS.model_copy(update={"warmup": warmup, "lr": lr})
    peak, rising = peak_rate(settings, steps), rising_steps(settings, steps)
    assert 0 < peak <= lr
    assert peak == lr or peak == pytest.approx(0.05 * math.sqrt(steps / 250))
    assert 0 <= rising <= steps
    assert rising >= min(round(peak / 0.0005), steps // 2)
    assert rising == round(warmup * steps) or warmup * steps < min(peak / 0.0005, steps / 2)
    assert peak <= peak_rate(settings, steps + 1)


def test_no_epochs_change_nothing(train: Split, validation: Split) -> None:
    student = make_net()
    result = tune(student, None, train, validation, SETTINGS.model_copy(update={"epochs": 0}), seed=0, snapshots=None)
    assert _same(student, result.module)
    assert result.module is not student
    assert result.history == ()


def test_biases_and_norms_do_not_decay(train: Split, validation: Split) -> None:
    """Momentum and gradient aside: with a huge decay the kernels vanish, the gains do not."""
    settings = SETTINGS.model_copy(update={"weight_decay": 5.0, "epochs": 8})
    result = tune(make_net(), None, train, validation, settings, seed=0, snapshots=None).module
    assert result[5].weight.abs().max() < 0.05
    assert result[1].weight.abs().min() > 0.5


def test_frozen_weights_stay(train: Split, validation: Split) -> None:
    student = make_net()
    student[0].weight.requires_grad_(False)
    result = tune(student, None, train, validation, SETTINGS, seed=0, snapshots=None).module
    assert torch.equal(result[0].weight, student[0].weight)
    assert not result[0].weight.requires_grad
    assert not torch.equal(result[5].weight, student[5].weight)


def test_bf16_learns_too(train: Split, validation: Split) -> None:
    settings = SETTINGS.model_copy(update={"precision": "bf16"})
    result = tune(make_net(), make_net(1), train, validation, settings, seed=0, snapshots=None).module
    assert all(p.dtype == torch.float32 for p in result.parameters())
    labels = tune(make_net(), None, train, validation, settings, seed=0, snapshots=None).module
    assert top1(labels, validation) > 0.9


def test_few_images_make_one_short_batch(validation: Split) -> None:
    progress = Listening()
    tune(
        make_net(),
        None,
        make_split(5, 0),
        validation.take(0),
        SETTINGS,
        seed=0,
        snapshots=None,
        progress=progress,
    )
    assert [(done, total) for _, done, total in progress.told] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_without_validation_images_there_is_no_accuracy(train: Split, validation: Split) -> None:
    result = tune(make_net(), None, train, validation.take(0), SETTINGS, seed=0, snapshots=None)
    assert [r.validation for r in result.history] == [None] * 4


def test_no_images_are_an_error(train: Split, validation: Split) -> None:
    with refused(DataError, "training images"):
        tune(make_net(), None, train.take(0), validation, SETTINGS, seed=0, snapshots=None)


def test_a_loss_that_is_not_finite_stops_the_run(train: Split, validation: Split, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"lr": 1e30, "warmup": 0.0})
    with refused(TrainingDiverged, "loss", "epoch 1", "step", "learning rate", "`lr`"):
        tune(make_net(), None, train, validation, settings, seed=0, snapshots=tmp_path)
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {here!r})
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from toy_training import make_net, make_split
    from edgeprune.progress import Silent
    from edgeprune.recipe import TuneSection
    from edgeprune.training.loop import tune

    class Dies(Silent):
        def update(self, text, done, total):
            if done == 2 * (200 // 32) + 2:  # the second step of the third epoch
                os.kill(os.getpid(), signal.SIGKILL)

    settings = TuneSection.model_validate_json({settings!r})
    tune(make_net(), make_net(1), make_split(200, 1), make_split(120, 2), settings, seed=5,
         snapshots=Path({folder!r}), progress=Dies())
"""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, train: Split, validation: Split) -> None:
    folder = tmp_path / "snapshots"
    code = KILLED.format(here=str(HERE), settings=SETTINGS.model_dump_json(), folder=str(folder))
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in folder.glob("*.json")) == ["epoch-0001.json", "epoch-0002.json"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        progress = Listening()
        resumed = tune(
            make_net(), make_net(1), train, validation, SETTINGS, seed=5, snapshots=folder, progress=progress
        )
        whole = tune(make_net(), make_net(1), train, validation, SETTINGS, seed=5, snapshots=None)
    finally:
        torch.set_num_threads(threads)
    assert epochs_in(progress) == {3, 4}
    assert _same(resumed.module, whole.module)
    assert [(r.epoch, r.loss, r.lr) for r in resumed.history] == [(r.epoch, r.loss, r.lr) for r in whole.history]


def _snapshots_of(tmp_path: Path, train: Split, validation: Split) -> nn.Module:
    return tune(make_net(), None, train, validation, SETTINGS, seed=0, snapshots=tmp_path).module


def test_a_finished_run_is_not_done_again(tmp_path: Path, train: Split, validation: Split) -> None:
    first = _snapshots_of(tmp_path, train, validation)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"epoch-000{n}.{kind}" for n in (3, 4) for kind in ("json", "safetensors")
    ]
    progress = Listening()
    again = tune(make_net(), None, train, validation, SETTINGS, seed=0, snapshots=tmp_path, progress=progress)
    assert progress.told == []
    assert _same(first, again.module)
    assert len(again.history) == 4


@pytest.mark.parametrize("damage", ["head", "weights", "half a head"])
def test_a_damaged_snapshot_is_passed_over(
    tmp_path: Path, train: Split, validation: Split, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = _snapshots_of(tmp_path, train, validation)
    newest = tmp_path / "epoch-0004.json"
    if damage == "head":
        newest.write_text("{}")
    elif damage == "half a head":
        newest.write_text(newest.read_text()[:40])
    else:
        data = bytearray(newest.with_suffix(".safetensors").read_bytes())
        data[-1] ^= 1
        newest.with_suffix(".safetensors").write_bytes(data)
    progress = Listening()
    again = tune(make_net(), None, train, validation, SETTINGS, seed=0, snapshots=tmp_path, progress=progress)
    assert epochs_in(progress) == {4}
    assert "passed over" in caplog.text
    assert _same(first, again.module)


def test_another_runs_snapshot_is_passed_over(
    tmp_path: Path, train: Split, validation: Split, caplog: pytest.LogCaptureFixture
) -> None:
    _snapshots_of(tmp_path, train, validation)
    progress = Listening()
    again = tune(make_net(9), None, train, validation, SETTINGS, seed=0, snapshots=tmp_path, progress=progress)
    assert epochs_in(progress) == {1, 2, 3, 4}
    assert "another run" in caplog.text
    assert _same(again.module, tune(make_net(9), None, train, validation, SETTINGS, seed=0, snapshots=None).module)


def test_a_snapshots_weights_are_plain_tensors(tmp_path: Path, train: Split, validation: Split) -> None:
    module = _snapshots_of(tmp_path, train, validation)
    state = read_tree(tmp_path / "epoch-0004.safetensors")
    save_state(tmp_path / "module.safetensors", module)
    written = read_tree(tmp_path / "module.safetensors")
    assert {f"module.{name}" for name in written} <= set(state)
    for name, tensor in module.named_parameters():
        assert torch.equal(state[f"module.{name}"], written[name])
        assert torch.equal(written[name], tensor)
    assert "optimizer.momentum_buffer:0.weight" in state


@pytest.mark.parametrize(("epochs", "anew"), [(1, True), (4, True), (50, False)])
def test_after_few_steps_batch_norms_have_the_statistics_of_the_last_weights(
    train: Split, validation: Split, epochs: int, anew: bool
) -> None:
    """Running ones lag behind: after six steps half of them is still of the weights before."""
    settings = SETTINGS.model_copy(update={"epochs": epochs, "augment": "none"})
    result = tune(make_net(), None, train, validation, settings, seed=0, snapshots=None)
    exact = recalibrate_batchnorm(result.module, train, len(train))
    ours, theirs = (dict(module.named_buffers())["1.running_mean"] for module in (result.module, exact))
    assert torch.equal(ours, theirs) == anew
    assert result.history[-1].validation == top1(result.module, validation)


def _masks(student: nn.Module) -> dict[str, torch.Tensor]:
    weight = dict(student.named_parameters())["5.weight"]
    return {"5.weight": torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5}


def test_masked_weights_stay_zero_and_the_others_learn(train: Split, validation: Split) -> None:
    student = make_net(0)
    masks = _masks(student)
    result = tune(student, None, train, validation, SETTINGS, seed=0, snapshots=None, masks=masks)
    weight = dict(result.module.named_parameters())["5.weight"]
    assert (weight[~masks["5.weight"]] == 0).all()
    assert (weight[masks["5.weight"]] != 0).all()
    assert top1(result.module, validation) > 0.9
    assert (dict(student.named_parameters())["5.weight"] != 0).all()  # the caller's is a copy
    untrained = SETTINGS.model_copy(update={"epochs": 0})
    still = tune(student, None, train, validation, untrained, seed=0, snapshots=None, masks=masks).module
    expected = dict(student.named_parameters())["5.weight"].masked_fill(~masks["5.weight"], 0)
    assert torch.equal(dict(still.named_parameters())["5.weight"], expected)


def test_a_snapshot_with_other_masks_is_not_taken_up(train: Split, validation: Split, tmp_path: Path) -> None:
    short = SETTINGS.model_copy(update={"epochs": 1})
    tune(make_net(), None, train, validation, short, seed=0, snapshots=tmp_path)
    masked = tune(make_net(), None, train, validation, short, seed=0, snapshots=tmp_path, masks=_masks(make_net()))
    weight = dict(masked.module.named_parameters())["5.weight"]
    assert (weight[~_masks(make_net())["5.weight"]] == 0).all()
