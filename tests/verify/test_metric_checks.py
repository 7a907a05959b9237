"""Figures of tasks whose metric is no share of right images: intervals, limits, ignorance, and the alarm at load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from made_up_manifest import manifest
from torch import Tensor, nn

from edgeprune.data.images import ArrayImages
from edgeprune.data.split import Split
from edgeprune.data.targets import ArrayTargets
from edgeprune.errors import ModelError
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.recipe import ModelSection, TaskSection, VerdictLimits
from edgeprune.tasks.objective import Objective, tensors
from edgeprune.tasks.registry import task_of
from edgeprune.verify.accuracy import accuracy_checks
from edgeprune.verify.figures import drawn_interval, metric_check
from edgeprune.verify.known import check_known
from edgeprune.verify.outputs import Answers, FileAnswers, broken_images
from edgeprune.verify.shown import shown_images
from edgeprune.verify.verdict import Check

RANDOM = np.random.default_rng(0)
PREPROCESSING = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


def objective(name: str, **own: Any) -> Objective:
    return Objective(task_of(TaskSection(name=name, **own)))


def masks(count: int) -> np.ndarray:
    return RANDOM.integers(0, 3, (count, 8, 8))


def logits_of(numbers: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[numbers].transpose(0, 3, 1, 2)


def with_errors(numbers: np.ndarray, share: float) -> np.ndarray:
    wrong = RANDOM.random(numbers.shape) < share
    return np.where(wrong, (numbers + 1) % 3, numbers)


def checks(asked: Objective, targets: np.ndarray, floats: np.ndarray, file: np.ndarray, **own: Any) -> dict[str, Check]:
    int8 = manifest(precision="int8", weights_precision="int8")
    truth = torch.from_numpy(targets)
    before = asked.finished(asked.rows(tensors([floats]), truth))
    after = asked.finished(asked.rows(tensors([file]), truth))
    found = FileAnswers(after, asked.agreement([file], [floats]), broken_images((file,)), "here")
    answers = Answers(before, {int8.file: found}, len(targets))
    return {c.name: c for c in accuracy_checks(int8, answers, asked, VerdictLimits(**own), before)}


def test_a_segmenter_is_held_to_its_pixels_and_its_mean_iou() -> None:
    asked, truth = objective("segmentation"), masks(60)
    floats = with_errors(truth, 0.05)
    good = checks(asked, truth, logits_of(floats), logits_of(with_errors(floats, 0.002)))
    assert {name: c.outcome for name, c in good.items()} == {
        "agreement of pixels": "pass",
        "mean IoU": "info",
        "mean IoU drop against the float model": "pass",
        "mean IoU drop against the original": "info",
    }
    poor = checks(asked, truth, logits_of(floats), logits_of(with_errors(floats, 0.2)))
    assert poor["agreement of pixels"].outcome == "fail"
    assert poor["mean IoU drop against the float model"].outcome == "fail"
    low, high = good["mean IoU"].interval or (0, 0)
    assert low < good["mean IoU"].value < high


def test_images_that_are_too_few_pass_nothing() -> None:
    asked, truth = objective("segmentation"), masks(6)
    few = checks(asked, truth, logits_of(truth), logits_of(with_errors(truth, 0.01)))
    assert few["agreement of pixels"].outcome == "undecided"
    assert few["mean IoU"].outcome == "undecided"


def test_an_answer_that_does_not_look_at_the_image_fails_without_a_gate() -> None:
    asked, truth = objective("segmentation"), masks(60)
    constant = logits_of(np.zeros_like(truth))
    rows = asked.finished(asked.rows(tensors([constant]), torch.from_numpy(truth)))
    assert metric_check(asked, rows, untrained=False).outcome == "fail"
    assert metric_check(asked, rows, untrained=True).outcome == "info"


def test_a_drop_of_decibels_is_a_part_of_what_was() -> None:
    asked = objective("regression", metric="psnr")
    truth = RANDOM.random((80, 1, 6, 6)).astype(np.float32)
    floats = truth + 0.02 * RANDOM.standard_normal(truth.shape).astype(np.float32)
    noisy = truth + 0.021 * RANDOM.standard_normal(truth.shape).astype(np.float32)
    found = checks(asked, truth, floats, noisy, int8_accuracy_drop=0.05)
    drop = found["PSNR drop against the float model"]
    before, after = (20 * np.log10(1 / 0.02), 20 * np.log10(1 / 0.021))
    assert drop.value == pytest.approx((before - after) / before, rel=0.5)
    assert (drop.unit, drop.outcome) == ("share", "pass")
    assert found["PSNR"].unit == "dB"
    assert found["explained variance"].outcome == "pass"


def test_an_error_that_grows_is_lost_and_one_that_falls_is_won() -> None:
    asked = objective("regression", metric="mae")
    truth = RANDOM.random((80, 1, 6, 6)).astype(np.float32)
    near, far = truth + np.float32(0.1), truth + np.float32(0.11)
    assert checks(asked, truth, near, far)["mean absolute error drop against the float model"].outcome == "fail"
    assert checks(asked, truth, far, near)["mean absolute error drop against the float model"].value < 0


def test_a_drawn_interval_holds_the_figure_and_is_the_same_each_time() -> None:
    rows = RANDOM.random((50, 1))
    one, two = (drawn_interval(rows, lambda some: float(some.mean())) for _ in range(2))
    assert one == two
    half = 1.96 * rows.std() / np.sqrt(50)
    assert one.half_width == pytest.approx(half, rel=0.2)


class Bright(nn.Module):
    """Names a pixel by which of its colours is brightest: right by construction, on RGB."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(sign))

    def forward(self, images: Tensor) -> Tensor:
        return images * self.weight


