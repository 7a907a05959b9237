"""docs/tasks.md, "Models of several inputs": its files, run whole; and what else takes such a model."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomlkit
import torch
from facts import refused
from pages import code_in, section_of
from PIL import Image
from torch.utils.data import DataLoader

import edgeprune
from edgeprune.artifacts.manifest import Manifest, manifest_path, read_manifest
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DataError, RecipeError, UsageError
from edgeprune.models.checkpoint import save_state
from edgeprune.models.load import load
from edgeprune.recipe_file import parse_recipe
from edgeprune.report.data import read_report
from edgeprune.stages.tune import check_tuning
from edgeprune.verify.accuracy import read_reference
from edgeprune.verify.execute import run_file
from edgeprune.verify.parity import sqnr_db

pytestmark = pytest.mark.slow

SECTION = "Models of several inputs"
SHAPES = {"left": (3, 16, 16), "right": (3, 16, 16), "place": (5,)}
EXACT = {"fp32": 100.0, "fp16": 40.0, "int8": 15.0}  # dB
GATES = {"accuracy_drop": 0.9, "int8_accuracy_drop": False, "int8_agreement": 0.0}


@dataclasses.dataclass(frozen=True)
class Ran:
    folder: Path
    outcome: edgeprune.Outcome


def write_files(folder: Path) -> dict[str, object]:
    """The section's files, a trained checkpoint among them; returns its recipe."""
    for name, code in code_in("tasks.md", SECTION).items():
        (folder / name).write_text(code)
    (recipe,) = re.findall(r"^```toml\n(.*?)^```", section_of("tasks.md", SECTION), re.DOTALL | re.MULTILINE)
    torch.manual_seed(0)
    model = load(f"{folder / 'matcher.py'}:matcher", inputs=SHAPES)
    namespace: dict[str, object] = {}
    exec((folder / "shifts.py").read_text(), namespace)  # a reader's own file
    optimizer = torch.optim.AdamW(model.module.parameters(), 4e-3)
    shifts = namespace["shifts"]
    assert callable(shifts)
    for _ in range(3):
        for given, target in DataLoader(shifts("train"), 32, shuffle=True):
            model.module.train()
            loss = torch.nn.functional.cross_entropy(model.module(*given.values()), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_state(folder / "matcher.safetensors", model.module)
    return tomllib.loads(recipe)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("several")
    tree = write_files(folder) | {
        "prune": {"target": "6kparams", "method": "magnitude", "scoring_batches": 1},
        "tune": {"epochs": 1},
        "export": {"formats": ["tflite", "onnx"]},
        "verify": {"images": 64, "gates": GATES},
    }
    (folder / "recipe.toml").write_text(tomlkit.dumps(tree))
    return Ran(folder, edgeprune.run(folder / "recipe.toml", folder / "run"))


def test_the_documents_files_go_the_whole_way(ran: Ran) -> None:
    files = {file.file: file for file in ran.outcome.verdict.files}
    assert {"model_fp32.tflite", "model_int8.tflite", "model_fp32.onnx"} == files.keys()
    assert all(file.passes and file.executed_on.startswith("local") for file in files.values())
    for name in files:
        check_file(ran.folder / "run" / "export", read_manifest(ran.folder / "run" / "export" / name))


def test_the_other_formats_take_them_too(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a recipe."""
    monkeypatch.chdir(ran.folder)
    options = {"inputs": SHAPES, "checkpoint": ran.folder / "matcher.safetensors"}
    done = edgeprune.export_model(
        "matcher.py:matcher", tmp_path / "out", formats=["pte", "coreml"], data="shifts.py:shifts", **options
    )
    assert [manifest.precision for manifest in done.manifests] == ["fp32", "int8", "fp16", "int8"]
    for manifest in done.manifests:
        assert isinstance(manifest.preprocessing, type(None))
        check_file(tmp_path / "out", manifest)
    found = edgeprune.verify_file(tmp_path / "out" / "model_fp32.pte")
    assert found.file.passes


def check_file(folder: Path, manifest: Manifest) -> None:
    """That it says which input is which, and computes what the model does: with two inputs exchanged something else."""
    inputs, (expected,) = read_reference(folder / manifest.reference)
    assert [one.of for one in manifest.inputs] == list(SHAPES)
    answers = run_file(LocalDevice(), folder / manifest.file, manifest, inputs).outputs[0]
    assert sqnr_db(expected, answers) > EXACT[manifest.precision], manifest.file
    first, second, third = manifest.inputs
    exchanged = manifest.model_copy(update={"inputs": (second, first, third)})
    if manifest.format != "pte":  # whose inputs have no names
        others = run_file(LocalDevice(), folder / manifest.file, exchanged, inputs).outputs[0]
        assert sqnr_db(expected, others) < 10, manifest.file


def test_a_file_is_verified_and_explained_without_the_run(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran.folder)
    file = ran.folder / "run" / "export" / "model_int8.tflite"
    found = edgeprune.verify_file(file, data="shifts.py:shifts", gates=GATES, images=32)
    assert found.file.passes
    explained = edgeprune.explain(file, device="local")
    assert explained.first is None
    assert explained.operators > 5


ONE = """
import torch
from torch import nn


class Items:
    def __init__(self, count, seed):
        self.x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index]}, index % 2


