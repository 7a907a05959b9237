"""The coverage benchmark's instrument: does it see a wrong model, and only that?"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.subnet import Subnet

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import coverage_edgeprune as ours  # noqa: E402
import coverage_models as models  # noqa: E402
import coverage_property as prop  # noqa: E402
import coverage_torch_pruning as theirs  # noqa: E402


class Convolutions(nn.Module):
    """A residual block whose branch starts dead, as timm's do; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.gain = nn.Conv2d(12, 8, 1), nn.Parameter(torch.zeros(()))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.norm(self.stem(x)).relu()
        y = x + self.gain * self.conv2(self.norm1(self.conv1(x)).sigmoid())
        return self.head(y.mean((2, 3))), [y.mean(1)]


class Tokens(nn.Module):
    """A residual MLP with layer norm, its layer scale next to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(16, 12), nn.LayerNorm(12)
        self.fc1, self.fc2, self.gamma = nn.Linear(12, 24), nn.Linear(24, 12), nn.Parameter(torch.full((12,), 1e-6))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(2))
        x = x + self.gamma * self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))
        return self.head(self.norm(x).mean(1))


def image(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def alive(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    module.eval()
    models.enliven(module, torch.cat([image(seed) for seed in range(10, 14)]))
    return module


@pytest.mark.parametrize("net", [Convolutions, Tokens])
def test_enliven_leaves_no_parameter_constant_and_no_gain_dead(net: type[nn.Module]) -> None:
    module = alive(net())
    constant = [n for n, p in module.named_parameters() if p.numel() > 1 and bool((p == p.view(-1)[0]).all())]
    assert constant == []
    gain = module.gain if isinstance(module, Convolutions) else module.gamma
    assert float(gain.abs().min()) >= 0.5
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert float(part.running_var.std()) > 0
            assert float(part.running_mean.abs().min()) > 0


def pruned_by_us(module: nn.Module) -> tuple[nn.Module, nn.Module, prop.Kept]:
    structure = find_structure(module, image(0))
    removed = ours.half_of(structure)
    assert removed
    pruned = apply_plan(module, make_plan("test", module, structure, Subnet(removed)), image(0))
    return pruned, mask_units(module, structure, removed), ours.kept_elements(module, structure, removed)


@pytest.mark.parametrize("net", [Convolutions, Tokens])
def test_the_property_holds_for_edgeprune(net: type[nn.Module]) -> None:
    judgement = prop.judge(*pruned_by_us(alive(net())), image)
    assert judgement.holds, judgement
    assert judgement.float64 is not None
    assert judgement.float64 < 1e-12


def test_half_of_the_units_of_every_group_go() -> None:
    structure = find_structure(alive(Convolutions()), image(0))
    sizes = structure.sizes
    removed = ours.half_of(structure)
    assert {name: len(units) for name, units in removed.items()} == {name: size // 2 for name, size in sizes.items()}


@pytest.mark.parametrize("name", ["conv2.weight", "norm1.bias", "stem.weight"])
def test_one_wrong_weight_is_seen(name: str) -> None:
    pruned, masked, kept = pruned_by_us(alive(Convolutions()))
    with torch.no_grad():
        pruned.get_parameter(name).view(-1)[0] += 0.01
    judgement = prop.judge(pruned, masked, kept, image)
    assert not judgement.holds
    assert "float32" in str(judgement.why)


def test_a_gradient_that_differs_where_outputs_agree_is_seen() -> None:
    class Detached(nn.Module):
        def __init__(self, fc: nn.Linear) -> None:
            super().__init__()
            self.fc = fc

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.fc.weight.detach() * 0.5 + self.fc.weight * 0.5, self.fc.bias)

    class Whole(Detached):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    fc = nn.Linear(4, 2)
    judgement = prop.judge(Detached(fc), Whole(copy.deepcopy(fc)), {}, image)
    assert not judgement.holds
    assert judgement.worst_gradient == "fc.weight"
    assert "gradients" in str(judgement.why)


def test_relative_errors_of_tuples_shapes_and_nan() -> None:
    one, two = torch.ones(3), torch.full((2,), 4.0)
    assert prop.relative_error((one, [two]), (one, [two])) == 0
    assert prop.relative_error((one, [two + 0.4]), (one, [two])) == pytest.approx(0.1)
    assert prop.relative_error(one, two) == math.inf
    assert prop.relative_error(one * math.nan, one) == math.inf
    assert prop.relative_error(one, one * 0) == math.inf


def pruned_by_them(module: nn.Module) -> tuple[nn.Module, nn.Module, prop.Kept]:
    pruned = copy.deepcopy(module)
    theirs._prune(pruned, image(0), theirs.attempts(has_attention=False)[0], {}, lambda _: None)
    kept = theirs.kept_elements(pruned)
    assert kept is not None
    return pruned, prop.zero_removed(module, kept), kept


def test_what_torch_pruning_removed_is_read_off_exactly() -> None:
    module = alive(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1)))
    pruned, masked, kept = pruned_by_them(module)
    assert pruned[0].out_channels == 4
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, module.get_parameter(name).reshape(-1)[kept[name]])
    judgement = prop.judge(pruned, masked, kept, image)
    assert judgement.holds, judgement


def test_a_layer_norm_runs_over_the_kept_channels_in_the_masked_model_too() -> None:
    pruned, masked, kept = pruned_by_them(alive(Tokens()))
    assert kept["norm.weight"].numel() == 6
    assert "native_layer_norm over 6 instead of 12" in str(prop.changed_statistics(pruned, masked, image(0)))
    theirs.norms_over_kept(masked, pruned, kept)
    assert prop.changed_statistics(pruned, masked, image(0)) is None
    judgement = prop.judge(pruned, masked, kept, image)
    assert judgement.holds, judgement


def load_benchmark() -> ModuleType:
    """coverage.py under another name: that one may be the coverage tool's."""
    spec = importlib.util.spec_from_file_location("coverage_benchmark", BENCHMARKS / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts_and_missing_families(tmp_path: Path) -> None:
    benchmark = load_benchmark()
    families = [models.Family(name, f"{name}_tiny", 10, (3, 4, 4)) for name in ("a", "b", "c")]
    done = {
        ("a", "edgeprune"): {"outcome": "ok", "find_s": 2.0, "find_cpu_s": 1.0, "share_removed": 0.5},
        ("a", "torch_pruning"): {"outcome": "broken", "find_s": 4.0, "find_cpu_s": 3.0},
        ("b", "edgeprune"): {
            "outcome": "little",
            "frozen": [
                {"reason": "no rule: roll at x.py:3 `y`", "parameters": 2, "example": "fc:out"},
                {"reason": "no rule: roll at x.py:9 `z`", "parameters": 3, "example": "fc2:out"},
                {"reason": "the model's output", "parameters": 1, "example": "head:out"},
            ],
        },
    }
    for (family, side), record in done.items():
        (tmp_path / f"{family}.{side}.json").write_text(json.dumps(record))
    figures = benchmark.collect(families, tmp_path)
    assert figures["missing"] == {"edgeprune": ["c"], "torch_pruning": ["b", "c"]}
    assert figures["counts"]["edgeprune"] == {"done": 2, "ok": 1, "little": 1}
    assert figures["counts"]["timed_on_both_sides"]["torch_pruning"] == {"find_s": 4.0, "find_cpu_s": 3.0}
    assert [(row["reason"], row["below_ok"]) for row in figures["frozen_by"]] == [
        ("no rule: roll", {"b": 0.5}),
        ("the model's output", {"b": 0.1}),
    ]
    assert "ok 50% 2.0 s" in benchmark.table(figures)


def test_processor_time_of_a_process() -> None:
    begin = time.process_time()
    seconds = load_benchmark().processor_seconds(os.getpid())
    assert begin - 0.02 <= seconds <= time.process_time() + 0.02
