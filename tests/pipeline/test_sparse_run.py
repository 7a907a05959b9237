"""A run whose recipe asks for zeros: they stay to the files, and the arbiter says which file is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from torch import nn

import edgeprune
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import RecipeError, UsageError
from edgeprune.pipeline import do_stage
from edgeprune.progress import Silent
from edgeprune.recipe import SparseSection
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import create_run, open_run
from edgeprune.search.zeros import masks_of
from edgeprune.space.weight_masks import macs_of_weights, zeros_by_layer
from edgeprune.stages.context import Context
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.report import _target_of_zeros
from edgeprune.stages.stage import STAGES
from edgeprune.stages.zeros import read_zeros

pytestmark = pytest.mark.slow

TREE: dict[str, Any] = {
    "model": {
        "factory": f"{Path(__file__).with_name('separable_net.py')}:net",
        "input_size": (1, 16, 16),
        "untrained": True,
    },
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "sparse": {"zeros": 0.7},
    "tune": {"epochs": 1},
    "quantize": {"enabled": False},
    "export": {"formats": ("tflite",)},
    "verify": {"images": 16},
}


UNTIMED = {"images": 16, "gates": {"latency_tolerance": 9.0}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> edgeprune.Outcome:
    return edgeprune.run(parse_recipe(TREE), tmp_path_factory.mktemp("sparse") / "run")


def test_zeros_stay_through_training_and_merging(whole: edgeprune.Outcome) -> None:
    tuned = open_run(whole.folder).record("tune")
    assert tuned is not None
    assert 0.65 < tuned.result["zeros"] <= 0.7
    merged = edgeprune.load(whole.folder)
    zeros, weights = (sum(n) for n in zip(*zeros_by_layer(merged.module, merged.example_input()).values(), strict=True))
    assert zeros / weights == pytest.approx(tuned.result["zeros"])
    assert f"{zeros / weights:.1%} of the weights of 2 layers are zeros, from" in whole.page.read_text()


def test_a_net_that_breaks_a_rule_is_exported_dense_and_why_is_told(whole: edgeprune.Outcome) -> None:
    """Digits have one channel (the converter writes a depthwise convolution of them)."""
    exported = open_run(whole.folder).record("export")
    assert exported is not None
    assert exported.result["sparse"]["kept"] == "dense"
    assert "only a 3x3 convolution of 3 channels makes an image channels first" in exported.result["sparse"]["why"]
    assert sorted(path.name for path in (whole.folder / "export").glob("*.tflite*")) == [
        "model_fp32.tflite",
        "model_fp32.tflite.json",
    ]
    assert [f.file for f in whole.verdict.files] == ["model_fp32.tflite"]
    assert whole.verdict.outcome == "pass"
    assert "The fp32 .tflite file is dense" in whole.page.read_text()


def test_a_device_without_litert_gets_the_dense_file(
    whole: edgeprune.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an iPhone, which has Core ML alone: the run does not end there, after all its training."""
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    shutil.rmtree(folder / "export")
    facts = LocalDevice().facts()
    apple = facts.model_copy(update={"runtimes": {"coreml": "9.0"}})
    monkeypatch.setattr(LocalDevice, "facts", lambda _: apple)
    said: list[str] = []

    class Hearer(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    do_stage(Context(open_run(folder), Hearer()), "export")
    exported = open_run(folder).record("export")
    assert exported is not None
    assert "sparse" not in exported.result
    assert said[-1] == "model_fp32.tflite stays dense: local does not run LiteRT"


def test_zeros_may_be_counted_in_multiply_accumulates() -> None:
    """The second 1x1 convolution has four times the weights of the first and a quarter of its pixels, so half of the
    weights, which it loses alone, are less than a third of the multiply-accumulates."""
    module = edgeprune.load(TREE["model"]["factory"], input_size=(1, 16, 16)).module
    with torch.no_grad():
        module[3].weight *= 100  # the first keeps its weights as long as it can
    wide = nn.Sequential(module[0], module[3], nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(32, 64, 1), *module[10:])
    model = edgeprune.Model(edgeprune.load(TREE["model"]["factory"], input_size=(1, 16, 16)).spec, wide)
    costs = macs_of_weights(wide, model.example_input())
    for of in ("weights", "macs"):
        masks = masks_of(model, SparseSection(zeros=0.5, of=of), 0.5)
        each = costs if of == "macs" else dict.fromkeys(costs, 1.0)
        gone = sum(each[name] * float((~mask).sum()) for name, mask in masks.items())
        whole = sum(each[name] * mask.numel() for name, mask in masks.items())
        assert gone / whole == pytest.approx(0.5, abs=0.02)


def test_a_net_without_1x1_convolutions_is_refused_before_it_is_pruned(tmp_path: Path) -> None:
    factory = Path(__file__).with_name("two_convolutions.py")
    tree = {**TREE, "model": {**TREE["model"], "factory": f"{factory}:net"}}
    with refused(UsageError, "1x1", "sparse.zeros", "sparse.target"):
        edgeprune.run(parse_recipe(tree), tmp_path / "run")
    assert open_run(tmp_path / "run").record("load") is None


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_zeros_for_no_tflite_file_and_a_random_teacher_are_told_at_once(tmp_path: Path) -> None:
    tree = {
        **{**TREE, "export": {"formats": ("onnx",)}, "tune": {"epochs": 1}},
        "model": {"name": "mobilenetv2_050", "num_classes": 10, "input_size": (3, 32, 32), "untrained": True},
    }
    heard = Heard()
    context = Context(create_run(tmp_path / "run", parse_recipe(tree), {}), heard)
    do_stage(context, "load")
    assert any("export.formats names none" in text for text in heard.said)
    assert any("mobilenetv2_050 has random weights" in text for text in heard.said)
    heard.said.clear()
    trained = parse_recipe({**TREE, "model": tree["model"], "tune": {"epochs": 1, "distillation": 0.0}})
    do_stage(Context(create_run(tmp_path / "other", trained, {}), heard), "load")
    assert not any("random weights" in text or "names none" in text for text in heard.said)


def zeros_share(model: edgeprune.Model, layers: Any) -> float:
    counts = zeros_by_layer(model.module, model.example_input(), layers).values()
    zeros, weights = (sum(numbers) for numbers in zip(*counts, strict=True))
    return zeros / weights


def tuned_run(tree: dict[str, Any], folder: Path) -> Context:
    """A run up to its tuned model."""
    context = Context(create_run(folder / "run", parse_recipe(tree), {}), Silent())
    for stage in STAGES[: STAGES.index("tune") + 1]:
        do_stage(context, stage)
    return context


@pytest.mark.parametrize(("layers", "kmacs"), [("1x1", 50), ("all", 15)])
def test_zeros_to_a_number_of_multiply_accumulates(layers: Any, kmacs: int, tmp_path: Path) -> None:
    """Of the two 1x1 convolutions and all else of the pruned net, or of everything."""
    tree = {**TREE, "sparse": {"target": f"{kmacs / 1000}MMACs", "layers": layers}}
    context = Context(tuned_run(tree, tmp_path).run, Silent())
    assert open_run(tmp_path / "run").recipe == context.recipe
    found = read_zeros(context)
    assert found is not None
    tuned = context.model("tune")
    costs = macs_of_weights(tuned.module, tuned.example_input(), layers)
    named = dict(tuned.module.named_parameters())
    zeros = sum(cost * float((named[name] == 0).sum()) for name, cost in costs.items())
    record = PruneRecord.model_validate_json(context.file("prune", "prune.json").read_bytes())
    assert 0.96 * kmacs < (record.macs_after - zeros) / 1000 <= kmacs
    told = context.run.record("tune")
    assert told is not None
    assert told.result["zeros"] == pytest.approx(zeros_share(tuned, layers))
    assert _target_of_zeros(found).met


def test_zeros_alone_prune_no_channel(tmp_path: Path) -> None:
    tree = {**TREE, "prune": {"target": "1x", "allocator": "additive"}, "verify": UNTIMED}
    outcome = edgeprune.run(parse_recipe(tree), tmp_path / "run")
    assert outcome.verdict.outcome == "pass"
    run = open_run(outcome.folder)
    context = Context(run, Silent())
    assert context.plan.decisions == {}
    merged = context.model("merge")
    assert any(zeros for zeros, _ in zeros_by_layer(merged.module, merged.example_input()).values())
    record = PruneRecord.model_validate_json(context.file("prune", "prune.json").read_bytes())
    assert (record.macs_after, record.reconstruction, record.ratio) == (record.macs_before, None, None)
    assert "no channel pruned" in outcome.page.read_text()


def test_a_latency_that_zeros_cannot_save_is_refused_before_anything_is_pruned(tmp_path: Path) -> None:
    """Digits have one channel: XNNPACK's sparse kernels begin with three."""
    tree = {**TREE, "prune": {"target": "1x"}, "sparse": {"target": "0.5x"}}
    with refused(UsageError, "zeros", "`begins`"):
        tuned_run(tree, tmp_path)
    assert open_run(tmp_path / "run").record("probe") is None
    assert not list((tmp_path / "run").rglob("*.tflite*"))


def test_no_profile_can_tell_how_many_zeros_a_latency_takes(tmp_path: Path) -> None:
    tree = {**TREE, "device": {"id": "profile:lab-cortex-a76"}, "sparse": {"target": "0.5x"}}
    with refused(UsageError, "profile:lab-cortex-a76"):
        tuned_run(tree, tmp_path)


@pytest.mark.parametrize(
    ("sections", "facts"),
    [
        ({"sparse": {"target": "0.5x", "zeros": 0.8}}, ("`target`", "`zeros`")),
        ({"sparse": {"layers": "all", "block": 1}}, ("block", "layers", "zeros")),
        ({"sparse": {"target": "900KB"}}, ("KB", "MACs")),
        ({"sparse": {"target": "0.5x", "layers": "all"}}, ("1x1", "`layers`")),
        ({"sparse": {"target": "soon"}}, ("'soon'",)),
        ({"prune": {"target": "0.5x"}, "sparse": {"target": "0.5x"}}, ("sparse.target", "prune.target")),
        ({"prune": {"target": "2MMACs"}, "sparse": {"target": "3MMACs"}}, ("2 MMACs", "3 MMACs")),
        ({"prune": {"target": "1x", "epochs": 2}}, ("1x", "`epochs`")),
        ({"prune": {"target": "1x", "method": "auto"}}, ("1x", "`auto`")),
        ({"sparse": {"target": "0.5x"}, "device": {"runtime": "executorch"}}, (".tflite",)),
        ({"sparse": {"target": "0.5x"}, "export": {"formats": ("onnx",)}}, (".tflite",)),
    ],
)
def test_targets_of_zeros_that_make_no_sense_are_refused(sections: dict[str, Any], facts: tuple[object, ...]) -> None:
    with refused(RecipeError, *facts):
        parse_recipe({**TREE, **sections})
