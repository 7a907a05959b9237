"""What the built-in tasks say of answers: losses, metrics, distillation, agreement, chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.errors import DataError, ModelError, RecipeError
from edgeprune.models.answers import Form, answer_flat, outputs_of
from edgeprune.recipe import TaskSection
from edgeprune.tasks.multi_label import average_precision
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.tasks.task import Metric, Rows, Task


def objective(name: str, **own: Any) -> Objective:
    return Objective(task_of(TaskSection(name=name, **own)))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(asked: Objective, outputs: Tensor, targets: Tensor) -> float:
    return asked.measured(asked.finished(asked.rows(outputs, targets)))


def test_a_classifier_is_asked_as_ever() -> None:
    asked, logits, teacher = objective("classification"), drawn(8, 5), drawn(8, 5, seed=1)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    assert torch.equal(asked.loss(logits, labels), F.cross_entropy(logits, labels))
    soft = F.kl_div(F.log_softmax(logits / 4, 1), F.log_softmax(teacher / 4, 1), log_target=True, reduction="batchmean")
    assert torch.equal(asked.distillation(logits, teacher, 4.0), 16 * soft)
    assert measured(asked, logits, labels) == float((logits.argmax(1) == labels).double().mean())
    assert asked.chance(asked.rows(logits, labels)) == 2 / 8


def test_one_logit_is_a_classifier_of_two_classes() -> None:
    asked, logit = objective("classification"), drawn(6, 1)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    both = torch.cat([torch.zeros_like(logit), logit], 1)
    assert torch.allclose(asked.loss(logit, labels), F.cross_entropy(both, labels))
    assert measured(asked, logit, labels) == measured(asked, both, labels)
    teacher = drawn(6, 1, seed=1)
    taught = torch.cat([torch.zeros_like(teacher), teacher], 1)
    assert torch.allclose(asked.distillation(logit, teacher, 2.0), asked.distillation(both, taught, 2.0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=20))
def test_average_precision_is_the_mean_over_thresholds(ranked: list[tuple[int, bool]]) -> None:
    scores, there = (np.array(column, np.float64) for column in zip(*ranked, strict=True))
    if not there.any():
        return
    by_hand, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        named = scores >= threshold
        recall, precision = there[named].sum() / there.sum(), there[named].mean()
        by_hand, before = by_hand + (recall - before) * precision, recall
    assert average_precision(scores, there > 0) == pytest.approx(by_hand)


def test_labels_of_several_classes() -> None:
    asked, logits = objective("multi-label"), drawn(40, 3)
    there = (drawn(40, 3, seed=1) > 0).long()
    assert torch.allclose(asked.loss(logits, there), F.binary_cross_entropy_with_logits(logits, there.float()))
    assert measured(asked, there.float(), there) == 1.0
    constant = measured(asked, torch.zeros(40, 3), there)
    assert constant == pytest.approx(asked.chance(asked.rows(logits, there)))
    assert asked.distillation(logits, logits, 4.0).item() == pytest.approx(0.0, abs=1e-6)
    assert asked.distillation(logits, -logits, 4.0).item() > 0.1


def test_mean_iou_is_that_of_all_images_together() -> None:
    asked = objective("segmentation", ignore=9)
    targets = torch.tensor([[[0, 0, 1], [1, 1, 9]], [[2, 2, 2], [0, 0, 9]]])
    named = torch.tensor([[[0, 1, 1], [1, 1, 0]], [[2, 2, 0], [0, 1, 2]]])
    logits = F.one_hot(named, 3).permute(0, 3, 1, 2).float()
    ious = [2 / (3 + 4 - 2), 3 / (5 + 3 - 3), 2 / (2 + 3 - 2)]  # both / (named + there - both), without the ignored
    assert measured(asked, logits, targets) == pytest.approx(np.mean(ious))
    counted = targets != 9
    assert torch.allclose(asked.loss(logits, targets), F.cross_entropy(logits, targets, ignore_index=9))
    share = asked.agreement([logits.numpy()], [F.one_hot(targets % 9, 3).permute(0, 3, 1, 2).float().numpy()])
    assert share.shape == (2,)
    frequent = torch.zeros(2, 3, 2, 3)
    frequent[:, 0] = 1  # 4 of 10 pixels
    assert measured(asked, frequent, targets) == pytest.approx(asked.chance(asked.rows(logits, targets)))
    assert int(counted.sum()) == 10


def test_small_logits_are_enlarged_to_the_mask() -> None:
    asked, logits = objective("segmentation"), drawn(2, 4, 3, 3)
    targets = torch.randint(0, 4, (2, 12, 12), generator=torch.Generator().manual_seed(0))
    large = F.interpolate(logits, size=(12, 12), mode="bilinear", align_corners=False)
    assert torch.allclose(asked.loss(logits, targets), F.cross_entropy(large, targets))
    with pytest.raises(DataError):
        asked.check(logits, targets[:, :10])


def test_one_channel_is_a_mask_of_two_classes() -> None:
    asked, logit = objective("segmentation"), drawn(2, 1, 4, 4)
    targets = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    targets[0, 0] = 255
    both = torch.cat([torch.zeros_like(logit), logit], 1)
    assert torch.allclose(asked.loss(logit, targets), asked.loss(both, targets))
    assert measured(asked, logit, targets) == measured(asked, both, targets)


@pytest.mark.parametrize(("metric", "better"), [("rmse", -1), ("mae", -1), ("psnr", 1)])
def test_numbers_that_are_not_known_count_nowhere(metric: str, better: int) -> None:
    asked = objective("regression", metric=metric, loss="l2")
    truth, answer = drawn(3, 1, 4, 4), drawn(3, 1, 4, 4, seed=1)
    holed = truth.clone()
    holed[:, :, 2:] = float("nan")
    assert torch.allclose(asked.loss(answer, holed), F.mse_loss(answer[:, :, :2], truth[:, :, :2]))
    half = measured(asked, answer[:, :, :2], truth[:, :, :2])
    assert measured(asked, answer, holed) == pytest.approx(half)
    near = measured(asked, truth + 0.1 * answer, truth)
    assert better * (near - measured(asked, answer, truth)) > 0
    assert asked.metric.is_better(near, half)
    answered = answer.clone().requires_grad_()
    asked.loss(answered, holed).backward()
    assert answered.grad is not None
    assert answered.grad.isfinite().all()


def test_the_best_constant_is_chance() -> None:
    asked, truth = objective("regression"), drawn(5, 1, 6, 6)
    constant = torch.full_like(truth, truth.mean().item())
    assert measured(asked, constant, truth) == pytest.approx(asked.chance(asked.rows(truth, truth)), rel=1e-5)


def test_a_vector_is_right_where_its_nearest_is_of_its_class() -> None:
    asked = objective("embedding")
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 3.0], [0.9, 0.2]])
    classes = torch.tensor([0, 0, 1, 1, 1])
    assert measured(asked, vectors, classes) == pytest.approx(4 / 5)
    assert asked.loss(vectors, classes).item() > asked.loss(F.one_hot(classes, 2).float(), classes).item()
    assert asked.distillation(vectors, 3 * vectors, 1.0).item() == pytest.approx(0, abs=1e-6)


@dataclass
class Boxes:
    where: Tensor
    scores: list[Tensor]
    anchors: None = None


class TwoHeads(nn.Module):
    def __init__(self, wrapped: str) -> None:
        super().__init__()
        self.body, self.wrapped = nn.Conv2d(3, 4, 3), wrapped

    def forward(self, images: Tensor) -> Any:
        found = self.body(images)
        one, two, three = found.mean((2, 3)), found, found.amax(1)
        return {
            "tuple": (one, two, three),
            "dict": {"cls": one, "maps": {"a": two, "b": three}},
            "dataclass": Boxes(one, [two, three]),
        }[self.wrapped]


@pytest.mark.parametrize(
    ("wrapped", "names"),
    [
        ("tuple", ("0", "1", "2")),
        ("dict", ("cls", "maps.a", "maps.b")),
        ("dataclass", ("where", "scores.0", "scores.1")),
    ],
)
def test_answers_are_flat_inside_and_the_authors_outside(wrapped: str, names: tuple[str, ...]) -> None:
    module = TwoHeads(wrapped).eval()
    images = drawn(2, 3, 8, 8)
    own = module(images)
    form = answer_flat(module, images, "here")
    assert form.names == names
    assert answer_flat(module, images, "here") is form
    flat = module(images)
    assert isinstance(flat, tuple)
    assert type(form.whole(flat)) is type(own)
    assert all(torch.equal(a, b) for a, b in zip(flat, outputs_of(Form.of(own).flat(own)), strict=True))


def test_a_task_reads_the_output_it_is_told() -> None:
    module = TwoHeads("dict").eval()
    form = answer_flat(module, drawn(2, 3, 8, 8), "here")
    task = task_of(TaskSection(name="segmentation"))
    asked = Objective.of(task, TaskSection(name="segmentation", output="maps.a"), form)
    targets = torch.zeros(2, 6, 6, dtype=torch.int64)
    asked.check(module(drawn(2, 3, 8, 8)), targets)
    with refused(DataError, "task.output", "cls", "maps.b"):
        Objective.of(task, TaskSection(name="segmentation", output="boxes"), form)
    with refused(DataError, "task.output"):
        Objective.of(task, TaskSection(name="segmentation"), form).check(module(drawn(2, 3, 8, 8)), targets)


class Odd(Task):
    name = "odd"
    metric = Metric("oddness")
    value: Any = float("nan")

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return (outputs - targets["x"]).square().mean()

    def rows(self, outputs: Any, targets: Any) -> Rows:
        return np.zeros((len(outputs), 1))

    def measured(self, rows: Rows) -> float:
        value: float = self.value
        return value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good", None, True])
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    task = Odd(Odd.Settings())
    task.value = value
    with refused(ModelError, "odd", repr(value)):
        Objective(task).measured(np.zeros((3, 1)))


def test_what_a_task_raises_is_told_as_its_own() -> None:
    with refused(ModelError, "odd", "KeyError"):
        Objective(Odd(Odd.Settings())).check(drawn(2, 3), {"y": drawn(2, 3)})


@pytest.mark.parametrize(
    ("name", "own", "facts"),
    [
        ("segmentation", {"ignored": 3}, ("task.ignored", "ignore")),
        ("regression", {"metric": "iou"}, ("task.metric", "iou")),
    ],
)
def test_settings_and_names_that_no_task_has(name: str, own: dict[str, Any], facts: tuple[str, ...]) -> None:
    with refused(RecipeError, *facts):
        task_of(TaskSection(name=name, **own))
