"""The main job: `edgeprune run recipe.toml`, in a process of its own, in every format."""

from __future__ import annotations

import hashlib
import html
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_job import INPUT, Finished
from tiny_job import inside as edgeprune_command

import edgeprune
from edgeprune.artifacts.manifest import file_hash, read_manifest
from edgeprune.progress import Silent
from edgeprune.space.apply import apply_plan
from edgeprune.stages.context import Context
from edgeprune.stages.stage import STAGES

pytestmark = pytest.mark.slow

FILES = {
    *("model_fp32.tflite", "model_int8.tflite", "model_fp32.pte", "model_int8.pte"),
    *("model_fp16.mlpackage", "model_int8.mlpackage", "model_fp32.onnx"),
}


def test_every_stage_is_finished_and_the_verdict_is_told(finished: Finished) -> None:
    assert finished.done.code == 0, finished.done.err
    run = edgeprune.open_run(finished.run)
    for stage in STAGES:
        record = run.record(stage)  # every file it lists is there with the hash it says
        assert record is not None, stage
    told = finished.done.json
    assert told["outcome"] == "pass"
    assert told["verdict"] == json.loads((finished.run / "verify" / "verdict.json").read_text())
    assert {file["file"] for file in told["verdict"]["files"]} == FILES
    page = Path(told["report"]).read_text()
    assert all(name in page for name in FILES)
    assert not finished.leftovers


def test_what_is_published_names_no_place_of_this_machine(finished: Finished) -> None:
    """Reports, the verdict, manifests and files: neither the user's folders nor the command that was typed."""
    published = [p for name in ("report", "export") for p in (finished.run / name).rglob("*") if p.is_file()]
    published += [finished.run / "verify" / "verdict.json"]
    assert {"report.html", "report.json", "junit.xml"} <= {p.name for p in published}
    for file in published:
        content = file.read_bytes()
        for place in (str(finished.run.parent), str(Path.home()), str(Path(sys.prefix)), "--json"):
            assert place.encode() not in content or file.name == "stage.json", (file.name, place)


def test_stdout_is_json_alone_and_progress_is_on_stderr(finished: Finished) -> None:
    assert isinstance(finished.done.json, dict)
    lines = finished.done.err.splitlines()
    assert [line for line in lines if line in STAGES] == list(STAGES)
    attempt = next(line for line in lines if "attempt 1" in line)
    assert attempt.endswith("target 0.600x")  # a line of progress is not wrapped where nobody looks on


def test_stderr_is_ours_alone(finished: Finished) -> None:
    """What toolkits say at import was in it: kernels of other Pythons that do not load, calls that are deprecated."""
    for line in finished.done.err.splitlines():
        assert line.startswith("  ") or line in (*STAGES, ""), line


def test_target_was_measured_against_the_original(finished: Finished) -> None:
    told = next(f for f in finished.done.json["verdict"]["files"] if f["file"] == "model_fp32.tflite")
    ratio = told["against_original"]
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert len(ratio["numerator"]["samples_s"]) > 100
    assert ratio["numerator"]["runtime"]["name"] == "litert"
    on_device = {f["file"]: f["executed_on"] for f in finished.done.json["verdict"]["files"]}
    assert all("no device" in where for file, where in on_device.items() if "mlpackage" in file)
    assert all(where.startswith("local") for file, where in on_device.items() if "mlpackage" not in file)


def test_every_file_that_the_device_runs_took_turns_with_the_original_and_one_of_each_runtime_is_named(
    finished: Finished,
) -> None:
    verdict = finished.done.json["verdict"]
    on_device = {f["file"]: f["against_original"] for f in verdict["files"] if "no device" not in f["executed_on"]}
    assert len(on_device) == 5
    assert {ratio["denominator"]["file"] for ratio in on_device.values()} == {"original.tflite"}
    named = {one["runtime"]: one for one in verdict["shipping"]}
    assert named.keys() == {"litert", "executorch", "onnxruntime", "coreml"}
    page, shown = (finished.run / "report" / "report.html").read_text(), edgeprune_command("show", finished.run).out
    for one in named.values():
        assert html.escape(one["why"].split(";")[0]) in page
        assert f"{one['runtime']}: ship {one['file']}" in " ".join(shown.split())


def test_every_file_has_a_manifest_that_fits(finished: Finished) -> None:
    export = finished.run / "export"
    found = {p.name.removesuffix(".json") for p in export.glob("model_*.json")}
    assert found == FILES
    for name in FILES:
        manifest = read_manifest(export / name)  # checks sha256 and reference
        assert manifest.file == name
        assert manifest.sha256 == file_hash(export / name)
    tflite = export / "model_int8.tflite"
    assert read_manifest(tflite).sha256 == hashlib.sha256(tflite.read_bytes()).hexdigest()


LOGITS = """
import sys, torch, edgeprune
model = edgeprune.load(sys.argv[1])
x = torch.randn(8, *model.spec.input_size, generator=torch.Generator().manual_seed(7))
with torch.no_grad():
    torch.save(model.module(x), sys.argv[2])
"""


def test_the_model_is_rebuilt_bit_for_bit_in_other_processes(
    finished: Finished, tmp_path: Path, environment: dict[str, str]
) -> None:
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", LOGITS, finished.run, tmp_path / name], check=True)
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("first", "second"))
    assert torch.equal(first, second)
    model = edgeprune.load(finished.run)
    x = torch.randn(8, *INPUT, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(model.module(x), first)


def test_base_plan_and_safetensors_are_the_pruned_model(finished: Finished) -> None:
    """By hand, as the documentation says: the base, the plan applied, the weights loaded, nothing else."""
    base = edgeprune.load(f"{finished.recipe.parent}/tiny.py:tiny", input_size=INPUT)
    plan = edgeprune.read_plan(finished.run / "prune" / "plan.json")
    module = apply_plan(base.module, plan, base.example_input())
    weights = load_file(finished.run / "tune" / "model.safetensors")
    module.load_state_dict(weights, strict=True)
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in base.module.parameters())
    # The run's own process gave these answers after merging, which changes nothing but rounding.
    reference = load_file(finished.run / "export" / "reference.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(reference["input"]), reference["output"])


def test_no_image_is_both_seen_and_tested(finished: Finished) -> None:
    splits = Context(edgeprune.open_run(finished.run), Silent()).splits
    parts = {
        "train": splits.train.indices,
        "validation": splits.validation.indices,
        "calibration": splits.calibration.indices,
        "test": splits.test.indices,
    }
    everything = np.concatenate(list(parts.values()))
    assert len(np.unique(everything)) == len(everything) == 1797
    calibrated = load_file(finished.run / "quantize" / "calibration.safetensors")["input"]
    expected = torch.cat([images for images, _ in splits.calibration.batches(64)])
    assert torch.equal(calibrated, expected)
    seen = {image.numpy().tobytes() for image in calibrated}
    tested = {image.numpy().tobytes() for images, _ in splits.test.batches(64) for image in images}
    assert len(seen) == 64
    assert not seen & tested
