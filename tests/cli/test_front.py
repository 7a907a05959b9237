"""`edgeprune front`: one recipe at several targets, loaded and probed once, on one page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_job import inside, stamps, write_job

import edgeprune
from edgeprune.errors import UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_measuring")]

TARGETS = ("--target", "25kparams", "--target", "0.1kparams", "--target", "15kparams")


def test_a_front_shares_what_does_not_depend_on_the_target(tmp_path: Path) -> None:
    recipe = write_job(tmp_path, tune={"epochs": 1}, export={"formats": ["onnx"]}, prune={"method": "magnitude"})
    out = tmp_path / "front"
    done = inside("front", recipe, *TARGETS, "--out", out, "--json")
    assert done.code == UsageError.exit_code, done.err  # one of the targets is out of reach; the others are there
    wide, refused, narrow = done.json["points"]
    assert [point["target"] for point in (wide, refused, narrow)] == ["25kparams", "0.1kparams", "15kparams"]
    assert refused["outcome"] == "refused"
    assert "cannot be reached" in refused["why"]
    for point, limit in ((wide, 25_000), (narrow, 15_000)):
        run = Path(point["run"])
        assert run == out / point["target"]
        model = edgeprune.load(run).module
        assert sum(parameter.numel() for parameter in model.parameters()) <= limit
        assert 0 <= point["accuracy"] <= 1
    first, last = (stamps(out / name) for name in ("25kparams", "15kparams"))
    assert (out / "15kparams" / "probe" / "stage.json").read_bytes() == (
        out / "25kparams" / "probe" / "stage.json"
    ).read_bytes()
    page = (out / "front.html").read_text()
    assert "to 25 kparams" in page or "to 25kparams" in page

    assert inside("front", recipe, *TARGETS, "--out", out).code == 2  # the runs are there
    shutil.rmtree(out / "15kparams" / "verify")
    again = inside("front", recipe, *TARGETS, "--out", out, "--resume", "--json")
    assert again.json["points"] == done.json["points"]
    assert stamps(out / "25kparams") == first
    kept = ("load", "probe", "prune", "tune", "merge", "quantize", "export")
    now = stamps(out / "15kparams")
    assert {stage: now[stage] for stage in kept} == {stage: last[stage] for stage in kept}

    shown = inside("front", recipe, *TARGETS, "--out", out, "--resume")
    assert "25kparams" in shown.out
    assert "front.html" in shown.out


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("--target", "0.5x"), "a front needs different targets, got 0.5x"),
        (("--target", "0.5x", "--target", "0.50x"), "got 0.5x, 0.50x"),
        (("--target", "0.5x", "--target", "half"), "cannot read the target 'half'"),
    ],
)
def test_targets_that_make_no_front_are_refused(tmp_path: Path, targets: tuple[str, ...], words: str) -> None:
    done = inside("front", write_job(tmp_path), *targets, "--out", tmp_path / "front")
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "front").exists()
