"""The verdict as JUnit XML: one test case for every device, file and check, so that CI systems show it."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from edgeprune.report import text
from edgeprune.report.data import FileLine, ReportData
from edgeprune.verify.verdict import NEVER_RUN, Check

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot carry


def junit(data: ReportData) -> bytes:
    """JUnit XML (UTF-8) of a run: a suite per file, a case per check with its figures as properties.

    A failed gate is a failure; one that noise or too few images leave open is an error. A figure without a gate is
    skipped ("no gate"), and so is a file that was exported but never checked: neither can look like a pass.
    """
    device = data.verdict.device if data.verdict else (data.device.id if data.device else "no device")
    ships = {one.file: one.why for one in data.shipping if one.file}
    suites = [_suite(line, device, ships.get(line.file)) for line in data.files]
    root = ET.Element("testsuites", _clean({"name": f"edgeprune: {data.title}", **_totals(suites)}))
    root.extend(suites)
    ET.indent(root, " ")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(line: FileLine, device: str, ship: str | None) -> ET.Element:
    checks = line.verdict.checks if line.verdict else ()
    where = f"{device}.{line.file}"
    cases = [_case(check, where) for check in checks]
    if not cases:
        case = ET.Element("testcase", _clean({"classname": where, "name": "checked"}))
        ET.SubElement(case, "skipped", {"message": "this file was exported but not checked"})
        cases = [case]
    suite = ET.Element("testsuite")
    properties = ET.SubElement(suite, "properties")
    for name, value in (_facts(line, device) | ({"ship": ship} if ship else {})).items():
        ET.SubElement(properties, "property", _clean({"name": name, "value": value}))
    suite.extend(cases)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
    }
    suite.attrib = _clean({"name": where, **counts})
    return suite


def _case(check: Check, where: str) -> ET.Element:
    case = ET.Element("testcase", _clean({"classname": where, "name": check.name}))
    properties = ET.SubElement(case, "properties")
    limit = "none" if check.limit is None else repr(check.limit)
    facts = {"value": repr(check.value), "unit": check.unit, "limit": limit, "why": check.why}
    if check.interval is not None:
        facts |= {"low": repr(check.interval[0]), "high": repr(check.interval[1])}
    for name, value in facts.items():
        ET.SubElement(properties, "property", _clean({"name": name, "value": value}))
    said = f"{text.check_figure(check)}, limit {text.check_limit(check)}"
    if check.outcome in ("fail", "undecided"):
        # A limit missed on a noisy device, or that few images cannot tell, is no regression.
        tag, kind = ("error", "device too noisy") if check.uncertain else ("failure", "gate")
        if check.outcome == "undecided":
            tag, kind = "error", "not run" if check.name == NEVER_RUN else "too few test images"
        failure = ET.SubElement(case, tag, _clean({"message": f"{check.name}: {said}", "type": kind}))
        failure.text = _ILLEGAL.sub("\ufffd", check.why)
    elif check.outcome == "info":
        ET.SubElement(case, "skipped", _clean({"message": f"no gate; {said}"}))
    return case


def _facts(line: FileLine, device: str) -> dict[str, str]:
    """What is known of the file beside its checks."""
    facts = {"device": device, "format": line.format, "precision": line.precision, "standing": line.standing}
    if line.manifest:
        facts |= {"sha256": line.manifest.sha256, "size_bytes": str(line.manifest.size_bytes)}
    if line.verdict:
        facts["executed_on"] = line.verdict.executed_on
        if line.verdict.latency:
            facts |= {"latency_s": repr(line.verdict.latency.median_s), "latency": text.latency(line.verdict.latency)}
        if line.verdict.against_original:
            facts["against_original"] = text.ratio(line.verdict.against_original)
    return facts


def _totals(suites: list[ET.Element]) -> dict[str, str]:
    return {
        key: str(sum(int(suite.attrib[key]) for suite in suites)) for key in ("tests", "failures", "errors", "skipped")
    }


def _clean(attributes: dict[str, str]) -> dict[str, str]:
    return {name: _ILLEGAL.sub("\ufffd", value) for name, value in attributes.items()}
