"""A run folder alone names no code: what runs is what its user has named, or trusts."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from facts import refused

import edgeprune
from edgeprune.checksum import file_sha256
from edgeprune.errors import EdgePruneError, ModelError, RunError
from edgeprune.models.load import load
from edgeprune.models.spec import ModelSpec
from edgeprune.models.trust import is_known, is_of, is_users_data, require_data
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import ModelSection, Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import StageRecord
from edgeprune.stages.context import Context

NET = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("ran").touch()

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


@pytest.fixture(autouse=True)
def _a_user_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))


def recipe(factory: str) -> Recipe:
    tree: dict[str, Any] = {
        "model": {"factory": factory, "input_size": (1, 8, 8), "untrained": True},
        "data": {"source": "digits", "validation_images": 10, "calibration_images": 10},
        "prune": {"target": "0.1kparams", "method": "magnitude"},
    }
    return parse_recipe(tree)


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    """A run whose model is loaded."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "net.py").write_text(NET)
    run = prepare_run(recipe(f"{tmp_path / 'code' / 'net.py'}:net"), tmp_path / "run", resume=False)
    do_stage(Context(run, Silent()), "load")
    return tmp_path / "run"


@pytest.fixture
def ran(loaded: Path) -> Path:
    """The mark that the factory's code leaves; it is not there yet."""
    mark = loaded.parent / "code" / "ran"
    mark.unlink()
    return mark


def rename(run: Path, source: str, *, in_recipe: bool) -> None:
    """What somebody who makes up a run folder does: the hashes fit."""
    spec = json.loads((run / "load" / "spec.json").read_text())
    (run / "load" / "spec.json").write_text(json.dumps({**spec, "source": source}))
    if in_recipe:
        head = json.loads((run / "run.json").read_text())
        head["recipe"]["model"]["factory"] = source
        (run / "run.json").write_text(json.dumps(head))
    seal(run)


def seal(run: Path) -> None:
    from edgeprune.pipeline import _settings, data_now
    from edgeprune.runs import open_run

    record = json.loads((run / "load" / "stage.json").read_text())
    for file in record["files"]:
        path = run / "load" / file["path"]
        file |= {"size": path.stat().st_size, "sha256": file_sha256(path)}
    record["settings"] = _settings(open_run(run), "load", data_now(open_run(run)).sha256)
    (run / "load" / "stage.json").write_text(json.dumps(record))


def test_a_run_of_ones_own_goes_on_wherever_it_lies(loaded: Path, ran: Path) -> None:
    assert edgeprune.load(loaded).spec.num_classes == 10
    assert ran.exists()
    moved = loaded.rename(loaded.with_name("elsewhere"))
    edgeprune.load(moved)


def test_a_run_from_elsewhere_runs_no_code_unless_trusted(
    loaded: Path, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_user(tmp_path, monkeypatch)
    with pytest.raises(RunError) as caught:
        edgeprune.load(loaded)
    assert caught.value.exit_code == 2
    assert "net.py:net" in str(caught.value)
    assert "--trust" in str(caught.value)
    assert not ran.exists()
    edgeprune.load(loaded, trust=True)
    assert ran.exists()


def test_code_that_changed_since_is_not_what_was_named(loaded: Path, ran: Path) -> None:
    (ran.parent / "net.py").write_text(NET + "\nimport os\n")
    with pytest.raises(RunError):
        edgeprune.load(loaded)
    assert not ran.exists()


@pytest.mark.parametrize("in_recipe", [True, False])
@pytest.mark.parametrize(
    "source",
    ["os:system", "builtins:eval", "subprocess:run", "torch:load", "os:path.join", ":x", "net.py:", "timm:../x"],
)
def test_a_made_up_record_calls_nothing(loaded: Path, source: str, in_recipe: bool) -> None:
    rename(loaded, source, in_recipe=in_recipe)
    for options in ({}, {"trust": True}) if source != "torch:load" else ({},):
        with pytest.raises(EdgePruneError) as caught:
            edgeprune.load(loaded, **options)
        assert caught.value.exit_code == 2


def test_a_command_does_not_run_through_its_arguments(loaded: Path, tmp_path: Path) -> None:
    spec = json.loads((loaded / "load" / "spec.json").read_text())
    spec |= {"source": "os:system", "arguments": {"command": f"touch {tmp_path / 'pwned'}"}}
    (loaded / "load" / "spec.json").write_text(json.dumps(spec))
    head = json.loads((loaded / "run.json").read_text())
    head["recipe"]["model"] |= {"factory": "os:system", "arguments": spec["arguments"]}
    (loaded / "run.json").write_text(json.dumps(head))
    seal(loaded)
    for options in ({}, {"trust": True}):
        with pytest.raises(EdgePruneError):
            edgeprune.load(loaded, **options)
    assert not (tmp_path / "pwned").exists()


def test_a_record_without_its_hash_is_not_used(loaded: Path, ran: Path) -> None:
    spec = loaded / "load" / "spec.json"
    spec.write_text(spec.read_text() + "\n")
    with pytest.raises(RunError):
        edgeprune.load(loaded)
    record = json.loads((loaded / "load" / "stage.json").read_text())
    record["files"] = [file for file in record["files"] if file["path"] != "spec.json"]
    (loaded / "load" / "stage.json").write_text(json.dumps(record))
    with pytest.raises(RunError):
        edgeprune.load(loaded)
    assert not ran.exists()


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "a/../../b", ""])
def test_a_record_stays_in_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="folder"):
        StageRecord.model_validate(
            {
                "stage": "load",
                "settings": "",
                "seconds": 0,
                "files": [{"path": path, "size": 0, "sha256": ""}],
                "result": {},
            }
        )


