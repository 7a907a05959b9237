"""The page: what a reader sees, nothing from outside, nothing injected."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_report import file_verdict, int8_checks, layer_table, manifest, measurement, ratio, sample

from edgeprune.errors import UsageError
from edgeprune.report.data import Attempt, Epoch, LayerRow, ReportData, StagePoint
from edgeprune.report.page import render

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = (
    '</title></style><script>alert(1)</script><img src=x onerror="alert(2)">" onload="x' + "'&<svg/onload=1>{{ 7*7 }}"
)


class Page(HTMLParser):
    """Collects tags, attributes and text, and notices tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.within_a_word = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within_a_word = tag == "wbr" and not attrs
        if self.within_a_word:
            return
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        if self.within_a_word:
            self.words[-1] += data
        else:
            self.words.append(data)
        self.within_a_word = False

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_page_says_the_result_at_the_top() -> None:
    page = Page(render([sample()]))
    top = page.text[page.text.index("</style>") if "</style>" in page.text else 0 :]
    for said in ("PASS", "2.01\u00d7 faster", "93.4 % → 93.1 %", "\u22120.30 points", "6 of 6 pass", "0.5x ✓ met"):
        assert said in top
    assert "1.35 ms (1.33\u20131.36), stable" in top
    assert "1 pass by reference execution, no device" in top


def test_long_names_go_to_the_next_line_where_their_parts_end() -> None:
    name = "mobilenetv2_100-0.5x:model<b>.tflite"
    one = manifest("tflite", "fp32", 1000).model_copy(update={"file": name})
    page = render([sample(manifests=(one,), verdict=None)])
    parts = "mobilenetv2_<wbr>100-<wbr>0.5x:<wbr>model&lt;b&gt;<wbr>.tflite"
    assert page.count(parts) == 2  # in the table, and over its manifest
    assert "overflow-wrap: anywhere" not in re.findall(r"tbody th {[^}]*}", page)[0]


def test_page_is_well_formed_and_asks_for_nothing() -> None:
    html = render([sample()])
    page = Page(html)
    assert not page.misnested
    assert not page.open
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.tags.count("link") == 1  # the empty icon, so that a browser asks no server for one
    targets = [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert all(value.startswith(("#", "data:,")) for value in targets)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html


def test_page_is_light() -> None:
    assert len(render([sample()]).encode()) < 400_000


def test_every_figure_is_there_with_a_text_alternative() -> None:
    page = Page(render([sample()]))
    labels = [value for name, value in page.attributes if name == "aria-label"]
    for start in (
        "Top-1 accuracy against latency",
        "Latency samples",
        "Output channels",
        "Steps of the prune loop",
        "Tuning",
    ):
        assert any(label.startswith(start) for label in labels), start
    assert any("original: 93.4 % (92.9" in label and "2.71 ms (2.68" in label for label in labels)


def test_ids_are_unique_also_when_runs_are_compared() -> None:
    page = Page(render([sample(), sample(title="other")]))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in page.attributes if name == "aria-labelledby"} <= set(ids)


def test_same_data_same_page() -> None:
    assert render([sample()]) == render([ReportData.model_validate(sample().model_dump())])


def test_failed_gate_shows_its_reason_and_fails_the_run() -> None:
    int8 = manifest("tflite", "int8", 531_000)
    bad = file_verdict(int8, 0.71, int8_checks(accuracy_fails=True))
    data = sample(
        verdict=sample().verdict.model_copy(update={"files": (bad,)}),
        manifests=(int8,),  # type: ignore[union-attr]
    )
    page = Page(render([data]))
    assert "✗ FAIL" in page.text
    assert "1 of 1 file failed: model_int8.tflite" in page.text
    assert "93.10 % before, 91.89 % in the file" in page.text
    assert ("open", "") in page.attributes  # its checks are unfolded


def test_a_page_without_measurements_claims_nothing() -> None:
    bare = ReportData(title="bare", spec=sample().spec)
    page = Page(render([bare]))
    assert "NOT PROVEN" in page.text
    assert "not measured" in page.text
    assert not page.misnested
    assert "faster" not in page.text


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (sample(against_original=ratio(2.70, 2.71)), "no measurable change"),
        (sample(against_original=ratio(3.10, 2.71)), "slower"),
        (sample(against_original=ratio(1.35, 2.71, quality="throttled")), "throttled"),
    ],
)
def test_speed_is_said_as_it_is(data: ReportData, word: str) -> None:
    page = Page(render([data]))
    assert word in page.text[: page.text.index("Exported files Checked")]


