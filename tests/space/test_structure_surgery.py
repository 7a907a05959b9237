"""Plans and surgery: attributes, refusals, and a base model that stays as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from facts import refused
from structure_zoo import Grouped, InvertedResidual, Plain, ResNet, image, randomized
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.space import apply as surgery
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.plan import Dropped, Narrowed, Plan, read_plan
from edgeprune.space.subnet import Subnet


def test_attributes_follow() -> None:
    module = randomized(InvertedResidual())
    structure = find_structure(module, image())
    pruned = remove_units(module, structure, {"stem.0:out": [1], "expand.0:out": [0, 9, 4]})
    depthwise, widen, norm = pruned.depthwise[0], pruned.widen[0], pruned.expand[1]
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (7, 7, 7)
    assert (widen.in_channels, widen.out_channels, widen.groups) == (3, 6, 3)
    assert (pruned.stem[0].out_channels, pruned.expand[0].in_channels, norm.num_features) == (3, 3, 7)
    grouped = randomized(Grouped())
    pruned = remove_units(grouped, find_structure(grouped, image()), {"conv1.0:out": [2]})
    assert (pruned.conv2[0].in_channels, pruned.conv2[0].groups, pruned.conv2[0].out_channels) == (8, 4, 8)
    plain = randomized(Plain())
    pruned = remove_units(plain, find_structure(plain, image()), {"conv2.0:out": [0], "fc1:out": [3]})
    assert (pruned.fc1.in_features, pruned.fc1.out_features, pruned.fc2.in_features) == (7 * 16, 9, 9)


def test_requires_grad_is_kept_and_gradients_are_dropped() -> None:
    module = randomized(ResNet())
    module.stem[0].weight.requires_grad_(False)
    module(image()).sum().backward()
    pruned = remove_units(module, find_structure(module, image()), {"stem.0:out": (0,)})
    assert not pruned.stem[0].weight.requires_grad
    assert pruned.stem[1].weight.requires_grad
    assert pruned.stem[1].weight.grad is None


def test_plan_round_trip(tmp_path: Path) -> None:
    module = randomized(ResNet())
    before = copy.deepcopy(module.state_dict())
    structure = find_structure(module, image())
    removed = {"blocks.1.conv2.0:out": [5, 2], "stem.0:out": [0]}
    plan = make_plan("here:ResNet", module, structure, Subnet({"blocks.1.conv2.0:out": (5, 2), "stem.0:out": (0,)}))
    assert [(name, option.removed) for name, option in plan.decisions.items() if isinstance(option, Narrowed)] == [
        ("stem.0:out", (0,)),
        ("blocks.1.conv2.0:out", (2, 5)),
    ]
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    pruned = apply_plan(module, read_plan(path), image())
    expected = remove_units(module, structure, removed)
    assert all(torch.equal(pruned.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_edits_of_one_group_count_from_what_is_left() -> None:
    module = randomized(Plain())
    parameters = sum(p.numel() for p in module.parameters())
    edits = [
        {"kind": "remove_units", "group": "conv1.0:out", "size": 6, "removed": [0, 1]},
        {"kind": "remove_units", "group": "conv1.0:out", "size": 4, "removed": [0]},
    ]
    plan = Plan.model_validate({"version": 1, "base": "x", "base_parameters": parameters, "edits": edits})
    assert plan.subnet == Subnet({"conv1.0:out": (0, 1, 2)})
    pruned = apply_plan(module, plan, image())
    assert torch.equal(pruned.conv1[0].bias, module.conv1[0].bias[3:])


@pytest.mark.parametrize(
    "edits",
    [
        [{"kind": "remove_units", "group": "a", "size": 4, "removed": [0, 0]}],
        [{"kind": "remove_units", "group": "a", "size": 4, "removed": [4]}],
        [{"kind": "remove_units", "group": "a", "size": 4, "removed": [0, 1, 2, 3]}],
        [{"kind": "remove_units", "group": "a", "size": 4, "removed": [1]}] * 2,
        [{"kind": "remove_layer", "group": "a"}],
        "all",
        None,
    ],
)
def test_edits_of_version_1_that_make_no_sense_are_no_plan(edits: object, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"version": 1, "base": "x", "base_parameters": 1, "edits": edits}))
    with pytest.raises(ModelError) as raised:
        read_plan(file)
    assert raised.value.where == str(file)


def test_branches_and_gates_of_version_1_are_read() -> None:
    edits = [{"kind": "remove_branch", "branch": "1:branch"}, {"kind": "remove_branch", "branch": "2.se:gate"}]
    plan = Plan.model_validate({"version": 1, "base": "x", "base_parameters": 1, "edits": edits})
    assert plan.subnet.dropped == ("1:branch", "2.se:gate")
    assert [option.kind for option in plan.decisions.values()] == ["branch", "gate"]
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_parameters": 7}, "made for a model with 7 parameters"),
        ({"decisions": {"nowhere:out": Narrowed(size=4, removed=(1,))}}, "nowhere:out is not in this model"),
        ({"decisions": {"fc:out": Narrowed(size=5, removed=(1,))}}, "fc:out is frozen: the model's output"),
        ({"decisions": {"stem.0:out": Narrowed(size=7, removed=(1,))}}, "has 7 units, here it has 6"),
    ],
)
def test_plan_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    module = randomized(ResNet())
    plan = make_plan("here:ResNet", module, find_structure(module, image()), Subnet({"stem.0:out": (0,)}))
    with pytest.raises(ModelError, match=message):
        apply_plan(module, plan.model_copy(update=change), image())


def test_a_plan_of_another_timm_says_so() -> None:
    module = randomized(ResNet())
    plan = make_plan("here:ResNet", module, find_structure(module, image()), Subnet({"stem.0:out": (0,)}))
    assert set(plan.made_with) == {"edgeprune", "timm", "torch"}
    other = plan.model_copy(
        update={"made_with": {**plan.made_with, "timm": "0.9.2"}, "decisions": {"blocks.9:branch": Dropped()}}
    )
    with refused(ModelError, "timm", "0.9.2"):
        apply_plan(module, other.model_copy(update={"base_parameters": 7}), image())
    with refused(ModelError, "blocks.9:branch"):
        apply_plan(module, other, image())


def test_forward_check_refuses_a_wrong_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module = randomized(ResNet())
    plan = make_plan("here:ResNet", module, find_structure(module, image()), Subnet({"stem.0:out": (0,)}))

    def wrong(*args: object) -> nn.Module:
        pruned = remove_units(*args)  # type: ignore[arg-type]
        pruned.fc.weight.data[0, 0] += 1
        return pruned

    monkeypatch.setattr(surgery, "remove_units", wrong)
    with refused(ModelError, "masked", "keep"):
        apply_plan(module, plan, image())


@pytest.mark.parametrize("units", [[6], [-1], [1, 1], range(6)])
def test_impossible_units_are_refused(units: list[int]) -> None:
    module = randomized(ResNet())
    structure = find_structure(module, image())
    for function in (remove_units, mask_units):
        with pytest.raises(ModelError, match=r"stem\.0:out"):
            function(module, structure, {"stem.0:out": units})


def test_structure_of_another_model_is_refused() -> None:
    structure = find_structure(randomized(Plain()), image())
    with refused(ModelError, "tensor"):
        remove_units(randomized(ResNet()), structure, {"fc1:out": [0]})
