"""300 mutated latency tables and exchange files: what is sound is shown, what is not is counted and can be deleted."""

from __future__ import annotations

import json
import lzma
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from mutations import NUMBERS, SEED, TEXTS, Judge, Mutator

from edgeprune.devices.conditions import Conditions, RuntimeBuild
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency import exchange
from edgeprune.latency.exchange import Filter, export_rows, forget, import_rows, summarize
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.repair import repair
from edgeprune.latency.staircase import SWEEP, fit_staircase
from edgeprune.latency.table import LatencyTable, Setting

COUNT = 300
BUILD = RuntimeBuild(name="litert", version="2.3.0", sha256="ab" * 32)
SETTING = Setting("cafe", BUILD.id, 1)
CONV = OpSignature("conv2d", 16, 16, 8, 8, (3, 3), padding=(1, 1))


def measured(seconds: float) -> Measurement:
    now = Conditions(time=1.7e9, load_1min=0.5, temperature_c={"cpu": 40.0})
    return Measurement(
        file="x.tflite",
        device=SETTING.device,
        runtime=BUILD,
        threads=1,
        samples_s=(seconds, seconds * 1.01, seconds * 0.99),
        median_s=seconds,
        p90_s=seconds * 1.01,
        low_s=seconds * 0.99,
        high_s=seconds * 1.01,
        quality="stable",
        evidence="steady",
        before=now,
        after=now,
    )


def fill(path: Path) -> LatencyTable:
    table = LatencyTable(path)
    for width in (8, 16, 24):
        table.put(SETTING, CONV.with_channels(width, width), measured(width * 1e-4))
    table.put_unsupported(SETTING, CONV.with_channels(8, 40), "it crashed")
    layers = (("stem", CONV.key(), 1e-4),)
    table.put_model(SETTING, "ab", ModelRun(base="ab", measurement=measured(1e-3), before_s=0.0, layers=layers))
    table.put_staircase(SETTING, "conv2d 3x3", fit_staircase({width: float(width) for width in SWEEP}))
    return table


def use(table: LatencyTable, folder: Path) -> None:
    """All that commands and planning ask of a table."""
    summarize(table)
    for setting in (SETTING, *table.settings()):
        table.operations(setting)
        table.models(setting)
        for seconds in table.medians(setting).values():
            assert 0 < seconds < 1e5
        table.model_layers(setting)
        table.unsupported(setting)
        for staircase in table.staircases(setting).values():
            assert staircase.at(20) >= 0
    table.get(SETTING, CONV)
    table.get_model(SETTING, "ab")
    with suppress(UsageError):  # of an empty table
        export_rows(table, folder / "out.json", Filter())
        import_rows(LatencyTable(folder / "other.sqlite"), folder / "out.json")
    forget(table, Filter(noisy=True), dry_run=True)


def spoil(path: Path, mutator: Mutator) -> None:
    """Exchange a value of a row, in SQLite itself or within its JSON."""
    draw = mutator.random
    with closing(sqlite3.connect(path)) as connection, connection:
        kind = draw.choice(("operations", "models", "staircases", "unsupported"))
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({kind})")]
        column = columns[-1] if draw.random() < 0.7 else draw.choice(columns)
        rows = connection.execute(f"SELECT rowid, {column} FROM {kind}").fetchall()
        rowid, value = draw.choice(rows)
        if column == columns[-1] and kind != "unsupported" and draw.random() < 0.8:
            other: Any = mutator.json(value.encode()).decode(errors="replace")
        else:
            texts = [text.encode(errors="replace").decode() for text in TEXTS]
            numbers = [n for n in NUMBERS if isinstance(n, float) or abs(n) < 2**63]
            other = draw.choice((*texts, *numbers, b"\xff\0junk", None))
        with suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE {kind} SET {column} = ? WHERE rowid = ?", (other, rowid))


