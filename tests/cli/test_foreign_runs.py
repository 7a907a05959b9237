"""A run folder's word names no code: what the user named runs, what only a run folder names does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_job import Finished, inside

import edgeprune
from edgeprune.errors import RunError, UsageError


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's machine: nothing was named here before."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))


def rewrite(run: Path, stage: str, name: str, **values: Any) -> None:
    """Change a JSON file of a stage, and the stage's record with it, as somebody who means harm would."""
    file, record = run / stage / name, run / stage / "stage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    tree = json.loads(record.read_text())
    for row in tree["files"]:
        if row["path"] == name:
            row |= {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    record.write_text(json.dumps(tree))


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
        assert inside("verify", copied).code == finished.done.code
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
