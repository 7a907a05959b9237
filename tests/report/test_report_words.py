"""Figures in words, what is derived from the data, the terminal's summary."""

from __future__ import annotations

import io
import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console
from sample_report import (
    few_images,
    file_verdict,
    float_checks,
    int8_checks,
    latency_check,
    manifest,
    measurement,
    ratio,
    sample,
)

from edgeprune.graph.operations import OpSignature
from edgeprune.metric import ACCURACY, Metric
from edgeprune.report import text
from edgeprune.report.data import FileLine, StagePoint, layer_rows, operation_text
from edgeprune.report.figures.canvas import Scale, padded, tick_form
from edgeprune.report.figures.tradeoff import tradeoff
from edgeprune.report.headline import outcome, sentence
from edgeprune.report.junit import junit
from edgeprune.report.page import render
from edgeprune.report.summary import summary
from edgeprune.search.constraints import Binding
from edgeprune.space.units import Layer, Member, Structure, UnitGroup, Width
from edgeprune.verify.verdict import NOWHERE, Check, FileVerdict


def printed(data: object, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.71e-3, "2.71 ms"),
        (0.84e-3, "0.840 ms"),
        (27.1e-6, "27.1 µs"),
        (0.2, "200 ms"),
        (41.0, "41.0 s"),
        (200.0, "3 min 20 s"),
        (7325.0, "2 h 2 min"),
        (math.inf, "∞ s"),
        (0.0, "0 µs"),
    ],
)
def test_seconds(value: float, said: str) -> None:
    assert text.seconds(value) == said


def test_latency_has_unit_interval_and_quality() -> None:
    known = measurement(0.84).model_copy(update={"median_s": 0.84e-3, "low_s": 0.83e-3, "high_s": 0.86e-3})
    assert text.latency(known) == "0.840 ms (0.830\u20130.860), stable"
    across = known.model_copy(update={"median_s": 1.0e-3, "low_s": 0.99e-3, "high_s": 1.01e-3})
    assert text.latency(across) == "1.00 ms (0.990\u20131.01), stable"
    assert text.latency(None) == "not measured"


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (121.34, "dB", "121 dB"),
        (0.9872, "share", "98.72 %"),
        (math.inf, "dB", "∞ dB"),
        (-math.inf, "dB", "\u2212∞ dB"),
        (math.nan, "dB", "not a number"),
        (531_000.0, "bytes", "531 kB"),
        (1.35e-3, "s", "1.35 ms"),
        (3.2e-7, "", "3.20e-07"),
        (0.4976, "x", "0.498\u00d7"),
    ],
)
def test_checked_figures(value: float, unit: str, said: str) -> None:
    assert text.figure(value, unit) == said


def test_speed_is_claimed_only_outside_the_interval() -> None:
    assert text.speed_claim(ratio(1.35, 2.71)) == "faster"
    assert text.speed_claim(ratio(2.70, 2.71)) == "no measurable change"
    assert text.speed_claim(ratio(3.00, 2.71)) == "slower"
    low, high = text.speedup_interval(ratio(1.35, 2.71))
    assert low < 2.01 < high


@given(st.integers(1, 100_000), st.data())
def test_accuracy_interval_holds_the_accuracy(images: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, images))
    point = StagePoint(stage="s", accuracy=right / images, images=images)
    between = point.accuracy_interval
    assert between is not None
    assert 0 <= between[0] <= right / images + 1e-12
    assert right / images - 1e-12 <= between[1] <= 1


def test_accuracy_interval_is_wilsons() -> None:
    """8 of 10: (0.4902, 0.9433), as in R's prop.test(8, 10, correct = FALSE)."""
    between = StagePoint(stage="s", accuracy=0.8, images=10).accuracy_interval
    assert between == pytest.approx((0.4902, 0.9433), abs=1e-4)
    with pytest.raises(ValidationError):
        StagePoint(stage="s", accuracy=93.4)


@pytest.mark.parametrize(
    ("checks", "format_", "standing"),
    [
        (int8_checks(), "tflite", "proven"),
        (int8_checks(accuracy_fails=True), "tflite", "failed"),
        (tuple(c for c in int8_checks() if c.outcome == "info"), "tflite", "unproven"),
        (float_checks("fp16"), "coreml", "reference"),
        ((*int8_checks(), latency_check(uncertain=True)), "tflite", "uncertain"),
        ((*int8_checks(accuracy_fails=True), latency_check(uncertain=True)), "tflite", "failed"),
        ((*int8_checks(), few_images()), "tflite", "undecided"),
        ((*int8_checks(accuracy_fails=True), few_images()), "tflite", "failed"),
    ],
)
def test_a_file_is_proven_only_by_a_gate_that_held(checks: tuple[Check, ...], format_: str, standing: str) -> None:
    of = manifest(format_, "fp16" if format_ == "coreml" else "int8", 531_000)
    assert FileLine(file=of.file, manifest=of, verdict=file_verdict(of, None, checks)).standing == standing


