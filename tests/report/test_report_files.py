"""The three files of a report: round trip, determinism, refusal of what is not a report, JUnit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_report import file_verdict, float_checks, int8_checks, latency_check, manifest, sample

from edgeprune.errors import EdgePruneError, RunError
from edgeprune.report.data import ReportData
from edgeprune.report.junit import junit
from edgeprune.report.write import read_report, to_json, write_report
from edgeprune.verify.verdict import Check


def with_checks(*checks: Check) -> ReportData:
    of = manifest("tflite", "int8", 531_000)
    verdict = sample().verdict
    assert verdict is not None
    return sample(verdict=verdict.model_copy(update={"files": (file_verdict(of, 0.71, checks),)}), manifests=(of,))


def test_report_is_written_and_read_back(tmp_path: Path) -> None:
    data = sample()
    page = write_report(data, tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert sorted(p.name for p in page.parent.iterdir()) == ["junit.xml", "report.html", "report.json"]
    assert read_report(page.parent) == data
    assert read_report(page.parent / "report.json") == data


def test_same_data_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_report(read_report(tmp_path / "a") if folder == "b" else sample(), tmp_path / folder)
    for name in ("report.html", "report.json", "junit.xml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@settings(max_examples=40, deadline=None)
@given(st.floats(), st.text(max_size=30))
def test_any_figure_and_text_survive_the_round_trip(value: float, word: str) -> None:
    data = with_checks(Check(name=word, value=value, unit="dB", limit=None, outcome="info", why=word))
    try:
        content = to_json(data)
    except UnicodeEncodeError:
        pytest.fail("JSON is plain ASCII")
    json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = ReportData.model_validate_json(content)
    check = back.verdict.files[0].checks[0]  # type: ignore[union-attr]
    assert check.value == value or (math.isnan(check.value) and math.isnan(value))
    assert check.name == word


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"{", b'{"title": 3}', b"\xff\xfe", b"null"])
def test_what_is_no_report_is_refused_with_the_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with refused(RunError, tmp_path / "report.json") as caught:
        read_report(tmp_path)
    assert caught.value.hint


def test_unknown_key_is_refused(tmp_path: Path) -> None:
    tree = json.loads(to_json(sample()))
    tree["verdicts"] = []
    (tmp_path / "report.json").write_text(json.dumps(tree))
    with pytest.raises(RunError, match="verdicts"):
        read_report(tmp_path)


def test_missing_report_is_refused(tmp_path: Path) -> None:
    with refused(RunError, tmp_path):
        read_report(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((EdgePruneError, OSError)):
        write_report(sample(), tmp_path / "file" / "report")
    assert (tmp_path / "file").read_text() == "in the way"


def test_junit_has_a_case_for_every_check() -> None:
    data = sample()
    root = ET.fromstring(junit(data))
    assert data.verdict is not None
    expected = [(f"local.{f.file}", c.name) for f in data.verdict.files for c in f.checks]
    found = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert found == expected
    assert root.attrib["tests"] == str(len(expected))
    assert root.attrib["failures"] == "0"
    assert root.attrib["skipped"] == str(sum(c.outcome == "info" for f in data.verdict.files for c in f.checks))
    suite = root.find("testsuite[@name='local.model_int8.tflite']")
    assert suite is not None
    facts = {p.attrib["name"]: p.attrib["value"] for p in suite.findall("properties/property")}
    assert facts["latency"] == "0.710 ms (0.703\u20130.719), stable"
    assert facts["sha256"] == f"{531_000:064x}"
    agreement = suite.find("testcase[@name='top-1 agreement']/properties")
    assert agreement is not None
    assert {p.attrib["name"]: p.attrib["value"] for p in agreement} == {
        "value": "0.9872",
        "unit": "share",
        "limit": "0.97",
        "why": "same class on 9872 of 10000 test images",
    }


def test_junit_failure_carries_figure_limit_and_reason() -> None:
    root = ET.fromstring(junit(with_checks(*int8_checks(accuracy_fails=True))))
    failures = list(root.iter("failure"))
    assert [f.attrib["message"] for f in failures] == ["accuracy drop against the float model: 1.21 %, limit 0.50 %"]
    assert "91.89 % in the file" in (failures[0].text or "")
    assert root.attrib["failures"] == "1"


def test_junit_limit_missed_on_a_noisy_device_is_an_error_not_a_failure() -> None:
    root = ET.fromstring(junit(with_checks(*float_checks("fp32"), latency_check(uncertain=True))))
    assert (root.attrib["failures"], root.attrib["errors"]) == ("0", "1")
    assert [e.attrib["message"] for e in root.iter("error")] == ["latency: 0.560\u00d7, limit 0.515\u00d7"]


def test_junit_file_that_was_not_checked_is_no_pass() -> None:
    root = ET.fromstring(junit(sample(verdict=None)))
    cases = list(root.iter("testcase"))
    assert len(cases) == 6
    assert all(case.find("skipped") is not None for case in cases)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=30))
def test_junit_is_valid_xml_whatever_the_texts(word: str) -> None:
    check = Check(name=word, value=1.0, unit=word, limit=2.0, outcome="fail", why=word)
    ET.fromstring(junit(with_checks(check).model_copy(update={"title": word})))
