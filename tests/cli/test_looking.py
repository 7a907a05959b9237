"""Commands that look: bench, devices, doctor, show and report, for people and as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_job import Finished, inside, stamps

import edgeprune
from edgeprune.space.plan import Dropped, Narrowed, Plan
from edgeprune.sparsity.rewrite import write_sparse

sys.path.insert(0, str(Path(__file__).parents[1] / "sparsity"))
from sparse_nets import depthwise_7x7, separable

pytestmark = pytest.mark.slow


def words(text: str) -> str:
    return " ".join(text.split())


def test_bench_measures_files_of_two_runtimes(finished: Finished) -> None:
    files = [finished.run / "export" / name for name in ("model_fp32.tflite", "model_int8.tflite", "model_fp32.onnx")]
    rows = inside("bench", *files, "--json").json
    assert [row["file"] for row in rows] == [file.name for file in files]
    assert [row["runtime"]["name"] for row in rows] == ["litert", "litert", "onnxruntime"]
    for row in rows:
        assert 0 < row["low_s"] <= row["median_s"] <= row["high_s"]
        assert row["quality"] in ("stable", "noisy", "throttled")
        assert len(row["samples_s"]) > 100


def test_bench_for_people(finished: Finished) -> None:
    done = inside("bench", finished.run / "export" / "model_fp32.tflite")
    assert done.code == 0, done.err
    assert "litert" in done.out
    assert " ms" in done.out
    assert "model_fp32.tflite" in "".join(line.split("│")[1].strip() for line in done.out.splitlines() if "│" in line)


def test_devices() -> None:
    device = next(found for found in inside("devices", "--json").json if found["id"] == "local")
    assert device["ready"] is True
    assert device["runtimes"].keys() == {"litert", "executorch", "onnxruntime"}
    shown = inside("devices")
    assert shown.code == 0
    assert "local" in shown.out
    assert "ready" in shown.out


def test_doctor() -> None:
    rows = {row["what"]: row for row in inside("doctor", "--json").json}
    for what in ("format coreml", "format onnx", "format pte", "format tflite", "device local"):
        assert rows[what]["ok"], rows[what]
    for what in ("adb (Android)", "ssh (boards, Macs)", "native runner (aarch64)", "iPhones and iPads"):
        assert rows[what]["ok"] or "install" in rows[what]["fix"], rows[what]  # what is missing comes with the command
    assert "format tflite" in inside("doctor").out


def test_show_a_finished_run(finished: Finished) -> None:
    before = stamps(finished.run)
    told = inside("show", "run", finished.run, "--json").json
    assert told == json.loads((finished.run / "report" / "report.json").read_text())
    shown = inside("show", "run", finished.run)
    assert shown.code == 0
    for text in ("0.6x", "tflite int8", "coreml fp16", "original", "merged"):
        assert text in words(shown.out)
    assert stamps(finished.run) == before


def test_show_a_run_under_way(copied: Path) -> None:
    for stage in ("report", "verify", "export"):
        shutil.rmtree(copied / stage)
    told = inside("show", "run", copied, "--json").json
    assert {stage for stage, record in told.items() if record is None} == {"export", "verify", "report"}
    branches = edgeprune.read_plan(copied / "prune" / "plan.json").subnet.dropped
    # What the plan drops depends on this machine's latencies; the branch has two of the four batch norms.
    assert told["merge"]["result"]["folded"] == 4 - 2 * len(branches)
    shown = words(inside("show", "run", copied).out)
    assert "export │ │ not done" in shown


def test_show_a_plan(finished: Finished, tmp_path: Path) -> None:
    file = finished.run / "prune" / "plan.json"
    plan = edgeprune.read_plan(file)
    assert inside("show", "plan", file, "--json").json == plan.model_dump(mode="json")
    shown = inside("show", "plan", file)
    assert shown.code == 0
    for name in plan.decisions:
        assert name in words(shown.out)


def test_show_a_plan_that_drops_a_branch(tmp_path: Path) -> None:
    plan = Plan(
        base="m",
        base_parameters=1,
        decisions={"stem:out": Narrowed(size=8, removed=(1, 2)), "layer1.0": Dropped()},
    )
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    shown = inside("show", "plan", tmp_path / "plan.json")
    assert shown.code == 0, shown.err
    assert "stem:out │ 8 │ 2 │ 6" in words(shown.out)
    assert "layer1.0 │ │ the whole branch" in words(shown.out)


@pytest.mark.parametrize("file", ["model_int8.tflite", "model_fp16.mlpackage", "model_fp32.pte"])
def test_show_a_file(finished: Finished, file: str) -> None:
    path = finished.run / "export" / file
    told = inside("show", "file", path, "--json").json
    assert told == json.loads(path.with_name(f"{file}.json").read_text())
    shown = inside("show", "file", path)
    assert shown.code == 0
    assert file in shown.out
    assert told["sha256"] in shown.out


def test_report_of_runs_side_by_side(finished: Finished, copied: Path, tmp_path: Path) -> None:
    page = tmp_path / "a folder [of] pages" / "page.html"
    told = inside("report", finished.run, copied, "--out", page, "--json").json
    assert told == {"page": str(page)}
    assert page.read_text().count("model_int8.tflite") > 1
    said = inside("report", finished.run, "--out", page).out
    assert said == f"report: {page}\n"  # on one line, as it is: it can be copied


def test_report_of_a_run_without_one(copied: Path, tmp_path: Path) -> None:
    """It is made when the run is verified, and refused when not."""
    shutil.rmtree(copied / "report")
    assert inside("report", copied, "--out", tmp_path / "page.html").code == 0
    assert (copied / "report" / "report.json").is_file()
    shutil.rmtree(copied / "report")
    shutil.rmtree(copied / "verify")
    done = inside("report", copied, "--out", tmp_path / "page.html")
    done.refused("`report` needs the stage `verify`", f"edgeprune verify {copied}")


SMALL = "resnet10t"


def test_show_units_of_a_model() -> None:
    done = inside("show", "units", SMALL, "--input-size", "3,64,64", "--json").json
    groups = {row["id"]: row for row in done["groups"]}
    module = edgeprune.load(SMALL, input_size=(3, 64, 64)).module
    assert done["parameters"] == sum(p.numel() for p in module.parameters())
    inner = groups["layer1.0.conv1:out"]
    assert inner["units"] == module.layer1[0].conv1.out_channels
    # 3x3 filters in and out of one channel, and the scale and shift of its batch norm
    reads, writes = module.layer1[0].conv1.in_channels, module.layer1[0].conv2.out_channels
    assert inner["parameters_per_unit"] == 9 * (reads + writes) + 2
    assert inner["macs_per_unit"] == 9 * (reads + writes) * 16 * 16
    assert any(row["id"].endswith(":branch") for row in done["branches"])
    assert {row["name"]: row["reason"] for row in done["frozen"]}["fc:out"] == "the model's output"
    shown = inside("show", "units", SMALL, "--input-size", "3,64,64", "--keep", "layer1*")
    assert shown.code == 0, shown.err
    assert "kept as asked" in words(shown.out)


STUBBORN = """
import torch
from torch import nn


