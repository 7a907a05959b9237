from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from facts import refused
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.models.checkpoint import save_state
from edgeprune.models.load import build, load, load_from
from edgeprune.models.spec import ModelSpec
from edgeprune.models.timm_import import import_timm
from edgeprune.recipe import ModelSection

FACTORY = """
import helper
from torch import nn

def make(classes=5, channels=3):
    return nn.Sequential(nn.Conv2d(channels, helper.WIDTH, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(helper.WIDTH, classes))

def boom():
    raise ArithmeticError("out of luck")

def a_dict():
    return {}

def segmenter():
    return nn.Conv2d(3, 5, 3)

class classes_named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = make()

    def forward(self, x):
        return self.net(x).argmax(1)

def diverged():
    net = make()
    nn.init.constant_(net[3].bias, float("nan"))
    return net
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 6\n")
    (tmp_path / "net.py").write_text(FACTORY)
    yield tmp_path / "net.py"
    sys.modules.pop("helper", None)
    sys.modules.pop("net", None)


def _same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_timm_comes_back_the_same_module() -> None:
    assert import_timm() is import_timm()


def test_timm_imports_first_thing_in_a_process() -> None:
    code = "from edgeprune.models.timm_import import import_timm; import_timm(); import torchvision.transforms"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_timm_model_brings_its_own_preprocessing() -> None:
    model = load("resnet18", num_classes=7)
    spec = model.spec
    assert spec.source == "timm:resnet18"
    assert spec.input_size == (3, 224, 224)
    assert spec.num_classes == 7
    assert spec.preprocessing.mean == (0.485, 0.456, 0.406)
    assert (spec.preprocessing.interpolation, spec.preprocessing.crop_pct) == ("bicubic", 0.95)
    assert spec.versions.keys() == {"torch", "timm"}
    assert not model.module.training
    assert model.module(model.example_input(2)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv2_050", (1, 48, 64)), ("deit_tiny_patch16_224", (3, 64, 64)), ("resnet10t", (4, 32, 32))],
)
def test_another_input_size_is_taken_and_rebuilt(name: str, size: tuple[int, int, int]) -> None:
    model = load(name, input_size=size, num_classes=3)
    spec = ModelSpec.model_validate_json(model.spec.model_dump_json())
    assert spec.input_size == size
    assert len(spec.preprocessing.mean) == size[0]
    rebuilt = build(spec)
    assert not rebuilt.training
    assert _same(rebuilt, model.module)
    example = model.example_input(2)
    assert torch.equal(rebuilt(example), model.module(example))


def test_random_weights_are_the_same_and_the_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = load("resnet10t", num_classes=2, input_size=(3, 32, 32))
    assert torch.equal(torch.rand(3), expected)
    assert _same(one.module, load("resnet10t", num_classes=2, input_size=(3, 32, 32)).module)


def test_an_unknown_name_gets_its_neighbours() -> None:
    with refused(ModelError, "resnet81", "resnet18", "timm"):
        load("resnet81")


def test_weights_out_of_reach_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with refused(ModelError, "resnet10t", "hub", "checkpoint", because=Exception):
        load("resnet10t", pretrained=True)


def test_a_factory_in_a_file(factory: Path, tmp_path: Path) -> None:
    model = load(f"{factory}:make", arguments={"classes": 4}, input_size=(3, 16, 16), labels=("a", "b", "c", "d"))
    assert model.spec.num_classes == 4
    assert model.spec.preprocessing.mean == (0.0, 0.0, 0.0)
    assert model.spec.labels == ("a", "b", "c", "d")
    other = load(
        f"{factory}:make", arguments={"classes": 4, "channels": 1}, input_size=(1, 16, 16), mean=(0.5,), std=(2.0,)
    )
    assert (other.spec.preprocessing.mean, other.spec.preprocessing.std) == ((0.5,), (2.0,))
    assert str(tmp_path) not in sys.path


def test_a_relative_file_can_be_built_from_anywhere(
    factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = load("net.py:make", input_size=(3, 16, 16))
    monkeypatch.chdir("/")
    assert _same(build(model.spec), model.module)


def test_a_factory_in_a_package_of_the_working_directory(factory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(factory.parent)
    model = load("net:make", input_size=(3, 16, 16))
    assert model.spec.source == "net:make"
    assert _same(build(model.spec), model.module)


def test_a_checkpoint_is_loaded(factory: Path, tmp_path: Path) -> None:
    made = load(f"{factory}:make", input_size=(3, 16, 16)).module
    nn.init.normal_(made[0].weight)
    save_state(tmp_path / "w.safetensors", made)
    section = ModelSection(factory=f"{factory}:make", input_size=(3, 16, 16), checkpoint=tmp_path / "w.safetensors")
    model = load_from(section)
    assert _same(model.module, made)
    assert model.checkpoint == tmp_path / "w.safetensors"


def test_a_recipe_names_timm_models() -> None:
    model = load_from(ModelSection(name="resnet10t", num_classes=3, input_size=(3, 32, 32), mean=(0.5,) * 3))
    assert model.spec.source == "timm:resnet10t"
    assert model.spec.preprocessing.mean == (0.5,) * 3


@pytest.mark.parametrize(
    ("function", "settings", "facts"),
    [
        ("make", {}, ("input_size",)),
        ("boom", {"input_size": (3, 16, 16)}, ("ArithmeticError: out of luck", "boom")),
        ("a_dict", {"input_size": (3, 16, 16)}, ("dict", "nn.Module")),
        ("classes_named", {"input_size": (3, 16, 16)}, ("int64", (1,))),
        ("mkae", {"input_size": (3, 16, 16)}, ("mkae", "make")),
        ("make", {"input_size": (1, 16, 16)}, ((1, 1, 16, 16),)),
        ("make", {"input_size": (3, 16, 16), "num_classes": 9}, (5, "num_classes", 9)),
        ("make", {"input_size": (3, 16, 16), "labels": ("a",)}, (1, "labels", 5)),
        ("make", {"input_size": (3, 16, 16), "mean": (0.1,)}, ("mean", 3)),
        ("make", {"input_size": (3, 16, 16), "std": (1.0, 0.0, 1.0)}, ("std", "positive")),
        ("diverged", {"input_size": (3, 16, 16)}, ("finite", "3.bias")),
        ("make", {"input_size": (3, 16, 16), "pretrained": True}, ("pretrained", "timm")),
        ("make", {"input_size": (3, 16, 16), "arguments": {"depth": 3}}, ("'depth'", "arguments")),
    ],
)
def test_what_does_not_fit_is_said(factory: Path, function: str, settings: dict, facts: tuple[object, ...]) -> None:
    with refused(ModelError, *facts):
        load(f"{factory}:{function}", **settings)


@pytest.mark.parametrize(
    ("source", "because"), [("nowhere.at_all:make", ModuleNotFoundError), ("/nowhere/net.py:make", FileNotFoundError)]
)
def test_a_factory_that_is_not_there(source: str, because: type[Exception]) -> None:
    with refused(ModelError, source, because=because):
        load(source, input_size=(3, 8, 8))


def test_two_sources_of_weights_are_refused(tmp_path: Path) -> None:
    with refused(ModelError, "pretrained", "checkpoint"):
        load("resnet18", pretrained=True, checkpoint=tmp_path / "w.pt")
