from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from test_cost import BUILD, CONV, SETTING, measured

from edgeprune.errors import UsageError
from edgeprune.latency.measurement import ModelRun
from edgeprune.latency.repair import is_whole, repair
from edgeprune.latency.table import COLUMNS, LatencyTable, Setting


def test_what_is_put_is_got_and_nothing_else(tmp_path: Path) -> None:
    table = LatencyTable(tmp_path / "t.sqlite")
    table.put(SETTING, CONV, measured(2.0))
    assert LatencyTable(tmp_path / "t.sqlite").get(SETTING, CONV) == measured(2.0)
    assert table.get(SETTING, CONV.with_channels(8, 8)) is None
    settings = [Setting("x", BUILD.id, 1), Setting("device", "x", 1), Setting("device", BUILD.id, 2)]
    for other in (*settings, replace(SETTING, precision="int8")):
        assert table.get(other, CONV) is None
    assert table.medians(SETTING) == {CONV.key(): 2.0}


def test_a_new_measurement_replaces_the_old_and_the_refusal(tmp_path: Path) -> None:
    table = LatencyTable(tmp_path / "t.sqlite")
    table.put_unsupported(SETTING, CONV, "it crashed")
    assert table.unsupported(SETTING) == {CONV.key(): "it crashed"}
    table.put(SETTING, CONV, measured(1.0))
    table.put(SETTING, CONV, measured(3.0))
    assert table.operations(SETTING) == {CONV.key(): measured(3.0)}
    assert table.unsupported(SETTING) == {}


def test_whole_models_are_kept_by_key(tmp_path: Path) -> None:
    table = LatencyTable(tmp_path / "t.sqlite")
    run = ModelRun(base="ab", measurement=measured(1.0), before_s=0.25, layers=(("conv", CONV.key(), 0.5),))
    table.put_model(SETTING, "ab", run)
    assert table.get_model(SETTING, "ab") == run
    assert table.get_model(SETTING, "cd") is None
    assert table.models(SETTING) == {"ab": run}
    assert run.sum_s == 0.75


def test_rows_of_both_precisions_live_side_by_side(tmp_path: Path) -> None:
    table, int8 = LatencyTable(tmp_path / "t.sqlite"), replace(SETTING, precision="int8")
    for setting, seconds in ((SETTING, 2.0), (int8, 1.0)):
        table.put(setting, CONV, measured(seconds))
        table.put_model(setting, "ab", ModelRun(base="ab", measurement=measured(seconds), before_s=0.0, layers=()))
    table.put_unsupported(int8, CONV.with_channels(8, 8), "it crashed")
    assert table.medians(SETTING) == {CONV.key(): 2.0}
    assert table.medians(int8) == {CONV.key(): 1.0}
    assert table.unsupported(SETTING) == {}
    assert set(table.settings()) == {SETTING, int8}
    table.delete_model(int8, "ab")
    table.delete_rows([row for row in table.rows() if row.precision == "int8"])
    assert table.settings() == [SETTING]
    assert table.medians(SETTING) == {CONV.key(): 2.0}


def without_precision(path: Path) -> None:
    """Make a table what a program wrote that knew float files alone."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, (key, value) in COLUMNS.items():
            connection.executescript(
                f"ALTER TABLE {name} RENAME TO new; CREATE TABLE {name} (device TEXT, build TEXT, threads INTEGER, "
                f"{key} TEXT, {value} TEXT NOT NULL, PRIMARY KEY (device, build, threads, {key}));"
                f"INSERT INTO {name} SELECT device, build, threads, {key}, {value} FROM new; DROP TABLE new;"
            )
        connection.execute("PRAGMA user_version = 2")


def test_a_table_of_before_precisions_were_told_is_of_float_files(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    run = ModelRun(base="ab", measurement=measured(1.0), before_s=0.25, layers=())
    table = LatencyTable(path)
    table.put(SETTING, CONV, measured(1.0))
    table.put_model(SETTING, "ab", run)
    without_precision(path)
    before = path.read_bytes()
    looked_at = LatencyTable(path, read_only=True)
    assert looked_at.medians(SETTING) == {CONV.key(): 1.0}
    assert looked_at.settings() == [SETTING]
    assert [row.precision for row in looked_at.rows()] == ["fp32", "fp32"]
    assert is_whole(path)
    assert path.read_bytes() == before  # it stays as it is
    again = LatencyTable(path)
    assert again.medians(SETTING) == {CONV.key(): 1.0}
    assert again.medians(replace(SETTING, precision="int8")) == {}
    assert again.models(SETTING) == {"ab": run}
    assert LatencyTable(path, read_only=True).rows() == again.rows()


def test_a_damaged_table_of_before_precisions_were_told_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    table = LatencyTable(path)
    for width in range(1, 400):
        table.put(SETTING, CONV.with_channels(width, 8), measured(1.0))
    without_precision(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = bytes(8192)
    path.write_bytes(content)
    done = repair(path)
    assert done.kept is not None
    assert 0 < done.left < 399
    assert len(LatencyTable(path).medians(SETTING)) == done.left


def test_a_table_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    table = LatencyTable(path)
    table.put(SETTING, CONV, measured(1.0))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("DROP TABLE models; CREATE TABLE models (sha256 TEXT); PRAGMA user_version = 1;")
    with pytest.raises(UsageError, match="version 1"):
        LatencyTable(path, read_only=True)
    again = LatencyTable(path)
    assert again.medians(SETTING) == {CONV.key(): 1.0}
    assert again.models(SETTING) == {}


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cost import CONV, SETTING, measured
from edgeprune.latency.table import LatencyTable
table = LatencyTable(Path(sys.argv[1]))
for i in range(40):
    table.put(SETTING, CONV.with_channels(int(sys.argv[2]), i + 1), measured(i + 1.0))
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    here = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n), here]) for n in (1, 2, 3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(LatencyTable(path).medians(SETTING)) == 120


def test_a_file_that_is_no_table_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(UsageError, match=r"(?s)damaged\.sqlite.*move it away"):
        LatencyTable(damaged)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(UsageError, match="version 7"):
        LatencyTable(newer)
