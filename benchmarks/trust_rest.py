"""The cases of recipes, devices, run folders and what is published (points 6, 8, 17, 20 to 23)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trust_net import FAIL, NAMES, PASS, REFUSED, UNDECIDED, Base, Case, draw_folder

from edgeprune.pipeline import _recorded_data, _settings
from edgeprune.runs import open_run

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
        of_run(23, "a manifest that leads out of its folder", leads_out("../../../etc/passwd"), FILE, (REFUSED,)),
        of_run(23, "a manifest with an absolute path", leads_out("/etc/passwd"), FILE, (REFUSED,)),
        of_run(21, "a plan of 65 MB", changed("prune", "plan.json", b" " * (65 << 20)), PLAN, (REFUSED,)),
        of_run(21, "a plan that nests", changed("prune", "plan.json", b"[" * 100_000), PLAN, (REFUSED,)),
        of_run(21, "a history that is none", changed("tune", "history.json", b'{"epoch": 1}'), REPORT, (REFUSED,)),
        of_run(21, "a verdict that is none", changed("verify", "verdict.json", b"[]"), ("verify", "run"), (REFUSED,)),
        of_run(21, "a spec of builtins:eval", spec_of("builtins:eval"), ("merge", "run"), (REFUSED,), wrong=no_trace),
        of_run(21, "a spec of subprocess:run", spec_of("subprocess:run"), ("merge", "run"), (REFUSED,), wrong=no_trace),
        of_run(21, "a spec of a model hub", spec_of("timm:hf-hub:a/b"), ("merge", "run"), (REFUSED,)),
        of_run(23, "the reference is a link out", linked("export/reference.safetensors"), FILE, (REFUSED,)),
        of_run(18, "a run.json that is a list", lambda run: (run / "run.json").write_text("[]"), show, (REFUSED,)),
        of_run(18, "a stage record of zeros", zeros("load/stage.json"), show, (REFUSED,)),
        of_run(18, "a .tflite of zeros", zeros("export/model_fp32.tflite"), BENCH, (REFUSED,)),
        of_run(18, "half a .tflite", half("export/model_fp32.tflite"), BENCH, (REFUSED,)),
    ]


BENCH = ("explain", "run/export/model_fp32.tflite", "--device", "local")


def as_it_is(run: Path) -> None:
    """A run folder that was made under another path."""
    assert run.is_dir()


FILE = ("show", "run/export/model_fp32.tflite")
PLAN = ("show", "run/prune/plan.json")
REPORT = ("report", "run")


def changed(stage: str, name: str, content: bytes) -> Callable[[Path], object]:
    """A file of another content, with the stage's record changed to match; the report has to be written again."""

    def change(run: Path) -> None:
        (run / stage / name).write_bytes(content)
        record = run / stage / "stage.json"
        tree = json.loads(record.read_text())
        for row in tree["files"]:
            if row["path"] == name:
                row |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        record.write_text(json.dumps(tree))
        (run / "report" / "stage.json").unlink()

    return change


def spec_of(source: str) -> Callable[[Path], object]:
    """The model is this, by the spec and by the recipe; merging has to be done again."""

    def change(run: Path) -> None:
        spec = json.loads((run / "load" / "spec.json").read_text()) | {"source": source, "arguments": {}}
        changed("load", "spec.json", json.dumps(spec).encode())(run)
        head = json.loads((run / "run.json").read_text())
        name = {"factory": None, "name": source} if source.startswith("timm:") else {"factory": source}
        head["recipe"]["model"] |= {**name, "arguments": {}}
        (run / "run.json").write_text(json.dumps(head))
        opened = open_run(run)
        for record in run.glob("*/stage.json"):
            settings = _settings(opened, record.parent.name, _recorded_data(opened))
            record.write_text(json.dumps(json.loads(record.read_text()) | {"settings": settings}))
        (run / "merge" / "stage.json").unlink()

    return change


def linked(name: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        (run / name).rename(run.parent / "outside")
        (run / name).symlink_to(run.parent / "outside")

    return change


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