@pytest.mark.parametrize(
    ("source", "arguments", "known"),
    [
        ("timm:resnet10t", {"num_classes": 3, "img_size": [64, 64], "act_layer": "relu"}, True),
        ("timm:resnet10t.c3_in1k", {}, True),
        ("timm:hf-hub:somebody/net", {}, False),
        ("timm:local-dir:/tmp/net", {}, False),
        ("timm:resnet10t", {"checkpoint_path": "/tmp/x.pth"}, False),
        ("timm:resnet10t", {"pretrained": True}, False),
        ("timm:resnet10t", {"pretrained_cfg_overlay": {"url": "http://x"}}, False),
        ("timm:resnet10t", {"extra": "http://x"}, False),
        ("timm:resnet10t", {"extra": ["../x"]}, False),
        ("timm:resnet10t", {"extra": {"file": "x"}}, False),
        ("torch:load", {}, False),
        ("net.py:net", {}, False),
    ],
)
def test_what_a_folder_may_name_alone(source: str, arguments: dict[str, Any], known: bool) -> None:
    assert is_known(source, arguments) == known


def test_finding_a_factorys_file_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "pack" / "net.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert not is_known("pack.net:make", {})
    assert "pack" not in sys.modules


FACTORIES = """
import functools
import os
from os import system
from subprocess import run
from torch import nn

class Net(nn.Sequential):
    def __init__(self, classes=10):
        super().__init__(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))

make = lambda classes=10: Net(classes)
five = functools.partial(Net, 5)
cached = functools.lru_cache(Net)
hidden = functools.partial(os.system, "true")
there = Net()
class Callable:
    def __call__(self):
        return Net()
instance = Callable()
"""


@pytest.fixture
def factories(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "made.py").write_text(FACTORIES)
    yield tmp_path / "made.py"
    sys.modules.pop("made", None)


@pytest.mark.parametrize("name", ["Net", "make", "five", "cached"])
def test_classes_and_functions_make_models(factories: Path, name: str) -> None:
    load(f"{factories}:{name}", input_size=(1, 8, 8))


@pytest.mark.parametrize("name", ["system", "run", "hidden", "there", "instance", "os", "os.system", "nn"])
def test_nothing_else_does(factories: Path, name: str) -> None:
    with pytest.raises(ModelError):
        load(f"{factories}:{name}", input_size=(1, 8, 8))


@pytest.mark.parametrize(
    "source", ["os:system", "builtins:eval", "subprocess:run", "antigravity:geohash", "importlib.util:find_spec"]
)
def test_the_standard_library_makes_no_models(source: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ModelError):
        load(source, arguments={"command": "true"}, input_size=(1, 8, 8))
    assert "antigravity" not in set(sys.modules) - before
    with pytest.raises(ModelError):
        load(f"{functools.__file__}:reduce", input_size=(1, 8, 8))


@pytest.mark.parametrize(
    ("source", "is_code"),
    [
        ("data.py:make", True),
        ("my.package:Photos", True),
        ("digits", False),
        ("npz:arrays", False),
        ("csv:table", False),
        ("coco:objects", False),
        ("timm:cifar", False),
        ("csv:table.py:make", False),
    ],
)
def test_which_data_are_code(source: str, is_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_users_data(source) == is_code
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if is_code or source.startswith("timm:"):
        with refused(RunError, source, "--trust"):
            require_data(source, tmp_path)
    else:
        require_data(source, tmp_path)


def test_a_spec_is_of_its_recipe() -> None:
    spec = load("resnet10t", arguments={"act_layer": "relu"}, num_classes=3, input_size=(3, 32, 32)).spec
    spec = ModelSpec.model_validate_json(spec.model_dump_json())
    assert is_of(spec, ModelSection(name="resnet10t", arguments={"act_layer": "relu"}, num_classes=3))
    assert not is_of(spec, ModelSection(name="resnet10t", num_classes=3))
    assert not is_of(spec, ModelSection(name="resnet18", arguments={"act_layer": "relu"}))


@pytest.mark.parametrize("size", [[1, 8_000_000, 8], [1, 8e6, 8], [4096, 4096, 4096], [1, 0, 8]])
def test_a_record_of_an_input_that_takes_all_memory_or_years(loaded: Path, size: list[float]) -> None:
    spec = loaded / "load" / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"input_size": size}))
    seal(loaded)
    with pytest.raises(RunError, match="input_size") as caught:
        edgeprune.load(loaded)
    assert caught.value.exit_code == 2
