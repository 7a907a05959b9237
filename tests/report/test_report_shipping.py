"""The file to ship, wherever a report is read."""

from __future__ import annotations

import html
import io
from xml.etree import ElementTree as ET

from rich.console import Console
from sample_report import file_verdict, int8_checks, manifest, sample

from edgeprune.report.data import ReportData
from edgeprune.report.headline import cards, outcome, sentence
from edgeprune.report.junit import junit
from edgeprune.report.page import render
from edgeprune.report.summary import summary
from edgeprune.report.write import to_json
from edgeprune.verify.shipping import files_to_ship
from edgeprune.verify.verdict import FileVerdict


def printed(data: ReportData) -> str:
    out = io.StringIO()
    Console(file=out, width=1000, color_system=None).print(summary(data))
    return out.getvalue()


def with_files(*files: FileVerdict) -> ReportData:
    verdict = sample().verdict
    assert verdict is not None
    return sample(verdict=verdict.model_copy(update={"files": files, "shipping": files_to_ship(files)}), manifests=())


def test_one_file_of_each_runtime_is_named_with_the_reason() -> None:
    data = sample()
    named = {one.runtime: one.file for one in data.shipping}
    assert named == {
        "litert": "model_int8.tflite",
        "executorch": "model_int8.pte",
        "coreml": "model_fp16.mlpackage",
        "onnxruntime": "model_fp32.onnx",
    }
    page, said = html.unescape(render([data])), printed(data)
    for one in data.shipping:
        assert one.why in page
        assert one.words in said
    assert ReportData.model_validate_json(to_json(data)).shipping == data.shipping


def test_junit_marks_the_files_to_ship_and_no_other() -> None:
    marked = {
        suite.get("name", "").partition(".")[2]
        for suite in ET.fromstring(junit(sample())).iter("testsuite")
        if any(p.get("name") == "ship" for p in suite.iter("property"))
    }
    assert marked == {one.file for one in sample().shipping}


def test_an_int8_file_that_is_slower_is_called_so() -> None:
    data = with_files(
        file_verdict(manifest("tflite", "fp32", 1_780_000), 0.71), file_verdict(manifest("tflite", "int8", 1000), 0.80)
    )
    (one,) = data.shipping
    (slower,) = one.slower
    assert one.file == "model_fp32.tflite"
    assert slower.words in html.unescape(render([data]))
    assert slower.words in printed(data)


def test_where_no_file_passes_that_is_said() -> None:
    failed = file_verdict(manifest("tflite", "int8", 1000), 0.7, int8_checks(accuracy_fails=True))
    data = with_files(failed)
    (one,) = data.shipping
    assert one.file is None
    assert one.why in html.unescape(render([data]))
    assert one.words in printed(data)


def test_reports_of_before_name_none() -> None:
    verdict = sample().verdict
    assert verdict is not None
    old = sample(verdict=verdict.model_copy(update={"shipping": ()}))
    assert "The file to ship" not in render([old])
    assert "ship" not in printed(old)


def test_what_was_not_pruned_is_told_without_a_target() -> None:
    original = sample().stage("original")
    assert original is not None
    data = sample(
        pruned=False,
        target=None,
        against_original=None,
        layers=(),
        attempts=(),
        tuning=(),
        stages=(original, original.model_copy(update={"stage": "merged"})),
    )
    labels = [card.label for card in cards(data)]
    assert "Target" not in labels
    assert "Pruned model" not in labels
    assert outcome(data).word == "PASS"
    assert sentence(data).startswith("Not pruned; ")
    assert "not measured" not in " ".join(card.value for card in cards(data))
