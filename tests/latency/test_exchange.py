"""Rows carried from table to table: all of them, the newer of two, and nothing damaged."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from facts import refused
from test_cost import BUILD, CONV, SETTING, measured

from edgeprune.errors import UsageError
from edgeprune.latency.exchange import Filter, bring, export_rows, forget, import_rows, summarize
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.rows import Row
from edgeprune.latency.staircase import SWEEP, fit_staircase
from edgeprune.latency.table import LatencyTable, Setting

OTHER = Setting("other", BUILD.id, 4)


def at(time: float, seconds: float = 1.0, quality: str = "stable") -> Measurement:
    found = measured(seconds)
    after = found.after.model_copy(update={"time": time})
    return found.model_copy(update={"after": after, "quality": quality})


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    made = LatencyTable(tmp_path / "t.sqlite")
    made.put(SETTING, CONV, at(100.0))
    made.put(SETTING, CONV.with_channels(8, 8), at(200.0, quality="noisy"))
    made.put(OTHER, CONV, at(300.0))
    made.put_unsupported(OTHER, CONV.with_channels(8, 8), "it crashed")
    made.put_model(SETTING, "ab", ModelRun(base="ab", measurement=at(50.0), before_s=0.0, layers=()))
    made.put_staircase(SETTING, "conv2d 3x3", fit_staircase({width: float(width) for width in SWEEP}))
    return made


def test_the_summary_counts_by_setting(table: LatencyTable) -> None:
    here, there = sorted(summarize(table), key=lambda line: line.threads)
    assert (here.device, here.build, here.threads) == (SETTING.device, SETTING.build, SETTING.threads)
    assert (here.operations, here.noisy, here.unsupported, here.models, here.staircases) == (2, 1, 0, 1, 1)
    assert here.newest == 200.0
    assert (there.operations, there.unsupported, there.newest) == (1, 1, 300.0)


def test_what_is_exported_comes_back_as_it_was(table: LatencyTable, tmp_path: Path) -> None:
    assert export_rows(table, tmp_path / "rows.json", Filter()) == 6
    other = LatencyTable(tmp_path / "other.sqlite")
    assert import_rows(other, tmp_path / "rows.json").taken == 6
    assert sorted(other.rows(), key=str) == sorted(table.rows(), key=str)
    assert other.get(SETTING, CONV) == at(100.0)
    again = import_rows(other, tmp_path / "rows.json")
    assert (again.taken, again.older) == (0, 6)


def test_rows_carry_their_precision(table: LatencyTable, tmp_path: Path) -> None:
    """Rows of float files alone are as a program of before wrote them; those of before are of float files."""
    export_rows(table, tmp_path / "rows.json", Filter())
    body = json.loads((tmp_path / "rows.json").read_text())
    assert body["edgeprune_latency_table"] == 1
    assert not any("precision" in row for row in body["rows"])
    int8 = replace(SETTING, precision="int8")
    table.put(int8, CONV, at(100.0, 0.5))
    assert export_rows(table, tmp_path / "both.json", Filter()) == 7
    assert json.loads((tmp_path / "both.json").read_text())["edgeprune_latency_table"] == 2
    other = LatencyTable(tmp_path / "other.sqlite")
    assert import_rows(other, tmp_path / "both.json").taken == 7
    assert other.medians(int8) == {CONV.key(): 0.5}
    assert [line.precision for line in summarize(other, Filter(precision="int8"))] == ["int8"]
    assert forget(other, Filter(precision="int8")) == 1
    assert other.rows() == table_without(table, "int8")


def table_without(table: LatencyTable, precision: str) -> list[Row]:
    return [row for row in table.rows() if row.precision != precision]


def test_the_newer_of_two_measurements_stays(table: LatencyTable, tmp_path: Path) -> None:
    other = LatencyTable(tmp_path / "other.sqlite")
    other.put(SETTING, CONV, at(150.0, 2.0))
    other.put(OTHER, CONV, at(250.0, 2.0))
    other.put(OTHER, CONV.with_channels(8, 8), at(10.0))  # measured after all
    moved = bring(table, other.rows())
    assert (moved.taken, moved.older) == (2, 1)
    assert table.get(SETTING, CONV) == at(150.0, 2.0)
    assert table.get(OTHER, CONV) == at(300.0)
    assert table.unsupported(OTHER) == {}
    crashed = LatencyTable(tmp_path / "crashed.sqlite")
    crashed.put_unsupported(OTHER, CONV, "it crashed")
    assert bring(table, crashed.rows()).taken == 0


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (Filter(device="other"), 4),
        (Filter(build=BUILD.id[:6]), 0),
        (Filter(noisy=True), 5),
        (Filter(before=150.0), 4),
        (Filter(before=150.0, device="other"), 6),
        (Filter(device="nowhere"), 6),
    ],
)
def test_only_what_is_named_is_deleted(table: LatencyTable, chosen: Filter, left: int) -> None:
    assert forget(table, chosen, dry_run=True) == 6 - left
    assert len(table.rows()) == 6
    assert forget(table, chosen) == 6 - left
    assert len(table.rows()) == left


def test_nothing_named_is_an_error(table: LatencyTable, tmp_path: Path) -> None:
    with refused(UsageError, "--fingerprint", "--build"):
        forget(table, Filter())
    with refused(UsageError, "--fingerprint", "--build"):  # a variable that is not set is not "all"
        forget(table, Filter(device="", build=""))
    with refused(UsageError, table.path):
        export_rows(table, tmp_path / "rows.json", Filter(device="nowhere"))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda body: "no json", "JSON"),
        (lambda body: json.dumps([1]), "table"),
        (lambda body: json.dumps({**body, "edgeprune_latency_table": 3}), "version 2"),
        (lambda body: json.dumps({**body, "rows": [{**body["rows"][0], "threads": "many"}]}), "row"),
        (lambda body: json.dumps({**body, "rows": [{**body["rows"][0], "value": "{}"}]}), "row"),
        (lambda body: json.dumps({**body, "rows": [{**body["rows"][0], "key": "conv?"}]}), "key"),
    ],
)
def test_a_damaged_file_is_refused_whole(table: LatencyTable, tmp_path: Path, change: object, fact: str) -> None:
    file = tmp_path / "rows.json"
    export_rows(table, file, Filter())
    assert callable(change)
    file.write_text(change(json.loads(file.read_text())))
    other = LatencyTable(tmp_path / "other.sqlite")
    with refused(UsageError, fact, file):
        import_rows(other, file)
    assert other.rows() == []


def test_a_source_is_read_and_left_as_it_is(table: LatencyTable, tmp_path: Path) -> None:
    before = table.path.read_bytes()
    assert len(LatencyTable(table.path, read_only=True).rows()) == 6
    assert table.path.read_bytes() == before
    with refused(UsageError, tmp_path / "typo.sqlite"):
        LatencyTable(tmp_path / "typo.sqlite", read_only=True)
    assert not (tmp_path / "typo.sqlite").exists()
    other = tmp_path / "notes.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with refused(UsageError, other):
        LatencyTable(other, read_only=True)


def test_a_packed_export_comes_back_as_it_was(table: LatencyTable, tmp_path: Path) -> None:
    export_rows(table, tmp_path / "rows.json", Filter())
    export_rows(table, tmp_path / "rows.json.xz", Filter())
    assert (tmp_path / "rows.json.xz").stat().st_size < (tmp_path / "rows.json").stat().st_size / 2
    other = LatencyTable(tmp_path / "other.sqlite")
    assert import_rows(other, tmp_path / "rows.json.xz").taken == 6
    assert sorted(other.rows(), key=str) == sorted(table.rows(), key=str)
    cut = (tmp_path / "rows.json.xz").read_bytes()[:-20]
    (tmp_path / "rows.json.xz").write_bytes(cut)
    with refused(UsageError, tmp_path / "rows.json.xz", "unpacked"):
        import_rows(other, tmp_path / "rows.json.xz")