class Stubborn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).cumsum(1).mean((2, 3)))


def wrapped():
    return nn.DataParallel(Stubborn().half())
"""


def test_show_units_says_that_nothing_can_go_and_what_was_made_plain(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    command = ("show", "units", f"{tmp_path / 'stubborn.py'}:wrapped", "--input-size", "3,8,8")
    shown = words(inside(*command).out)
    for said in (
        "taken out of its wrapper: DataParallel",
        "float16 weights became float32",
        "nothing can go",
        "cumsum",
    ):
        assert said in shown
    told = inside(*command, "--json").json
    assert told["groups"] == []
    assert len(told["said"]) == 2


def test_show_units_needs_a_model_and_only_one() -> None:
    alone = inside("show", "units")
    assert alone.code == 2
    assert "'model'" in alone.err
    assert inside("show", "units", SMALL, SMALL).code == 2
    assert inside("show", "units", SMALL, "--input-size", "big").code == 2


def test_the_old_way_to_show_still_shows_and_names_the_new_one(finished: Finished, tmp_path: Path) -> None:
    places = {
        "run": finished.run,
        "plan": finished.run / "prune" / "plan.json",
        "file": finished.run / "export" / "model_fp32.onnx",
    }
    for kind, place in places.items():
        new, old = inside("show", kind, place, "--json"), inside("show", place, "--json")
        assert (old.code, old.json) == (0, new.json)
        assert inside("show", "--json", place).json == new.json
        assert f"edgeprune show {kind} {place}" in old.err
        assert new.err == ""
    assert inside("show", places["file"].with_suffix(".mlpackage").with_name("model_fp16.mlpackage")).code == 0
    nothing = inside("show", tmp_path / "none")
    nothing.refused(str(tmp_path / "none"), "show run")
    shown = inside("show", "--help").out
    for kind in ("run", "plan", "file", "units", "sparse"):
        assert f"  {kind} " in shown


def test_show_whether_a_file_would_run_sparsely(tmp_path: Path) -> None:
    for build, answer in ((separable, "runs with sparse kernels"), (depthwise_7x7, "runs dense")):
        build(tmp_path / "dense.tflite")
        write_sparse(tmp_path / "dense.tflite", tmp_path / "sparse.tflite")
        told = inside("show", "sparse", tmp_path / "sparse.tflite", "--json").json
        assert told["holds"] == (build is separable)
        shown = inside("show", "sparse", tmp_path / "sparse.tflite")
        assert shown.code == 0, shown.err
        assert answer in words(shown.out)
    assert "7x7;" in words(shown.out)
    assert inside("show", "sparse", tmp_path / "missing.tflite").code == 2
    alone = inside("show", "sparse")
    assert alone.code == 2
    assert "'file'" in alone.err
