"""A run folder's word names no code: what the user named runs, what only a run folder names does not."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_job import Finished, inside

import edgeprune
from edgeprune.errors import RunError, UsageError
from edgeprune.pipeline import _recorded_data, _settings
from edgeprune.progress import Silent
from edgeprune.runs import open_run
from edgeprune.stages.context import Context
from edgeprune.stages.stage import STAGES


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's machine: nothing was named here before."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))


def rewrite(run: Path, stage: str, name: str, **values: Any) -> None:
    """Change a JSON file of a stage, and the stage's record with it, as somebody who means harm would."""
    file = run / stage / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    redigest(run, stage, name)


def again_from(run: Path, stage: str) -> None:
    """The stage has not been done yet."""
    (run / stage / "stage.json").unlink()


def test_what_the_user_named_goes_on_without_a_question(copied: Path) -> None:
    again_from(copied, "merge")
    assert inside("merge", copied).code == 0
    assert edgeprune.load(copied).spec.num_classes == 10


@pytest.mark.usefixtures("elsewhere")
def test_run_folder_from_elsewhere_runs_no_code(copied: Path) -> None:
    with pytest.raises(UsageError, match=r"tiny\.py:tiny"):
        edgeprune.load(copied)
    again_from(copied, "merge")
    inside("merge", copied).refused("tiny.py:tiny", "--trust")
    assert inside("merge", copied, "--trust").code == 0
    assert edgeprune.load(copied, trust=True).spec.num_classes == 10


@pytest.mark.usefixtures("elsewhere")
def test_it_is_shown_and_verified_without_its_code(copied: Path, finished: Finished) -> None:
    Path(finished.recipe.with_name("tiny.py")).rename(finished.recipe.with_name("away.py"))
    try:
        assert inside("show", copied).code == 0
        again = inside("verify", copied)
        assert again.code == finished.done.code
        assert "nothing was run again" in again.err
    finally:
        finished.recipe.with_name("away.py").rename(finished.recipe.with_name("tiny.py"))


@pytest.mark.usefixtures("elsewhere")
def test_recipe_that_the_user_gives_names_the_factory(copied: Path, finished: Finished) -> None:
    again_from(copied, "report")
    assert inside("run", finished.recipe, "--out", copied, "--resume").code == 0
    assert edgeprune.load(copied).spec.num_classes == 10


@pytest.mark.parametrize("trust", [False, True])
def test_command_in_the_place_of_a_factory_never_runs(copied: Path, tmp_path: Path, trust: bool) -> None:
    trace = tmp_path / "trace"
    rewrite(copied, "load", "spec.json", source="os:system", arguments={"command": f"touch {trace}"})
    with pytest.raises(UsageError, match="os:system"):
        edgeprune.load(copied, trust=trust)
    again_from(copied, "merge")
    inside("merge", copied, *(["--trust"] if trust else [])).refused("os:system")
    assert not trace.exists()


def test_spec_that_its_record_does_not_know(copied: Path) -> None:
    spec = copied / "load" / "spec.json"
    spec.write_text(spec.read_text().replace("tiny.py:tiny", "tiny.py:other"))
    with pytest.raises(RunError, match=r"spec\.json"):
        edgeprune.load(copied)


def test_record_that_leads_out_of_its_folder(copied: Path) -> None:
    record = copied / "load" / "stage.json"
    tree = json.loads(record.read_text())
    record.write_text(json.dumps(tree | {"files": [*tree["files"], {**tree["files"][0], "path": "../run.json"}]}))
    inside("show", copied).refused("load")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("arguments", [{"checkpoint_path": "/tmp/x.pth"}, {"pretrained_cfg_overlay": {"file": "x"}}])
def test_timm_reads_no_file_by_a_run_folders_word(copied: Path, arguments: dict[str, Any]) -> None:
    rewrite(copied, "load", "spec.json", source="timm:resnet10t", arguments=arguments)
    with pytest.raises(UsageError, match="timm:resnet10t"):
        edgeprune.load(copied)


