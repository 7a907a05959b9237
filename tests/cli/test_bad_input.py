"""Bad input: exit code 2 (4 for devices) and words that say what, where and what to do; never a traceback."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from PIL import Image
from safetensors.torch import save_file
from tiny_job import FACTORY, Done, Finished, edgeprune, inside, leftovers, recipe_text, stamps, write_job
from torch import nn

from edgeprune.api import load
from edgeprune.data.folders import NoData
from edgeprune.errors import DataError, DeviceError, ModelError, RecipeError, RunError, TargetError, UsageError

pytestmark = pytest.mark.usefixtures("short_measuring")


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def run(folder: Path, **sections: Mapping[str, Any]) -> Done:
    """The recipe's whole job in a folder; nothing of it may be left half-done."""
    done = inside("run", write_job(folder, **sections), "--out", folder / "run")
    assert leftovers(folder / "run") == []
    return done


def with_checkpoint(name: str) -> dict[str, Any]:
    return {"model": {"checkpoint": name}}


def images(folder: Path, classes: int, each: int = 3) -> None:
    for name in (f"class{number:02d}" for number in range(classes)):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = np.full((16, 16), 10 * number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


# The recipe


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def test_unknown_key_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    line = line_of(recipe_text(tune={"epocs": 3}), "epocs")
    run(tmp_path, tune={"epocs": 3}).fails(RecipeError, f"recipe.toml:{line}", "tune.epocs", "tune.epochs")
    assert not (tmp_path / "run").exists()


def test_wrong_type(tmp_path: Path) -> None:
    line = line_of(recipe_text(tune={"epochs": "two"}), "epochs")
    run(tmp_path, tune={"epochs": "two"}).fails(RecipeError, f"recipe.toml:{line}", "tune.epochs", "number", "'two'")


def test_recipe_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    inside("run", tmp_path / "none.toml").fails(RecipeError, "none.toml", os.strerror(errno.ENOENT))
    (tmp_path / "broken.toml").write_text("[model\n")
    inside("run", tmp_path / "broken.toml").fails(RecipeError, "broken.toml", "TOML", "line 1")


def test_target_that_is_no_target(tmp_path: Path) -> None:
    run(tmp_path, prune={"target": "fast"}).fails(RecipeError, "prune.target", "'fast'", "0.5x", "8ms", "150MMACs")


def test_errors_are_json_too(tmp_path: Path) -> None:
    done = inside("run", write_job(tmp_path, tune={"epocs": 3}), "--json")
    error = done.json["error"]
    assert error["exit_code"] == done.code == 2
    assert "tune.epocs" in error["what"]
    assert "tune.epochs" in error["hint"]


# The target


def test_target_slower_than_the_model(tmp_path: Path) -> None:
    run(tmp_path, prune={"target": "2x"}).fails(RecipeError, "2x", "0.5x", "1x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "facts"),
    [
        ("0.001x", ("ms", "prune.minimum_width")),
        ("10000ms", ("ms",)),
        ("1Mparams", ("0.03796 Mparams",)),
    ],
)
def test_target_out_of_reach(finished: Finished, copied: Path, target: str, facts: tuple[str, ...]) -> None:
    """Another target for the finished run: what was measured is kept, and nothing half-pruned is left."""
    before, recipe = stamps(copied), finished.recipe.with_name("other.toml")
    recipe.write_text(recipe_text(prune={"target": target}))
    done = inside("run", recipe, "--out", copied, "--resume")
    done.fails(TargetError, target, *facts)
    assert stamps(copied) == {stage: before[stage] for stage in ("load", "probe")}
    assert not (copied / "prune").exists()


# The data


def test_data_folder_that_is_missing(tmp_path: Path) -> None:
    run(tmp_path, data={"source": "photos"}).fails(NoData, "photos", "digits")


def test_empty_data_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run(tmp_path, data={"source": "photos"}).fails(NoData, tmp_path / "photos")


def test_class_without_images(tmp_path: Path) -> None:
    images(tmp_path / "photos", 2)
    (tmp_path / "photos" / "none").mkdir()
    run(tmp_path, data={"source": "photos"}).fails(DataError, tmp_path / "photos" / "none")


def test_one_class_only(tmp_path: Path) -> None:
    images(tmp_path / "photos", 1)
    run(tmp_path, data={"source": "photos"}).fails(DataError, "class00")


def test_labels_that_do_not_fit_the_classifier(tmp_path: Path) -> None:
    images(tmp_path / "photos", 12)
    run(tmp_path, data={"source": "photos"}).fails(DataError, 12, 10, "num_classes")


# The model


def test_unknown_timm_model(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[model]\nname = "resnet81"\n[data]\nsource = "digits"\n')
    inside("run", recipe, "--out", tmp_path / "run").fails(ModelError, "resnet81", "resnet18")


def test_factory_that_is_not_there(tmp_path: Path) -> None:
    run(tmp_path, model={"factory": "tiny.py:tinny"}).fails(ModelError, "tinny", "tiny")


def test_factory_whose_thread_never_ends_does_not_keep_the_command(tmp_path: Path) -> None:
    lines = [
        "import threading",
        FACTORY,
        "def starts():",
        "    threading.Thread(target=threading.Event().wait).start()",
    ]
    (tmp_path / "starting.py").write_text("\n".join([*lines, "    return Tiny()", ""]))
    done = edgeprune("show", "units", f"{tmp_path / 'starting.py'}:starts", "--input-size", "1,16,16", "--json")
    assert done.code == 0
    assert done.json["groups"]
    assert "still run" in done.err


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    save_file({"stem.weight": torch.zeros(32, 1, 5, 5), "neck.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    done = run(tmp_path, **with_checkpoint("other.safetensors"))
    done.fails(ModelError, "bn0.weight", "neck.bias", "stem.weight", (32, 1, 5, 5))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickle_checkpoint_is_refused_unopened(tmp_path: Path, kind: str) -> None:
    trace, file = tmp_path / "it-was-run", tmp_path / "weights.pt"
    state = {"state_dict": {"a": torch.zeros(1)}, "evil": Evil(trace)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(state))
    else:
        torch.save({**state, "module": nn.Linear(1, 1)}, file)
    run(tmp_path, **with_checkpoint(file.name)).fails(ModelError, "pickle", file, "weights_only=False")
    assert not trace.exists()


def test_model_that_cannot_be_traced(tmp_path: Path) -> None:
    source = FACTORY.replace(
        "        x = F.relu(x +", "        if x.mean() > 0.5:\n            x = 2 * x\n        x = F.relu(x +"
    )
    (tmp_path / "branching.py").write_text(source)
    line = line_of(source, "        if x.mean()")
    done = run(tmp_path, model={"factory": "branching.py:tiny"})
    done.fails(ModelError, f"branching.py:{line}", "if x.mean() > 0.5:", "data-dependent")


# The device


@pytest.mark.parametrize("command", ["run", "prune", "bench", "verify"])
def test_unknown_device(tmp_path: Path, finished: Finished, command: str) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "run": (write_job(tmp_path), "--out", tmp_path / "run"),
        "prune": (
            *(f"{tmp_path}/tiny.py:tiny", "--input-size", "1,16,16", "--target", "0.5x", "--data", "digits"),
            *("--untrained", "--out", tmp_path / "run"),
        ),
        "bench": (finished.run / "export" / "model_fp32.tflite",),
        "verify": (finished.run,),
    }
    before = stamps(finished.run)
    done = inside(command, *arguments[command], "--device", "locl")
    done.fails(DeviceError, "'locl'", "`local`", code=4)
    assert stamps(finished.run) == before
    resumed = ("--resume",) if command == "run" else ()
    inside(command, *arguments[command], *resumed, "--device", "apple:123").fails(DeviceError, 123, code=4)


# The run folder


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    for command in ("tune", "merge", "quantize", "export", "verify", "show", "report"):
        inside(command, tmp_path).fails(RunError, "run.json", tmp_path)
    inside("tune", tmp_path / "nowhere").fails(RunError, tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_not_free(tmp_path: Path, finished: Finished) -> None:
    inside("run", finished.recipe, "--out", finished.run).fails(RunError, finished.run, "--resume")
    recipe = write_job(tmp_path)
    inside("run", recipe, "--out", tmp_path).fails(RunError, tmp_path, "--out")
    inside("run", recipe, "--out", recipe).refused(os.strerror(errno.EEXIST), str(recipe))


@pytest.mark.parametrize("file", ["load/model.safetensors", "prune/plan.json", "tune/history.json"])
def test_corrupt_run_folder(copied: Path, finished: Finished, file: str) -> None:
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    facts = (copied / file, "--resume")
    inside("run", finished.recipe, "--out", copied, "--resume").fails(RunError, *facts)
    inside("show", copied).fails(RunError, *facts)
    inside("export", copied, "--format", "onnx").fails(RunError, *facts)


def test_corrupt_stage_is_done_again_as_the_message_says(copied: Path, finished: Finished) -> None:
    (copied / "report" / "report.json").write_text("{")
    done = inside("run", finished.recipe, "--out", copied, "--resume")
    done.fails(RunError, copied / "report")
    shutil.rmtree(copied / "report")
    assert inside("run", finished.recipe, "--out", copied, "--resume").code == 0
    assert (copied / "report" / "report.html").is_file()


def test_unreadable_head(copied: Path) -> None:
    (copied / "run.json").write_text("{}")
    inside("tune", copied).fails(RunError, "run.json")


def test_a_run_that_finished_nothing_may_be_begun_again(tmp_path: Path) -> None:
    """After a mistake in the recipe is mended, the same command works: nothing is there to be overwritten."""
    done = run(tmp_path, prune={"target": "1Mparams"}, data={"source": "photos"})
    done.fails(NoData, "photos")
    done = run(tmp_path, prune={"target": "1Mparams"})
    done.fails(TargetError, "1Mparams")  # it came further than before
    assert set(stamps(tmp_path / "run")) == {"load", "probe"}


# Files


def test_files_that_cannot_be_shown_or_measured(tmp_path: Path, copied: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    inside("show", tmp_path / "none").fails(UsageError, tmp_path / "none")
    inside("show", tmp_path / "notes.txt").fails(UsageError, tmp_path / "notes.txt.json", os.strerror(errno.ENOENT))
    inside("bench", tmp_path / "notes.txt").fails(UsageError, tmp_path / "notes.txt", ".tflite", ".pte", ".onnx")
    inside("bench", tmp_path / "none.tflite").fails(UsageError, tmp_path / "none.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"not a flatbuffer")
    inside("bench", tmp_path / "broken.tflite").fails(UsageError, tmp_path / "broken.tflite")
    file = copied / "export" / "model_fp32.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    inside("show", file).fails(UsageError, file, "sha256")


def test_what_we_did_not_foresee_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own exit code for a crash is 1, which would look like a failed gate."""

    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by a defect of ours")

    monkeypatch.setattr("edgeprune.api.run", crash)
    done = inside("run", write_job(tmp_path), "--out", tmp_path / "run", "--json")
    assert done.code == 3
    assert "ZeroDivisionError: by a defect of ours" in done.err
    assert done.json["error"]["exit_code"] == 3


def test_unknown_compute_units(tmp_path: Path) -> None:
    (tmp_path / "x.mlpackage").mkdir()
    done = inside("bench", tmp_path / "x.mlpackage", "--compute-units", "NPU")
    done.fails(UsageError, "'NPU'", "CPU_AND_NE")


@pytest.mark.parametrize("name", ["x" * 300, "y" * 5000])
def test_names_that_cannot_be_are_usage(tmp_path: Path, name: str) -> None:
    for command in ("show", "merge"):
        done = inside(command, tmp_path / name)
        assert (done.code, "Traceback" in done.err) == (2, False)
        assert os.strerror(errno.ENAMETOOLONG) in done.err


@pytest.mark.parametrize(
    "size", ["3,224", "1,3,224,224", "3,0,0", "3,-1,-1", "3,99999999999,5", "3,,224", "9,8192,8192", "a"]
)
@pytest.mark.parametrize("command", [("show", "units"), ("probe",)])
def test_input_sizes_that_are_none(command: tuple[str, ...], size: str) -> None:
    inside(*command, "resnet18", "--input-size", size).fails(UsageError, "--input-size", size, "3,224,224")


def test_nor_in_python() -> None:
    for size in ((3, 224), (3, -1, -1), (3, 0, 224), (3, 10**10, 5), (9, 8192, 8192)):
        with refused(ModelError, "input size"):
            load("resnet18", input_size=size)


@pytest.mark.parametrize("limit", ["nan", "inf"])
def test_a_limit_that_is_no_number_agrees_with_nothing(tmp_path: Path, limit: str) -> None:
    """Nothing is below NaN: every file agreed."""
    inside("explain", tmp_path / "x.tflite", "--limit-db", limit).fails(UsageError, limit)
