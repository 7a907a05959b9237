"""docs/extending.md: each section's code does what its words say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from edgeprune.pipeline import change_recipe, is_finished
from edgeprune.runs import open_run
from edgeprune.stages.stage import PIPELINE

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "pipeline"))

from small_jobs import recipe  # noqa: E402


def code_of(section: str) -> str:
    """The first piece of Python in a section of the document."""
    text = (TESTS.parent / "docs" / "extending.md").read_text()
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", body, re.DOTALL)
    assert found is not None
    return found[1]


def do_as_written(section: str, **given: Any) -> dict[str, Any]:
    names = dict(given)
    exec(compile(code_of(section), "docs/extending.md", "exec"), names)
    return names


def test_a_new_stage(tmp_path: Path) -> None:
    made = do_as_written("A new stage", recipe=recipe(), out=tmp_path / "run")
    assert made["outcome"].verdict.outcome == "pass"
    run = open_run(tmp_path / "run")
    record = run.record("zeros")
    assert record is not None
    assert record.result == json.loads((run.stage_folder("zeros") / "zeros.json").read_text())
    with_zeros = PIPELINE.with_stage(made["ZEROS"], after="merge")
    assert all(is_finished(run, name, pipeline=with_zeros) for name in with_zeros.names)
    changed = change_recipe(run, recipe(quantize={"formats": ()}))
    again = [name for name in with_zeros.names if not is_finished(changed, name, pipeline=with_zeros)]
    assert again == ["zeros", "quantize", "export", "verify", "report"]