def test_files_pair_manifest_and_verdict_by_format_precision_and_name() -> None:
    of = manifest("tflite", "int8", 531_000)
    verdict = sample().verdict
    assert verdict is not None
    moved = file_verdict(of, 0.7).model_copy(update={"file": f"export/{of.file}"})
    data = sample(verdict=verdict.model_copy(update={"files": (moved,)}))
    assert len(data.files) == 6
    (paired,) = [line for line in data.files if line.verdict is not None]
    assert paired.manifest == of
    assert [line.standing for line in data.files].count("unproven") == 5
    assert outcome(data).word == "NOT PROVEN"


def test_outcome_needs_the_target_too() -> None:
    assert outcome(sample()).word == "PASS"
    target = sample().target
    assert target is not None
    missed = outcome(sample(target=target.model_copy(update={"met": False, "reached": "0.61x"})))
    assert missed.word == "FAIL"
    assert "0.61x" in missed.why
    of, verdict = manifest("tflite", "int8", 531_000), sample().verdict
    assert verdict is not None
    shaky = file_verdict(of, 0.71, (*int8_checks(), latency_check(uncertain=True)))
    noisy = outcome(sample(verdict=verdict.model_copy(update={"files": (shaky,)}), manifests=(of,)))
    assert (noisy.word, "too noisy" in noisy.why) == ("NOT PROVEN", True)
    assert outcome(sample(verdict=None, manifests=())).word == "NOT PROVEN"


def test_too_few_images_are_no_pass_and_said_wherever_the_run_is_told() -> None:
    of, verdict = manifest("tflite", "int8", 531_000), sample().verdict
    assert verdict is not None
    few = file_verdict(of, 0.71, (*int8_checks(), few_images()))
    data = sample(verdict=verdict.model_copy(update={"files": (few,)}), manifests=(of,))
    assert outcome(data).word == "NOT PROVEN"
    assert "too few" in outcome(data).why
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(summary(data))
    for told in (console.export_text(), render([data])):
        assert "NOT PROVEN" in told
        assert "100.00 % (95 %: 67.56 to 100.00)" in told
        assert "1 proven" not in told
    (error,) = ET.fromstring(junit(data)).iter("error")
    assert error.attrib["type"] == "too few test images"


def test_a_change_is_told_with_its_interval() -> None:
    assert text.change(ACCURACY, 0.934, 0.931, (-0.0062, 0.0002)) == "\u22120.30 points (\u22120.62 to +0.02)"
    assert text.change(ACCURACY, 0.9, 0.9, (-0.2, 0.2)) == "no change (\u221220.00 to +20.00)"
    assert "not known" in text.change(ACCURACY, 0.9, 0.9)


def test_a_change_of_another_metric_is_told_in_its_unit() -> None:
    decibels = Metric("PSNR", unit="dB", drop="relative")
    assert text.change(decibels, 28.0, 27.5, (-0.03, -0.01)) == "\u22120.50 dB (\u22123.00 to \u22121.00 % of it)"
    assert text.metric_figure(decibels, 28.04) == "28.0 dB"
    point = StagePoint(stage="tuned", accuracy=28.04, metric=decibels, interval=(27.0, 29.0), images=40)
    assert text.accuracy(point) == "28.0 dB (27.0\u201329.0, 40 images)"
    assert "(\u22120.62 to +0.02)" in sentence(sample())


def test_layer_rows_follow_the_structure() -> None:
    convolution = OpSignature("conv2d", 3, 16, 32, 32, (3, 3), (2, 2), (1, 1), function="relu")
    indices = np.arange(16, dtype=np.int64).reshape(16, 1)
    group = UnitGroup("conv1:out", 16, (Member("conv1.weight", 0, indices),), (Member("fc.weight", 1, indices),))
    structure = Structure(
        groups=(group,),
        layers=(
            Layer("conv1", convolution, Width(3), Width(0, ((("conv1:out",), 1),))),
            Layer("fc", OpSignature("linear", 16, 10), Width(0, ((("conv1:out",), 1),)), Width(10)),
        ),
        frozen=(),
    )
    first, second = layer_rows(structure, {"conv1:out": 8}, lambda operation: operation.macs * 1e-9)
    assert (first.width_before, first.width_after) == (16, 8)
    assert first.operation == "conv2d 3x3/2 + relu, 32x32 px"
    assert first.macs_after * 2 == first.macs_before
    assert first.cost_after_s == pytest.approx(first.macs_after * 1e-9)
    assert (second.inputs_before, second.inputs_after, second.width_after) == (16, 8, 10)
    assert layer_rows(structure, {"conv1:out": 8})[0].cost_before_s is None
    assert operation_text(OpSignature("linear", 16, 10)) == "linear"


