"""What a recipe may ask of training beside its optimizer: averages, parts, terms of a loss, mixed images, trackers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from torch import Tensor, nn
from toy_training import make_net, make_split

from edgeprune.data.split import Split
from edgeprune.errors import DataError, RecipeError, ToolkitMissing
from edgeprune.models.load import load
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.recipe import TaskSection, TuneSection
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.training.accuracy import predict, top1
from edgeprune.training.features import Features
from edgeprune.training.hooks import Hook
from edgeprune.training.loop import tune
from edgeprune.training.losses import OtherTeacher, Seen
from edgeprune.training.snapshot import EpochRecord
from edgeprune.training.trackers import Tracker, check_tracker
from edgeprune.training.trainer import Training

SETTINGS = TuneSection(epochs=3, batch_size=32, lr=0.05, augment="none", distillation=0.0)


def asking(**settings: Any) -> TuneSection:
    return TuneSection.model_validate(SETTINGS.model_dump() | settings)


def trained(net: nn.Module, train: Split, settings: TuneSection, validation: Split | None = None) -> nn.Module:
    none = train.take(0) if validation is None else validation
    return tune(net, None, train, none, settings, seed=0, snapshots=None).module


def gap(one: nn.Module, other: nn.Module) -> float:
    a, b = one.state_dict(), other.state_dict()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def without_norm(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).eval()


def test_a_moving_average_is_what_is_validated_and_given(train: Split, validation: Split) -> None:
    plain = trained(make_net(), train, SETTINGS)
    assert gap(trained(make_net(), train, asking(ema=1e-12)), plain) < 1e-5  # it forgets all but the last step
    result = tune(make_net(), None, train, validation, asking(ema=0.99), seed=0, snapshots=None)
    assert gap(result.module, plain) > 1e-3
    assert top1(result.module, validation) == result.history[result.kept - 1].validation


def test_a_batch_in_parts_is_the_same_step(train: Split) -> None:
    one, three = (trained(without_norm(), train, asking(accumulate=parts)) for parts in (1, 3))
    assert 0 < gap(one, three) < 1e-5


class Longest(Hook):
    """The longest step of the weights."""

    def __init__(self) -> None:
        self.before: list[Tensor] = []
        self.most = 0.0

    def before_epoch(self, training: Training, epoch: int) -> None:
        self.before = [p.detach().clone() for p in training.student.parameters()]

    def after_step(self, training: Training) -> None:
        now = [p.detach().clone() for p in training.student.parameters()]
        moved = sum(float((a - b).square().sum()) for a, b in zip(now, self.before, strict=True))
        self.most, self.before = max(self.most, math.sqrt(moved) / training.lr), now


def test_gradients_are_cut_to_a_length(train: Split) -> None:
    def longest(clip: float) -> float:
        hook, settings = Longest(), asking(clip=clip, momentum=0.0, weight_decay=0.0)
        Training(make_net(), None, train, settings, 0, hooks=[hook]).run(range(1, 4), train.take(0), (), lambda _: None)
        return hook.most

    assert longest(0.1) == pytest.approx(0.1, rel=1e-3)
    assert longest(1e6) == longest(0.0) > 0.2


def test_blocks_are_computed_again_where_the_model_can() -> None:
    net = load("test_vit", num_classes=3, input_size=(3, 64, 64)).module
    images, labels = torch.randn(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])

    class Drawn(Split):
        def batches(self, *_: Any, **__: Any) -> Any:
            yield images, labels

    split = make_split(6, 0)
    drawn = Drawn(**{field: getattr(split, field) for field in Split.__dataclass_fields__})
    settings = asking(epochs=2, batch_size=6)
    plain = tune(net, None, drawn, split.take(0), settings, seed=0, snapshots=None).module
    again = tune(
        net, None, drawn, split.take(0), asking(epochs=2, batch_size=6, checkpointing=True), seed=0, snapshots=None
    ).module
    assert gap(plain, again) < 1e-6
    assert gap(plain, net) > 1e-3


def test_a_model_that_cannot_compute_its_blocks_again_is_refused(train: Split) -> None:
    with refused(RecipeError, "Sequential"):
        trained(make_net(), train, asking(checkpointing=True))


@pytest.mark.parametrize("asked", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "batch_size": 33}])
def test_mixed_images_teach_too(train: Split, validation: Split, asked: Mapping[str, Any]) -> None:
    result = tune(make_net(), None, train, validation, asking(**asked, epochs=6), seed=0, snapshots=None)
    assert result.history[0].train is None
    assert top1(result.module, validation) > 0.8
    assert gap(result.module, trained(make_net(), train, asking(epochs=6), validation)) > 1e-3


def test_labels_that_cannot_be_mixed_are_refused(train: Split) -> None:
    objective = Objective(task_of(TaskSection(name="regression")))
    with refused(RecipeError, "regression", "tune.mixup"):
        Training(make_net(), None, train, asking(mixup=0.5), 0, objective=objective)


def test_features_come_nearer_and_projections_are_left_behind(train: Split) -> None:
    teacher = trained(make_net(3), train, SETTINGS)
    torch.manual_seed(0)
    narrow = nn.Sequential(
        *(nn.Conv2d(1, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.0), nn.Flatten()),
        nn.Linear(5 * 16, 3),
    ).eval()

    def distance(student: nn.Module, settings: TuneSection) -> float:
        training = Training(student, teacher, train, settings, 0)
        training.run(range(1, settings.epochs + 1), train.take(0), (), lambda _: None)
        assert training.features is not None
        images = torch.cat([x for x, _ in train.batches(200)])
        with torch.no_grad(), training.features.watching(training.student.eval(), teacher):
            training.student(images)
            teacher(images)
            return float(training.features.distance())

    near, far = (distance(narrow, asking(features=weight, epochs=6)) for weight in (5.0, 1e-9))
    assert near < 0.8 * far
    result = tune(narrow, teacher, train, train.take(0), asking(features=1.0), seed=0, snapshots=None).module
    assert result.state_dict().keys() == narrow.state_dict().keys()


@pytest.mark.parametrize(("names", "fact"), [(("7",), "7"), (("4",), "4")])
def test_layers_that_cannot_be_paired_are_refused(names: tuple[str, ...], fact: str) -> None:
    other = nn.Sequential(*[nn.Conv2d(1, 8, 3, 1, 1), *list(make_net())[1:5], nn.Linear(512, 3)]).eval()
    with refused(RecipeError, fact, "tune.feature_layers"):
        Features(make_net(), other, torch.randn(4, 1, 8, 8), ("0", "4") if names == ("4",) else names)


def _model(module: nn.Module, mean: float, std: float) -> Model:
    spec = ModelSpec(
        source="factory.py:net",
        input_size=(1, 8, 8),
        num_classes=3,
        preprocessing=Preprocessing(mean=(mean,), std=(std,)),
    )
    return Model(spec, module)


def test_another_teacher_is_followed_and_sees_images_as_it_prepares_them(train: Split, validation: Split) -> None:
    wrong = trained(make_net(3), train, asking(epochs=6))
    with torch.no_grad():
        wrong[5].weight.copy_(wrong[5].weight.roll(1, 0))
        wrong[5].bias.copy_(wrong[5].bias.roll(1, 0))
    assert top1(wrong, validation) < 0.2
    student = _model(make_net(), 0.4, 0.2)
    images = next(iter(validation.batches(50)))[0]
    seen = OtherTeacher(_model(nn.Identity(), 0.1, 0.5), student)(images)
    assert torch.allclose(seen * 0.5 + 0.1, images * 0.2 + 0.4, atol=1e-6)
    another = OtherTeacher(_model(wrong, 0.4, 0.2), student)
    none, settings = validation.take(0), asking(teacher_weight=20.0, epochs=6)
    result = tune(student.module, None, train, none, settings, seed=0, snapshots=None, another=another).module
    same = predict(result, validation)[0].argmax(1) == predict(wrong, validation)[0].argmax(1)
    assert same.mean() > 0.9


def test_a_teacher_of_another_size_is_refused() -> None:
    teacher = _model(make_net(), 0.4, 0.2)
    large = Model(teacher.spec.model_copy(update={"input_size": (1, 16, 16)}), teacher.module)
    with refused(RecipeError, "tune.teacher"):
        OtherTeacher(large, teacher)


def test_a_methods_own_term_is_lowered_too(train: Split) -> None:
    class Small(Hook):
        def loss(self, training: Training, seen: Seen) -> Tensor:
            return 100.0 * training.named["0.weight"].square().mean()

    training = Training(make_net(), None, train, SETTINGS, 0, hooks=[Small()])
    training.run(range(1, 4), train.take(0), (), lambda _: None)
    assert training.named["0.weight"].abs().max() < 0.6 * trained(make_net(), train, SETTINGS)[0].weight.abs().max()


def test_a_batch_norm_that_sees_one_number_is_told(train: Split) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with refused(DataError, "tune.batch_size", 1):
        trained(net, train, asking(batch_size=1, epochs=1))
    with refused(DataError, "tune.accumulate"):
        trained(net, train, asking(batch_size=8, accumulate=8, epochs=1))
    assert isinstance(trained(make_net(), train.take(8), asking(batch_size=1, epochs=1)), nn.Module)


def test_a_tracker_gets_every_epoch(tmp_path: Path) -> None:
    record = EpochRecord(epoch=1, loss=0.5, lr=0.1, train=0.25, validation=0.75, seconds=2.0)
    tracker = Tracker("tensorboard", tmp_path, SETTINGS)
    for epoch in (1, 2):
        tracker.log(record.model_copy(update={"epoch": epoch, "loss": 0.5 / epoch}))
    tracker.end()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in tmp_path.rglob("events*") if path.parent.name == "tune"}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert {"loss", "lr", "train", "validation", "seconds"} <= set(events.Tags()["scalars"])


def test_a_tracker_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(RecipeError, "tensorbord", "tensorboard"):
        check_tracker("tensorbord")
    with refused(ToolkitMissing, "clearml", "tune.tracker"):
        check_tracker("clearml")
    check_tracker(None)