def split(count: int = 40) -> Split:
    pixels = RANDOM.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    truth = pixels.argmax(axis=1)
    return Split(
        name="test",
        classes=(),
        labels=np.zeros(count, np.int64),
        images=ArrayImages(pixels),
        indices=np.arange(count),
        preprocessing=PREPROCESSING,
        targets=ArrayTargets(truth.astype(np.int64)),
    )


def known(module: nn.Module, **section: Any) -> Any:
    spec = ModelSpec(source="tests:bright", input_size=(3, 8, 8), num_classes=3, preprocessing=PREPROCESSING)
    return check_known(
        Model(spec, module), split(), ModelSection(factory="tests:bright", **section), objective("segmentation")
    )


def test_the_alarm_knows_a_segmenter_that_is_right() -> None:
    found = known(Bright())
    assert found.interval.value == 1.0
    assert found.record["metric"] == "mean IoU"


@pytest.mark.parametrize(
    ("module", "section", "facts"),
    [
        (Bright(-1.0), {}, ("model.metric", "model.untrained")),
        (Bright(float("nan")), {}, ("nan", "loss")),
        (nn.Sequential(nn.Conv2d(3, 3, 1, bias=False)), {"metric": 0.99}, ("99.00 %", "model.metric")),
    ],
)
def test_the_alarm_refuses_what_cannot_be_right(
    module: nn.Module, section: dict[str, Any], facts: tuple[object, ...]
) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = torch.eye(3)[[1, 2, 0]][:, :, None, None]  # another class for each colour
    with refused(ModelError, *facts):
        known(module, **section)


def test_the_alarm_names_the_preprocessing_that_fits() -> None:
    class Swapped(Bright):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).flip(1)

    with refused(ModelError, "BGR"):
        known(Swapped())


def test_what_is_answered_is_shown() -> None:
    found = shown_images({"original": Bright(), "merged": Bright(-1.0)}, split(), objective("segmentation"), 3)
    assert len(found) == 3
    assert all(set(one.answers) == {"original", "merged"} for one in found)
    assert all(one.answers["original"].picture != one.answers["merged"].picture for one in found)
    assert shown_images({"original": Bright()}, split(), objective("segmentation"), 0) == ()


def test_where_draws_hold_nothing_to_measure_nothing_passes() -> None:
    numbers = masks(24)
    numbers[1:] = 255  # `ignore`: one image alone has counted pixels, and a draw in three misses it
    segmenter = objective("segmentation", ignore=255)
    answer = logits_of(np.where(numbers == 255, 0, numbers))
    found = checks(segmenter, numbers, answer, answer)
    assert found["mean IoU drop against the float model"].outcome == found["mean IoU"].outcome == "undecided"
    rows = segmenter.finished(segmenter.rows(tensors([answer[1:]]), torch.from_numpy(numbers[1:])))
    with pytest.raises(ModelError):  # the figure itself is still asked for
        metric_check(segmenter, rows, untrained=False)