@settings(max_examples=200)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_in_range_apart_and_told_apart(low: float, span: float, count: int) -> None:
    scale = Scale(low, low + span, 0, 500)
    if scale.high <= scale.low or span < abs(low) * 1e-6:
        return
    ticks = scale.ticks(count)
    assert 1 <= len(ticks) <= 2 * count + 2
    slack = span * 1e-6
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    said = [tick_form(ticks)(tick) for tick in ticks]
    assert len(set(said)) == len(said)


def test_padding_survives_one_value_and_none() -> None:
    assert padded([3.0])[0] < 3.0 < padded([3.0])[1]
    assert padded([])[0] < padded([])[1]
    assert padded([0.0], zero=True)[1] > 0


def test_summary_says_what_the_page_says() -> None:
    said = printed(summary(sample()))
    for words in ("PASS", "2.01\u00d7 faster", "93.1 %", "model_int8.tflite", "✓ proven", "◐ reference only", "531 kB"):
        assert words in said
    assert "1.35 ms (1.33\u20131.36), stable" in said


@pytest.mark.parametrize("width", [80, 100, 160])
def test_names_of_files_are_whole_where_a_terminal_has_room(width: int) -> None:
    """They broke in the middle at 80 columns, and could not be copied."""
    said = printed(summary(sample()), width=width)
    assert max(map(len, said.splitlines())) <= width
    for line in sample().files:
        assert any(row.startswith(f"{line.file} ") for row in said.splitlines()), line.file
        assert line.verdict is not None
        for figure in text.latency(line.verdict.latency).split():
            assert figure in said.split()


def test_in_a_narrow_terminal_they_are_folded_and_nothing_of_them_is_lost() -> None:
    said = printed(summary(sample()), width=60)
    column = "".join(row[:11].strip() for row in said.splitlines())
    for line in sample().files:
        assert line.file in column


def test_a_file_that_was_never_run_is_not_proven_and_no_images_are_missed() -> None:
    verdict = sample().verdict
    assert verdict is not None
    run = Check(name="run", value=0, unit="files", limit=1, outcome="undecided", why="no runner knows .numbers files")
    never = FileVerdict(file="m.numbers", format="numbers", precision="fp32", executed_on=NOWHERE, checks=(run,))
    data = sample(verdict=verdict.model_copy(update={"files": (never,)}), manifests=())
    (line,) = data.files
    assert line.standing == "unproven"
    assert outcome(data).word == "NOT PROVEN"
    told = printed(summary(data))
    assert "no runner knows .numbers files" in told
    assert "too few" not in told
    (error,) = ET.fromstring(junit(data)).iter("error")
    assert error.attrib["type"] == "not run"


def test_what_binds_is_said_where_it_is_known() -> None:
    binds = Binding(fastest_share=0.31, uncut_share=0.02, at_least=("conv1:out",), groups=3, asked=())
    assert f"what binds: {binds.words}" in printed(summary(sample(binding=binds)))
    assert "what binds" not in printed(summary(sample()))


def test_summary_names_failures_and_obeys_no_markup() -> None:
    of = manifest("tflite", "int8", 531_000)
    verdict = sample().verdict
    assert verdict is not None
    failed = file_verdict(of, 0.71, int8_checks(accuracy_fails=True))
    data = sample(
        title="[bold]model[/bold] [/nothing]",
        verdict=verdict.model_copy(update={"files": (failed,)}),
        manifests=(of,),
        notes=("[red]note",),
    )
    said = printed(summary(data))
    assert "[bold]model[/bold] [/nothing]" in said
    assert "[red]note" in said
    assert "✗ model_int8.tflite accuracy drop against the float model: 1.21 %, limit 0.50 %" in said


def test_the_final_model_is_the_last_that_was_tested_whatever_stage_left_it() -> None:
    original, pruned, tuned, merged, file = sample().stages
    healed = merged.model_copy(update={"stage": "healed"})
    assert sample().final == merged
    assert sample(stages=(original, pruned, healed, file)).final == healed
    assert sample(stages=(original, pruned, tuned, file.model_copy(update={"accuracy": None}))).final == tuned
    assert sample(stages=(original, pruned.model_copy(update={"accuracy": None}), file)).final is None
    trails = [
        re.findall(r"<path[^>]*trail[^>]*>", tradeoff((original, pruned, last))) for last in (healed, merged, file)
    ]
    assert trails[0] == trails[1] != trails[2]  # it leads to every model, and to no file