def test_mutated_tables(tmp_path: Path) -> None:
    mutator, judge = Mutator(SEED), Judge()
    fill(tmp_path / "whole.sqlite")
    whole = (tmp_path / "whole.sqlite").read_bytes()
    for number in range(COUNT // 2):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(mutator.bytes(whole) if number % 2 else whole)
        if not number % 2:
            spoil(path, mutator)
        judge.look(lambda path=path: use(LatencyTable(path), tmp_path), (number, path))  # type: ignore[misc]
    judge.saw_both(COUNT // 20)


@pytest.mark.parametrize("word", [b"CREATE TABLE operations", b"operations (device"])
def test_a_damaged_schema_that_sqlite_quotes(tmp_path: Path, word: bytes) -> None:
    """Its message is no UTF-8 then."""
    path = tmp_path / "x.sqlite"
    fill(path)
    content = path.read_bytes()
    assert word in content
    path.write_bytes(content.replace(word, b"\xff" + word[1:]))
    with pytest.raises(UsageError):
        use(LatencyTable(path), tmp_path)
    assert repair(path).kept is not None
    use(LatencyTable(path), tmp_path)


def test_mutated_exchange_files(tmp_path: Path) -> None:
    mutator, judge = Mutator(SEED), Judge()
    export_rows(fill(tmp_path / "whole.sqlite"), tmp_path / "whole.json", Filter())
    whole = (tmp_path / "whole.json").read_bytes()
    for number in range(COUNT // 2):
        content = within(mutator, whole) if number % 2 else mutator.json(whole)
        packed = number % 3 == 0
        if packed:
            content = lzma.compress(content, preset=0)
            content = mutator.bytes(content) if number % 2 else content
        path = tmp_path / ("x.json.xz" if packed else "x.json")
        path.write_bytes(content)
        (tmp_path / "taken.sqlite").unlink(missing_ok=True)
        table = LatencyTable(tmp_path / "taken.sqlite")
        refused = judge.look(lambda path=path, table=table: import_rows(table, path), (number, content))  # type: ignore[misc]
        assert not (refused and table.rows()), "half of it was imported"
        use(table, tmp_path)
    judge.saw_both(COUNT // 30)


def within(mutator: Mutator, whole: bytes) -> bytes:
    """A value within a row's own JSON exchanged."""
    body = json.loads(whole)
    row = mutator.random.choice([row for row in body["rows"] if row["kind"] != "unsupported"])
    row["value"] = json.dumps(mutator.tree(json.loads(row["value"])), default=str)
    return json.dumps(body).encode(errors="surrogatepass")


WRONG: dict[str, dict[str, Any]] = {
    "a time of 10^18": {"median_s": 1e18, "samples_s": [1e18] * 3, "low_s": 1e18, "high_s": 1e18, "p90_s": 1e18},
    "a median of -1": {"median_s": -1.0},
    "a median beyond its samples": {"median_s": 0.5},
    "an interval beside the median": {"low_s": 0.4, "high_s": 0.5},
    "no samples": {"samples_s": []},
    "a negative sample": {"samples_s": [-1.0, 0.0016, 0.0017]},
    "no number": {"median_s": "NaN"},
    "no threads": {"threads": -4},
    "measured in the far future": {"after": {"time": 1e18}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_have_been_measured_is_not_imported(tmp_path: Path, wrong: str) -> None:
    export_rows(fill(tmp_path / "whole.sqlite"), tmp_path / "x.json", Filter())
    body = json.loads((tmp_path / "x.json").read_bytes())
    row = next(row for row in body["rows"] if row["kind"] == "operations" and "in_channels=16" in row["key"])
    row["value"] = json.dumps({**json.loads(row["value"]), **WRONG[wrong]})
    (tmp_path / "x.json").write_text(json.dumps(body))
    table = LatencyTable(tmp_path / "t.sqlite")
    with pytest.raises(UsageError):
        import_rows(table, tmp_path / "x.json")
    assert table.rows() == []


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_unpacks_to_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 1 << 20)
    path = tmp_path / ("x.json.xz" if packed else "x.json")
    content = b'{"rows": "' + b" " * (8 << 20)
    path.write_bytes(lzma.compress(content) if packed else content)
    with pytest.raises(UsageError):
        import_rows(LatencyTable(tmp_path / "t.sqlite"), path)


def test_bad_rows_are_counted_skipped_and_deleted(tmp_path: Path) -> None:
    table = fill(tmp_path / "t.sqlite")
    good = len(table.rows())
    with closing(sqlite3.connect(table.path)) as connection, connection:
        insert = "INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?)"
        connection.execute(insert, ("cafe", BUILD.id, 1, "fp32", "not a key", "not JSON"))
        connection.execute(insert, (None, b"\xff", "many", 5, 3.5, "{}"))
        connection.execute("INSERT INTO staircases VALUES ('cafe', ?, 1, 'fp32', 'conv2d 5x5', '{}')", (BUILD.id,))
        connection.execute("INSERT INTO unsupported VALUES ('cafe', ?, 1, 'int5', ?, 'no')", (BUILD.id, CONV.key()))
    assert len(table.rows()) == good
    assert table.damaged() == 4
    use(table, tmp_path)
    assert table.delete_damaged() == 4
    assert (table.damaged(), len(table.rows())) == (0, good)


def test_the_command_shows_and_repairs(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edgeprune.cli.app import app

    table = fill(tmp_path / "t.sqlite")
    with closing(sqlite3.connect(table.path)) as connection, connection:
        connection.execute("UPDATE operations SET measurement = '{}' WHERE rowid = 1")

    def command(*words: str) -> Any:
        done = CliRunner().invoke(app, ["table", *words, "--table", str(table.path), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert sum(line["operations"] for line in command("show")) == 2
    assert command("repair", "--dry-run") == {"rows": 1, "deleted": False, "kept": None}
    assert command("repair")["rows"] == 1
    assert table.damaged() == 0


def test_a_damaged_file_is_moved_aside_with_what_can_be_read(tmp_path: Path) -> None:
    table = fill(tmp_path / "t.sqlite")
    content = bytearray(table.path.read_bytes())
    content[4096 : 4096 + 64] = b"\xff" * 64
    table.path.write_bytes(content)
    with refused(UsageError, "table repair", table.path):
        use(LatencyTable(table.path), tmp_path)
    damaged = table.path.read_bytes()
    done = repair(table.path)
    assert done.kept is not None
    assert done.kept.read_bytes() == damaged
    use(LatencyTable(table.path), tmp_path)
