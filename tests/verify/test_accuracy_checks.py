"""Checks of what a file answers, on outputs made up so that every figure is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from made_up_manifest import manifest
from safetensors.numpy import save_file

from edgeprune.artifacts.manifest import Manifest
from edgeprune.errors import RunError
from edgeprune.recipe import VerdictLimits
from edgeprune.tasks.objective import CLASSIFYING, tensors
from edgeprune.tasks.task import Rows
from edgeprune.verify.accuracy import accuracy_checks, parity_check
from edgeprune.verify.execute import Execution, Floats
from edgeprune.verify.outputs import Answers, FileAnswers, broken_images
from edgeprune.verify.verdict import Check

Labels = npt.NDArray[np.int64]
LABELS = np.arange(1000) % 10
RIGHT = np.eye(10, dtype=np.float32)[LABELS]


def rows(logits: Floats, labels: Labels) -> Rows:
    return CLASSIFYING.rows(tensors([np.nan_to_num(logits)]), torch.from_numpy(labels))


def answers(file: Manifest, labels: Labels, floats: Floats, logits: Floats) -> Answers:
    """The float model's answers, and a file's."""
    same = CLASSIFYING.agreement([np.nan_to_num(logits)], [floats])
    found = FileAnswers(rows(logits, labels), same, broken_images((logits,)), "here")
    return Answers(rows(floats, labels), {file.file: found}, len(labels))


def wrong(logits: Floats, count: int) -> Floats:
    """The first `count` images take the next class."""
    changed = logits.copy()
    changed[:count] = np.roll(changed[:count], 1, axis=1)
    return changed


def checks(
    file: Manifest, logits: Floats, limits: VerdictLimits | None = None, original: Floats | None = None
) -> dict[str, Check]:
    outputs = answers(file, LABELS, wrong(RIGHT, 100), logits)
    before = None if original is None else rows(original, LABELS)
    return {c.name: c for c in accuracy_checks(file, outputs, CLASSIFYING, limits or VerdictLimits(), before)}


def test_int8_figures_and_gates() -> None:
    int8 = manifest(precision="int8", weights_precision="int8")
    good = checks(int8, wrong(RIGHT, 105), original=wrong(RIGHT, 50))
    assert good["top-1 agreement"].value == pytest.approx(0.995)
    assert good["top-1 accuracy"].value == pytest.approx(0.895)
    assert good["accuracy drop against the float model"].value == pytest.approx(0.005)
    assert good["accuracy drop against the float model"].outcome == "pass"
    assert good["accuracy drop against the original"].value == pytest.approx(0.055)
    assert good["accuracy drop against the original"].outcome == "info"
    bad = checks(int8, wrong(RIGHT, 131))
    assert bad["top-1 agreement"].outcome == "fail"
    assert bad["accuracy drop against the float model"].outcome == "fail"
    assert "accuracy drop against the original" not in bad


def test_float_files_are_told_but_not_held_against_int8_gates() -> None:
    found = checks(manifest(), wrong(RIGHT, 300))
    assert {c.outcome for c in found.values()} == {"info"}


@pytest.mark.parametrize(("labels", "outcome"), [([0, 1], "undecided"), ([3] * 500, "undecided"), ([0, 1] * 5, "info")])
def test_images_on_which_chance_could_be_right_pass_nothing(labels: list[int], outcome: str) -> None:
    right = np.eye(10, dtype=np.float32)[labels]
    file = manifest()
    outputs = answers(file, np.array(labels), right, right)
    found = {
        untrained: accuracy_checks(file, outputs, CLASSIFYING, VerdictLimits(), untrained=untrained)
        for untrained in (False, True)
    }
    assert [c.outcome for c in found[False] if c.name == "top-1 accuracy"] == [outcome]
    assert {c.outcome for c in found[True]} == {"info"}


@pytest.mark.parametrize(
    "named", [np.zeros(1000, int), np.roll(LABELS, 1), np.random.default_rng(0).permutation(LABELS)]
)
def test_a_file_that_guesses_fails_without_a_gate(named: Labels) -> None:
    file, guessed = manifest(), np.eye(10, dtype=np.float32)[named]
    outputs = answers(file, LABELS, guessed, guessed)
    found = {
        untrained: accuracy_checks(file, outputs, CLASSIFYING, VerdictLimits(), untrained=untrained)
        for untrained in (False, True)
    }
    assert [c.outcome for c in found[False] if c.name == "top-1 accuracy"] == ["fail"]
    assert {c.outcome for c in found[True]} == {"info"}


def test_every_share_of_images_has_its_interval() -> None:
    found = checks(manifest(), wrong(RIGHT, 300), original=RIGHT)
    assert all(c.interval is not None and c.interval[0] <= c.value <= c.interval[1] for c in found.values())
    low, high = found["top-1 accuracy"].interval or (0, 0)
    assert (low, high) == (pytest.approx(0.6708, abs=1e-3), pytest.approx(0.7276, abs=1e-3))  # Wilson, 700 of 1000


def test_the_drop_against_the_original_holds_for_every_file() -> None:
    """It is paired: an image that both name wrongly tells nothing."""
    limits = VerdictLimits(accuracy_drop=0.02)
    for precision in ("fp32", "int8"):
        file = manifest(precision=precision)
        held = checks(file, wrong(RIGHT, 100), limits, original=wrong(RIGHT, 80))["accuracy drop against the original"]
        assert held.value == pytest.approx(0.02)
        assert held.outcome == "pass"
        held = checks(file, wrong(RIGHT, 100), limits, original=wrong(RIGHT, 70))["accuracy drop against the original"]
        assert held.outcome == "fail"


def test_a_file_that_answers_nonsense_fails_whatever_the_gates() -> None:
    broken = RIGHT.copy()
    broken[3, 2] = np.nan
    broken[7, 1] = np.inf
    found = checks(manifest(), broken, VerdictLimits(int8_agreement=False, int8_accuracy_drop=False))
    assert list(found) == ["finite outputs"]
    assert found["finite outputs"].outcome == "fail"
    assert "2 of 1000" in found["finite outputs"].why


def parity(folder: Path, file: Manifest, error: float, limits: VerdictLimits | None = None) -> Check:
    inputs = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    outputs = np.ones((4, 10), np.float32)
    save_file({"input": inputs, "output": outputs}, folder / "reference.safetensors")

    def run(images: Floats) -> Execution:
        assert np.array_equal(images, inputs)
        return Execution((outputs * np.float32(1 + error),), "local", None)

    return parity_check(file, folder, run, limits or VerdictLimits())


@pytest.mark.parametrize(
    ("precision", "error", "outcome"),
    [
        ("fp32", 0.0, "pass"),
        ("fp32", 2e-6, "pass"),
        ("fp32", 1e-4, "fail"),
        ("fp16", 1e-3, "pass"),
        ("fp16", 1e-2, "fail"),
        ("int8", 0.3, "info"),
    ],
)
def test_parity_is_held_against_the_gate_of_the_precision(
    tmp_path: Path, precision: str, error: float, outcome: str
) -> None:
    found = parity(tmp_path, manifest(precision=precision), error)
    assert found.outcome == outcome
    assert found.value == np.inf if error == 0 else found.value == pytest.approx(-20 * np.log10(error), abs=0.5)


def test_parity_without_a_gate_is_told(tmp_path: Path) -> None:
    assert parity(tmp_path, manifest(), 0.5, VerdictLimits(sqnr_fp32_db=False)).outcome == "info"


def test_nonsense_fails_parity_even_without_a_gate(tmp_path: Path) -> None:
    found = parity(tmp_path, manifest(precision="fp16"), np.inf, VerdictLimits(sqnr_fp16_db=False))
    assert found.outcome == "fail"
    assert "half precision" in found.why


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_reference_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "reference.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="reference"):
        parity_check(manifest(), tmp_path, lambda images: Execution(images, "local", None), VerdictLimits())


def test_a_reference_without_its_tensors(tmp_path: Path) -> None:
    save_file({"input": np.ones((2, 3, 8, 8), np.float32)}, tmp_path / "reference.safetensors")
    with pytest.raises(RunError, match="reference"):
        parity_check(manifest(), tmp_path, lambda images: Execution(images, "local", None), VerdictLimits())
