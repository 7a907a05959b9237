"""The cases of recipes, devices, run folders and what is published (points 6, 8, 17, 20 to 23)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trust_net import FAIL, NAMES, PASS, REFUSED, UNDECIDED, Base, Case, draw_folder

HEAVY = 10**15


def other_cases(base: Base, finished: Path) -> list[Case]:
    """`finished`: a run folder that passed, and whose factory lies beside it."""

    def recipe(name: str, before: str = "", ends: tuple[int, ...] = (REFUSED,), **sections: Any) -> Case:
        def written(folder: Path) -> list[object]:
            draw_folder(folder / "images", NAMES, 10, seed=3)
            command = base.recipe(folder, **sections)
            file = folder / "recipe.toml"
            file.write_text(before + file.read_text())
            return command

        return Case(17, name, written, ends)

    def of_run(
        point: int,
        name: str,
        change: Callable[[Path], object],
        command: tuple[str, ...],
        ends: tuple[int, ...],
        **more: Any,
    ) -> Case:
        def written(folder: Path) -> list[object]:
            shutil.copytree(finished, folder / "run")
            change(folder / "run")
            return list(command)

        return Case(point, name, written, ends, **more)

    show = ("show", "run")
    return [
        recipe("a negative seed", "seed = -1\n"),
        recipe("a seed of 30 digits", f"seed = {'1' * 30}\n"),
        recipe("a seed of 5,000 digits", f"seed = {'9' * 5000}\n"),
        recipe("3,000 brackets", f"x = {'[' * 3000}{']' * 3000}\n"),
        recipe("~nouser as data", data={"source": "~nouser/images"}),
        recipe("~nouser as checkpoint", model={"checkpoint": "~nouser/weights.pth"}),
        recipe("NUL in the data's path", data={"source": "im\0ages"}),
        recipe("NUL in the checkpoint's path", model={"checkpoint": "weights\0.pth"}),
        recipe("crop_pct of 1e-9", data={"crop_pct": 1e-9}),
        recipe("resize to 100,000", data={"resize": 100_000}),
        recipe("a thousand million threads", device={"threads": 10**9}),
        recipe(
            "a thousand million million images a batch", tune={"batch_size": HEAVY, "epochs": 1}, ends=(PASS, REFUSED)
        ),
        recipe("epochs = true", tune={"epochs": True}),
        recipe("images = true", verify={"images": True}),
        recipe("untrained = 'no'", model={"untrained": "no"}),
        recipe("an agreement of 97", verify_gates={"int8_agreement": 97}),
        recipe("a drop of 50 points or so", verify_gates={"accuracy_drop": 50}),
        recipe("a drop of 0 is a gate", verify_gates={"accuracy_drop": 0}, ends=(FAIL, UNDECIDED)),
        recipe("no format", export={"formats": []}),
        recipe("no data", data={"source": ""}),
        of_run(18, "a limit of NaN", as_it_is, (*BENCH, "--limit-db", "nan"), (REFUSED,)),
        of_run(
            17, "an input size below 0", as_it_is, ("show", "units", "resnet18", "--input-size", "3,-1,-1"), (REFUSED,)
        ),
        of_run(17, "a name of 300 letters", as_it_is, ("show", "x" * 300), (REFUSED,)),
        of_run(21, "a spec that names os:system", foreign_factory, ("merge", "run"), (REFUSED,), wrong=no_trace),
        of_run(21, "the same, loaded for export", foreign_factory, ("export", "run"), (REFUSED,), wrong=no_trace),
        of_run(21, "a run folder from elsewhere is shown", as_it_is, show, (PASS,)),
        of_run(23, "a manifest that leads out of its folder", leads_out("../../../etc/passwd"), SHOW_FILE, (REFUSED,)),
        of_run(23, "a manifest with an absolute path", leads_out("/etc/passwd"), SHOW_FILE, (REFUSED,)),
        of_run(18, "a run.json that is a list", lambda run: (run / "run.json").write_text("[]"), show, (REFUSED,)),
        of_run(18, "a stage record of zeros", zeros("load/stage.json"), show, (REFUSED,)),
        of_run(18, "a .tflite of zeros", zeros("export/model_fp32.tflite"), BENCH, (REFUSED,)),
        of_run(18, "half a .tflite", half("export/model_fp32.tflite"), BENCH, (REFUSED,)),
    ]


SHOW_FILE = ("show", "run/export/model_fp32.tflite.json")
BENCH = ("explain", "run/export/model_fp32.tflite", "--device", "local")


def as_it_is(run: Path) -> None:
    """A run folder that was made under another path."""
    assert run.is_dir()


def foreign_factory(run: Path) -> None:
    for file in (run / "load" / "spec.json", run / "run.json"):
        tree = json.loads(file.read_text())
        if file.name == "spec.json":
            tree |= {"source": "os:system", "arguments": {"command": "touch ran"}}
        else:
            tree["recipe"]["model"] |= {"factory": "os:system", "arguments": {"command": "touch ran"}}
        file.write_text(json.dumps(tree))


def no_trace(folder: Path) -> str:
    return "a command ran" if (folder / "ran").exists() else ""


def leads_out(name: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        file = run / "export" / "model_fp32.tflite.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"reference": name}))

    return change


def zeros(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(bytes((run / name).stat().st_size))


def half(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])