@pytest.mark.parametrize(
    ("stage", "name", "content"),
    [
        ("tune", "history.json", b" " * (65 << 20)),
        ("tune", "history.json", b'{"epoch": 1}'),
        ("tune", "history.json", b'[{"epoch": "x"}]'),
        ("tune", "history.json", b"\xff\xfe"),
        ("verify", "verdict.json", b"[]"),
        ("merge", "merge.json", b'{"passed": true}'),
        ("load", "spec.json", b"[]"),
    ],
)
def test_records_that_were_changed_with_their_digest_are_refused(
    copied: Path, stage: str, name: str, content: bytes
) -> None:
    (copied / stage / name).write_bytes(content)
    redigest(copied, stage, name)
    again_from(copied, "report")
    inside("report", copied, "--out", copied / "page.html").refused(name)


@pytest.mark.parametrize("content", [b" " * (65 << 20), b'{"version": 1, "edits": ' + b"[" * 100_000])
def test_plan_that_no_model_has_is_refused(copied: Path, content: bytes) -> None:
    (copied / "prune" / "plan.json").write_bytes(content)
    redigest(copied, "prune", "plan.json")
    inside("show", copied / "prune" / "plan.json").refused("plan.json")
    with pytest.raises(UsageError, match=r"plan\.json"):
        edgeprune.load(copied, stage="prune")


def test_verdict_changed_with_its_digest_is_refused_in_python(copied: Path) -> None:
    (copied / "verify" / "verdict.json").write_bytes(b"{}")
    redigest(copied, "verify", "verdict.json")
    with pytest.raises(UsageError, match=r"verdict\.json"):
        edgeprune.verify(copied)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("stage", "command"), [("report", "report"), ("verify", "verify")])
def test_device_that_the_folder_names_is_not_connected_to(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, command: str
) -> None:
    trace = tmp_path / "connected"
    for client in ("ssh", "adb", "scp"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / client).write_text(f"#!/bin/sh\ntouch {trace}\nexit 255\n")
        (tmp_path / "bin" / client).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    for device in ("ssh:somebody@example.invalid", "adb:example.invalid:5555"):
        on_device(copied, device)
        (copied / stage / "stage.json").unlink(missing_ok=True)
        out = ["--out", tmp_path / "page.html"] if command == "report" else []
        named = "device" if command == "report" else "tiny.py:tiny"  # its code is refused before
        inside(command, copied, *out).refused(named, "--trust")
        assert not trace.exists()
    assert inside(command, copied, *out, "--trust").code == 4
    assert trace.exists()


def test_context_of_a_timm_run_from_elsewhere_opens_no_connection(copied: Path) -> None:
    on_device(copied, "ssh:somebody@example.invalid")
    with pytest.raises(UsageError, match="ssh:somebody"):
        _ = Context(open_run(copied), Silent()).device


def on_device(run: Path, device: str) -> None:
    """Let the run be one of this device, finished as it is, as somebody who makes up a folder would."""
    head = json.loads((run / "run.json").read_text())
    head["recipe"]["device"] = {**head["recipe"].get("device", {}), "id": device}
    (run / "run.json").write_text(json.dumps(head))
    opened = open_run(run)
    for stage in STAGES:
        record = run / stage / "stage.json"
        if record.exists():
            settings = _settings(opened, stage, _recorded_data(opened))
            record.write_text(json.dumps(json.loads(record.read_text()) | {"settings": settings}))


def redigest(run: Path, stage: str, name: str) -> None:
    """Let the stage's record say that a changed file is as it was written."""
    file, record = run / stage / name, run / stage / "stage.json"
    tree = json.loads(record.read_text())
    for row in tree["files"]:
        if row["path"] == name:
            row |= {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    record.write_text(json.dumps(tree))
