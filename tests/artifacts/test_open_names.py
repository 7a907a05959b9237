"""Another's exporter of a new format, installed as a package of its own: found, named in a recipe, exported, listed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plugin_packages import install
from torch import nn

import edgeprune
from edgeprune.artifacts.export import export_each
from edgeprune.artifacts.manifest import read_manifest
from edgeprune.artifacts.plugins import exporter_for, find_exporter
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import RecipeError, UsageError
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.recipe import Recipe, VerdictLimits
from edgeprune.recipe_file import parse_recipe, read_recipe
from edgeprune.stages.export import read_manifests, require_toolkits
from edgeprune.tasks.objective import CLASSIFYING
from edgeprune.verify.check import verify
from edgeprune.verify.verdict import exit_code

CODE = """
from edgeprune.artifacts.jobs import Converted
from edgeprune.artifacts.manifest import TensorSpec

class Numbers:
    name, suffix, precisions, runtime, packages, extra = "numbers", ".numbers", ("fp32",), None, (), "none"
    def load(self): pass
    def convert(self, program, outputs, calibration):
        (entry,) = program.example_inputs[0]
        answer = program.graph.output_node().args[0][0].meta["val"]
        for output in outputs:
            output.file.write_text(" ".join(f"{name}:{value.numel()}" for name, value in program.state_dict.items()))
            yield Converted(
                weights_precision="fp32",
                input=TensorSpec(name="x", shape=tuple(entry.shape), dtype="float32", layout="NCHW"),
                output=TensorSpec(name="y", shape=tuple(answer.shape), dtype="float32", layout="NC"),
            )

class OnnxProbes(Numbers):
    name, suffix, runtime = "onnx-probes", ".probes.onnx", "onnxruntime"
    def build_probes(self, signatures, folder): return {}

class Slim(Numbers):
    name, suffix = "slim", ".onnx"
"""
ENTRIES = """[edgeprune.exporters]
numbers = numbers_exporters:Numbers
onnx-probes = numbers_exporters:OnnxProbes
slim = numbers_exporters:Slim
"""
RECIPE = """
[model]
name = "resnet18"
[data]
source = "digits"
[export]
formats = ["{format}"]
[device]
runtime = "{runtime}"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path / "site", "numbers", CODE, ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    path = os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    return tmp_path


def written(folder: Path, format: str = "tflite", runtime: str = "litert") -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(format=format, runtime=runtime))
    return path


def net() -> Model:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(1.0,) * 3)
    spec = ModelSpec(
        source="toy:net", input_size=(3, 8, 8), num_classes=2, labels=("a", "b"), preprocessing=preprocessing
    )
    return Model(spec, module)