def test_thin_data_still_makes_whole_figures() -> None:
    data = sample(
        stages=(StagePoint(stage="original", latency=measurement(2.71)), StagePoint(stage="pruned", accuracy=0.5)),
        attempts=(Attempt(step=1, predicted_s=1e-3, target_s=1e-3, within_tolerance=False),),
        tuning=(Epoch(epoch=0, loss=math.nan, lr=0.1, seconds=1.0),),
        layers=(LayerRow(name="a", operation="conv2d", width_before=1, width_after=1),),
        tolerance=None,
    )
    html = render([data])
    page = Page(html)
    assert not page.misnested
    drawn = [value for name, value in page.attributes if name in ("d", "x", "y", "cx", "cy", "width", "points")]
    assert not [value for value in drawn if "nan" in value or "inf" in value]
    assert "not in the table" in page.text


def test_comparison_puts_runs_side_by_side_and_draws_a_shared_original_once() -> None:
    page = Page(render([sample(title="half"), sample(title="third", against_original=ratio(0.9, 2.71))]))
    assert "2 runs compared" in page.text
    assert "1: half" in page.text
    assert "2: third" in page.text
    assert "1 1, 2: original" in page.text  # point 1 of the figure: the original of runs 1 and 2


def test_nothing_to_render_is_a_usage_error() -> None:
    with refused(UsageError, "run"):
        render([])


def hostile_everywhere(word: str) -> ReportData:
    """Every free text of the data replaced."""
    data = sample()
    files = tuple(
        v.model_copy(
            update={
                "executed_on": word,
                "checks": tuple(c.model_copy(update={"name": word, "why": word, "unit": word}) for c in v.checks),
            }
        )
        for v in data.verdict.files  # type: ignore[union-attr]
    )
    assert data.device is not None
    assert data.merge is not None
    return sample(
        title=word,
        spec=data.spec.model_copy(update={"source": word, "labels": (word,) * 10}),
        device=data.device.model_copy(update={"id": word, "cpu": word, "os": word, "cpu_features": (word,)}),
        recipe=word,
        target=data.target.model_copy(update={"target": word, "reached": word, "why": word}),  # type: ignore[union-attr]
        stages=tuple(p.model_copy(update={"stage": word}) for p in data.stages),
        against_original=data.against_original.model_copy(update={"evidence": word}),  # type: ignore[union-attr]
        layers=tuple(r.model_copy(update={"name": word, "operation": word}) for r in layer_table()[:4]),
        merge=data.merge.model_copy(update={"skipped": {word: word}, "checked_on": word}),
        verdict=data.verdict.model_copy(update={"device": word, "files": files}),  # type: ignore[union-attr]
        manifests=tuple(m.model_copy(update={"labels": (word,), "toolkit": {word: word}}) for m in data.manifests),
        versions={word: word},
        created=word,
        timings={word: 1.0},
        notes=(word,),
    )


def test_hostile_texts_stay_texts() -> None:
    page = Page(render([hostile_everywhere(HOSTILE)]))
    plain = Page(render([hostile_everywhere("two words")]))  # a stage of one word is a model, with a space a file
    assert page.tags == plain.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in plain.attributes]
    assert "{{ 7*7 }}" in page.text
    assert not page.misnested


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_any_text_keeps_the_page_whole(word: str) -> None:
    html = render([sample(title=word, notes=(word,), layers=(), attempts=(), tuning=(), recipe=word)])
    plain = render([sample(title="w", notes=("w",), layers=(), attempts=(), tuning=(), recipe="w" if word else "")])
    assert Page(html).tags == Page(plain).tags
    html.encode("utf-8")


@pytest.mark.parametrize(
    ("kept", "words"), [(0, "Kept: the model before the first"), (2, "Kept: epoch 2"), (None, None)]
)
def test_the_tuning_figure_names_the_epoch_that_was_kept(kept: int | None, words: str | None) -> None:
    html = render([sample(kept_epoch=kept)])
    assert ("Kept:" in html) == (words is not None)
    assert words is None or words in html