def items(split):
    return {"train": Items(40, 1), "test": Items(24, 2)}.get(split)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))
"""


def test_one_input_with_a_name_is_verified_with_its_data_and_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one_input.py").write_text(ONE)
    options = {"inputs": {"x": (3, 8, 8)}, "untrained": True, "data": "one_input.py:items"}
    done = edgeprune.export_model("one_input.py:Net", tmp_path / "out", formats=["onnx"], int8=False, **options)
    assert [one.of for one in done.manifests[0].inputs] == ["x"]
    model = load("one_input.py:Net", inputs={"x": (3, 8, 8)})
    file = tmp_path / "out" / "model_fp32.onnx"
    found = edgeprune.verify_file(file, data="one_input.py:items", model=model, untrained=True)
    assert found.file.passes
    manifest = manifest_path(file)
    for change in ({"of": "input.1"}, {"shape": [1, 0, 8, 8]}, {"shape": [1]}, {"shape": [1] * 9}):
        tree = json.loads(manifest.read_text())
        tree["inputs"][0] |= change
        manifest.write_text(json.dumps(tree))
        with refused(DataError, "model_fp32.onnx"):
            edgeprune.verify_file(file, data="one_input.py:items", untrained=True)


def test_inputs_are_not_mixed() -> None:
    for key in ("mixup", "cutmix"):
        tree = {"model": {"factory": "a.py:b", "inputs": SHAPES}, "data": {"source": "c.py:d"}, "tune": {key: 0.5}}
        with refused(RecipeError, f"tune.{key}"):
            check_tuning(parse_recipe(tree))


def test_the_pictures_of_the_report_are_of_the_first_picture(ran: Ran) -> None:
    report = read_report(ran.folder / "run" / "report" / "report.json")
    shown = [Image.open(io.BytesIO(base64.b64decode(one.image))) for one in report.shown]
    assert [picture.size for picture in shown] == [(16, 16)] * 4


@pytest.mark.parametrize(
    ("item", "facts"),
    [
        ("torch.rand(3, 16, 16)", ("left, right, place",)),
        ("{'left': x, 'right': x}", ("left, right",)),
        ("(x, x)", (2,)),
        ("(x, x, torch.rand(6))", ("place",)),
        ("(x, x.to_sparse(), torch.rand(5))", ("right",)),
        ("(x, x.to('meta'), torch.rand(5))", ("right",)),
        ("(x, x, torch.zeros(5, dtype=torch.int64))", ("place", "int64")),
        ("(x, x * float('nan'), torch.rand(5))", ("right",)),
    ],
)
def test_items_of_other_inputs_are_refused(tmp_path: Path, item: str, facts: tuple[object, ...]) -> None:
    tree = files_of(tmp_path)
    (tmp_path / "shifts.py").write_text(
        "import torch\nclass Items:\n    def __len__(self): return 40\n    def __getitem__(self, i):\n"
        f"        x = torch.rand(3, 16, 16)\n        return {item}, i % 4\n\ndef shifts(split): return Items()\n"
    )
    (tmp_path / "recipe.toml").write_text(tomlkit.dumps(tree))
    with refused(DataError, *facts):
        edgeprune.run(tmp_path / "recipe.toml", tmp_path / "run")


def test_images_of_a_folder_are_no_inputs(tmp_path: Path) -> None:
    tree = files_of(tmp_path) | {"data": {"source": "digits"}}
    (tmp_path / "recipe.toml").write_text(tomlkit.dumps(tree))
    with refused(RecipeError, "digits"):
        edgeprune.run(tmp_path / "recipe.toml", tmp_path / "run")


def test_a_batch_of_another_size_does_not_fit_a_file(ran: Ran) -> None:
    folder = ran.folder / "run" / "export"
    manifest = read_manifest(folder / "model_fp32.onnx")
    with refused(DataError, "left", "place"):
        run_file(LocalDevice(), folder / manifest.file, manifest, np.zeros((1, 3, 16, 16), np.float32))
    with refused(UsageError):
        read_manifest(folder / "no_such.onnx")


def files_of(folder: Path) -> dict[str, object]:
    (folder / "matcher.py").write_text(code_in("tasks.md", SECTION)["matcher.py"])
    model = {"factory": "matcher.py:matcher", "inputs": {k: list(v) for k, v in SHAPES.items()}, "untrained": True}
    return {"model": model, "data": {"source": "shifts.py:shifts"}, "prune": {"target": "0.5x"}}