class Images:
    """Three images; what they show is all the same to this test."""

    def __len__(self) -> int:
        return 3

    def batches(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield torch.rand(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64)


def test_a_recipe_may_name_it(site: Path) -> None:
    recipe = read_recipe(written(site, "numbers"))
    assert recipe.export.formats == ("numbers",)
    require_toolkits(recipe)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert find_exporter("numbers").suffix == ".numbers"


def test_it_is_exported_and_listed_in_a_manifest(site: Path) -> None:
    model = net()
    images = torch.rand(2, 3, 8, 8)
    done = export_each(model, site / "out", formats=("numbers",), int8=(), calibration=None, reference_input=images)
    assert [(m.format, m.file) for m in done.manifests] == [("numbers", "model_fp32.numbers")]
    manifest = read_manifest(site / "out" / "model_fp32.numbers")
    assert manifest.format == "numbers"
    assert "0.weight:108" in (site / "out" / manifest.file).read_text()
    assert [m.format for m in read_manifests(site / "out")] == ["numbers"]

    verdict = verify(
        manifests=done.manifests,
        folder=site / "out",
        device=LocalDevice(),
        float_outputs=lambda images: (model.module(torch.from_numpy(images)).detach().numpy(),),
        test=Images(),
        limits=VerdictLimits(),
        target=None,
        original_file=None,
        runtime="litert",
        threads=1,
        protocol="quick",
        images=None,
        objective=CLASSIFYING,
        rows={},
    )
    (file,) = verdict.files
    checks = {check.name: check for check in file.checks}
    assert (file.format, file.executed_on, checks["run"].outcome) == ("numbers", "nowhere", "undecided")
    assert ".numbers" in checks["run"].why
    assert checks["file size"].value == manifest.size_bytes
    assert exit_code(verdict) == 4  # what was never run is neither proven nor a regression


def test_without_its_package_nothing_goes_by_the_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'numbers'") as caught:
        read_recipe(written(tmp_path, "numbers"))
    error = caught.value
    assert error.exit_code == 2
    assert error.where == f"{tmp_path / 'recipe.toml'}:7"
    assert "export.formats" in error.what
    assert error.hint is not None
    for one in ("tflite", "pte", "coreml", "onnx"):
        assert f"{one} (edgeprune)" in error.hint


def test_the_nearest_name_is_a_hint_and_others_packages_are_named(site: Path) -> None:
    with pytest.raises(RecipeError, match="'number'") as caught:
        read_recipe(written(site, "number"))
    assert caught.value.hint is not None
    assert "`numbers`" in caught.value.hint
    assert "numbers (numbers)" in caught.value.hint


def test_a_recipe_made_in_python_is_held_against_the_same_names() -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    for section, key in (("export", "export.formats"), ("quantize", "quantize.formats")):
        with pytest.raises(RecipeError, match=key) as caught:
            require_toolkits(Recipe.model_validate({**tree, section: {"formats": ["tflight"]}}))
        assert "`tflite`" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match=r"device.runtime.*'litter'") as caught:
        require_toolkits(Recipe.model_validate({**tree, "device": {"runtime": "litter"}}))
    assert "`litert`" in (caught.value.hint or "")


def test_a_recipe_made_in_python_quantizes_no_file_that_it_does_not_write(tmp_path: Path) -> None:
    """That was told of a recipe's file alone."""
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    formats = {"export": {"formats": ["tflite"]}, "quantize": {"formats": ["pte"]}}
    with pytest.raises(RecipeError, match=r"quantize.formats.*pte.*export.formats"):
        edgeprune.run(Recipe.model_validate({**tree, **formats}), tmp_path / "run")
    assert not (tmp_path / "run" / "load").exists()
    parse_recipe({**tree, **formats})  # `edgeprune export --format` may write fewer than are quantized


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime", "coreml"])
def test_a_runtime_that_nothing_is_pruned_for(tmp_path: Path, runtime: str) -> None:
    with pytest.raises(RecipeError, match=f"device.runtime.*'{runtime}'") as caught:
        read_recipe(written(tmp_path, runtime=runtime))
    assert caught.value.where == f"{tmp_path / 'recipe.toml'}:9"
    assert "executorch (edgeprune)" in (caught.value.hint or "")
    assert "litert (edgeprune)" in (caught.value.hint or "")


def test_others_may_bring_what_a_runtime_is_probed_with(site: Path) -> None:
    assert read_recipe(written(site, runtime="onnxruntime")).device.runtime == "onnxruntime"
    assert exporter_for("onnxruntime").name == "onnx-probes"


def test_two_packages_of_one_format(site: Path) -> None:
    entries = "[edgeprune.exporters]\nnumbers = rival_exporters:Rival\n"
    install(site / "site", "rival", "class Rival:\n    name = 'numbers'\n", entries)
    with pytest.raises(RecipeError, match="'numbers'") as caught:
        read_recipe(written(site, "numbers"))
    assert "numbers (numbers_exporters:Numbers)" in caught.value.what
    assert "rival (rival_exporters:Rival)" in caught.value.what


def test_two_formats_whose_files_would_have_one_name(site: Path) -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    with pytest.raises(UsageError, match=r"\.onnx") as caught:
        require_toolkits(Recipe.model_validate({**tree, "export": {"formats": ["onnx", "slim"]}}))
    assert "slim" in caught.value.what


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", "x\n", "ü"])
def test_a_name_that_could_be_no_part_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}, "export": {"formats": [name]}}
    with pytest.raises(RecipeError, match=r"export\.formats"):
        parse_recipe(tree)
