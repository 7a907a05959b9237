"""What find_structure tells: groups, frozen parts with their reasons, layers and counts."""

from __future__ import annotations

import copy

import pytest
import torch
from facts import refused
from structure_zoo import (
    Dense,
    Grouped,
    InvertedResidual,
    OptionA,
    Parts,
    Plain,
    Pyramid,
    ResNet,
    Tokens,
    image,
    randomized,
)
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import ModelError
from edgeprune.models.timm_import import import_timm
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.masks import mask_units
from edgeprune.space.trial import answers, difference
from edgeprune.space.units import Structure


def structure_of(module: nn.Module) -> Structure:
    return find_structure(randomized(module), image())


def frozen_reason(structure: Structure, name: str) -> str:
    return next(entry.reason for entry in structure.frozen if entry.name == name)


def test_flatten_repeats_channels() -> None:
    groups = {group.id: group for group in structure_of(Plain()).groups}
    assert {name: group.size for name, group in groups.items()} == {"conv1.0:out": 6, "conv2.0:out": 8, "fc1:out": 10}
    reads = {member.name: member.indices for member in groups["conv2.0:out"].consumed}
    assert reads["fc1.weight"].tolist() == [list(range(16 * c, 16 * c + 16)) for c in range(8)]


def test_residual_stream_is_one_group() -> None:
    structure = structure_of(ResNet())
    assert structure.sizes == {
        "stem.0:out": 6,
        "blocks.0.conv1.0:out": 6,
        "blocks.1.conv1.0:out": 8,
        "blocks.1.conv2.0:out": 8,
        "blocks.2.conv1.0:out": 8,
    }
    stream = next(group for group in structure.groups if group.id == "blocks.1.conv2.0:out")
    producers = {member.name for member in stream.produced if member.name.endswith("0.weight")}
    assert producers == {"blocks.1.conv2.0.weight", "blocks.1.shortcut.0.weight", "blocks.2.conv2.0.weight"}
    statistics = {member.name for member in stream.produced if "running" in member.name}
    assert {"blocks.1.conv2.1.running_mean", "blocks.1.conv2.1.running_var"} <= statistics
    assert {member.name for member in stream.consumed} == {"blocks.2.conv1.0.weight", "fc.weight"}


def test_option_a_stream_is_frozen_by_its_padding() -> None:
    structure = structure_of(OptionA())
    assert structure.sizes == {"conv1.0:out": 8}
    for name in ("stem.0:out", "conv2.0:out"):
        assert "pad at " in frozen_reason(structure, name)
        assert "structure_zoo.py" in frozen_reason(structure, name)
    assert frozen_reason(structure, "fc:out") == "the model's output"


def test_depthwise_goes_with_its_input() -> None:
    structure = structure_of(InvertedResidual())
    assert structure.sizes == {"stem.0:out": 4, "expand.0:out": 10, "head.0:out": 6}
    stem = {m.name: m.indices.tolist() for m in structure.groups[0].produced}
    assert stem["widen.0.weight"] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_groups_of_a_convolution_stay_equal() -> None:
    structure = structure_of(Grouped())
    assert structure.sizes == {"conv1.0:out": 3, "conv2.0:out": 2, "conv3.0:out": 6}
    first = {m.name: m.indices.tolist() for m in structure.groups[0].produced}
    assert first["conv1.0.weight"] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


def test_concatenation_and_parts() -> None:
    assert structure_of(Dense()).sizes == {"stem:out": 5, "conv1:out": 4, "conv2:out": 4}
    assert structure_of(Parts()).sizes == {"conv.0:out": 4, "right.0:out": 6, "mix.0:out": 6}


def test_a_modules_own_layer_norm_shrinks_with_the_stream() -> None:
    structure = structure_of(Tokens())
    assert structure.sizes == {"embed:out": 6, "fc1:out": 10}
    assert [(m.name, m.dim) for group in structure.groups for m in group.normalized] == [("norm", -1)]


class BareNorm(nn.Module):
    """Normalises by hand: nothing says that its statistics may run over fewer channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).mean((2, 3))
        return self.fc(F.layer_norm(x, (8,)))


def test_a_bare_layer_norm_is_frozen() -> None:
    assert "layer_norm at " in frozen_reason(structure_of(BareNorm()), "a:out")


class Two(nn.Module):
    """Two convolutions with something in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(self.between(self.a(x)))).mean((2, 3)))


class HardView(Two):
    def between(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 8, 8, 8)


class SoftView(Two):
    def between(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1).view(x.shape)


class HardSplit(Two):
    def between(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [4, 4], dim=1)
        return torch.cat([b, a], 1)


class HardSlice(Two):
    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 4:], x[:, :4]], 1)


class UnequalSplit(Two):
    def between(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [3, 5], dim=1)
        return torch.cat([b, a], 1)


class Shuffle(Two):
    def between(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class WidthInNumber(Two):
    def between(self, x: Tensor) -> Tensor:
        return x * x.shape[1] ** -0.5


class WidthInControl(Two):
    def between(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.shape[1] == 8 else F.gelu(x)


class WidthRefused(Two):
    def between(self, x: Tensor) -> Tensor:
        if x.shape[1] != 8:
            raise ValueError("eight channels, please")
        return x


class ChannelSoftmax(Two):
    def between(self, x: Tensor) -> Tensor:
        return x.softmax(1)


class ChannelMean(Two):
    def between(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class ComputedWeight(Two):
    """No convolution module: nobody knows what its own numbers are to its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 1, 1))

    def between(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 2)


class Unknown(Two):
    def between(self, x: Tensor) -> Tensor:
        return torch.flip(x, (1,))


class OneChannel(Two):
    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 1:], x[:, :1]], 1)


class Written(Two):
    def between(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :4] = x[:, 4:]
        return y


@pytest.mark.parametrize(
    ("cls", "word"),
    [
        (HardSlice, "slice"),
        (WidthInNumber, "mul at "),
        (WidthInControl, "relu at "),
        (WidthRefused, "eight channels, please"),
        (ChannelSoftmax, "softmax at "),
        (ChannelMean, "mean at "),
        (Unknown, "flip at "),
        (ComputedWeight, "the weight is computed, not a parameter"),
        (OneChannel, "slice at "),
        (Written, "copy"),
    ],
)
def test_what_cannot_follow_is_frozen_with_its_reason(cls: type[Two], word: str) -> None:
    structure = structure_of(cls())
    assert "a:out" not in structure.sizes
    assert word in frozen_reason(structure, "a:out")


class ListedSplit(Two):
    def __init__(self) -> None:
        super().__init__()
        self.parts = [3, 5]

    def between(self, x: Tensor) -> Tensor:
        return torch.cat(torch.split(x, self.parts, dim=1)[::-1], 1)


@pytest.mark.parametrize(
    ("cls", "units"),
    [(SoftView, [8]), (HardView, [8]), (HardSplit, [4]), (ListedSplit, [3, 5]), (UnequalSplit, [3, 5])],
)
def test_what_follows_the_width_or_is_put_right_is_not_frozen(cls: type[Two], units: list[int]) -> None:
    module = randomized(cls())
    structure = find_structure(module, image())
    assert [size for name, size in structure.sizes.items() if name.startswith("a:")] == units
    pruned = remove_units(module, structure, {"a:out": [1]})
    again = find_structure(pruned, image())
    assert again.sizes == {**structure.sizes, "a:out": units[0] - 1}
    removed = {"a:out": [1], "b:out": [3]}
    twice, masked = remove_units(pruned, again, removed), mask_units(pruned, again, removed)
    assert difference(answers(twice, image()), answers(masked, image())) < 1e-12


def test_shuffled_channels_go_in_halves_and_in_pairs_of_their_halves() -> None:
    structure = structure_of(Shuffle())
    halves, pairs = (group for group in structure.groups if group.id.startswith("a:"))
    assert halves.produced[0].indices.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert pairs.produced[0].indices.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_one_frozen_part_leaves_the_rest() -> None:
    assert structure_of(HardSlice()).sizes == {"b:out": 8}


def test_a_module_called_twice_couples_what_it_reads_and_makes() -> None:
    class Twice(Two):
        def between(self, x: Tensor) -> Tensor:
            return self.b(x)

    structure = structure_of(Twice())
    assert structure.sizes == {"a:out": 8}
    assert [layer.name for layer in structure.layers if layer.name.startswith("b")] == ["b", "b@1"]


def test_tied_weights_are_frozen() -> None:
    class Tied(Two):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(8, 8, 1)
            self.c.weight = self.b.weight

        def between(self, x: Tensor) -> Tensor:
            return F.relu(self.c(x))

    assert find_structure(Tied().double(), image()).sizes == {}


def test_keep_freezes_output_widths() -> None:
    module = randomized(ResNet())
    structure = hold(find_structure(module, image()), ["blocks.0.conv1", "blocks.2.*"])
    assert set(structure.sizes) == {"stem.0:out", "blocks.1.conv1.0:out"}
    assert "'blocks.0.conv1'" in frozen_reason(structure, "blocks.0.conv1.0:out")
    with refused(ModelError, "'block.0.conv1'"):
        hold(find_structure(module, image()), ["block.0.conv1"])


def test_module_stays_as_it_was() -> None:
    module = randomized(ResNet()).train()
    module.blocks[1].eval()
    before = copy.deepcopy(module.state_dict())
    find_structure(module, image())
    assert module.training
    assert not module.blocks[1].training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_untraceable_model_names_the_line() -> None:
    class Branching(Two):
        def between(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"test_structure_find\.py:\d+ .*: the model cannot be traced"):
        find_structure(Branching().double(), image())


def test_a_model_of_two_inputs_is_refused() -> None:
    class Pair(Two):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x + y)

    with refused(ModelError, "one input", "'y'"):
        find_structure(Pair(), image())


def test_wrong_input_is_an_error_with_the_shape() -> None:
    with pytest.raises(ModelError, match="cannot be traced"):
        find_structure(Plain().double(), image(10))


def test_layers_fuse_norms_and_relus() -> None:
    layers = structure_of(InvertedResidual()).layers
    assert [(layer.name, layer.operation.kind, layer.operation.function) for layer in layers] == [
        ("stem.0", "conv2d", "relu6"),
        ("expand.0", "conv2d", "relu6"),
        ("depthwise.0", "depthwise_conv2d", "relu6"),
        ("project.0", "conv2d", ""),
        ("add", "add", ""),
        ("widen.0", "conv2d", "relu6"),
        ("head.0", "conv2d", "relu6"),
        ("adaptive_avg_pool2d", "mean", ""),
        ("fc", "linear", ""),
    ]


def test_lone_norm_is_a_multiplication_and_an_addition() -> None:
    layers = structure_of(Dense()).layers
    assert [(layer.operation.kind, layer.operation.function) for layer in layers[:4]] == [
        ("conv2d", ""),
        ("mul", ""),
        ("add", "relu"),
        ("conv2d", ""),
    ]
    assert layers[1].operation.broadcast


@pytest.mark.parametrize(("name", "macs"), [("mobilenetv2_100", 300.8e6), ("resnet18", 1814.1e6)])
def test_macs_are_the_fields(name: str, macs: float) -> None:
    """MobileNetV2: 300 M (Sandler et al. 2018, table 4); ResNet-18: 1.8 G (He et al. 2016, table 1)."""
    module = import_timm().create_model(name)
    structure = find_structure(module, torch.randn(1, 3, 224, 224))
    assert sum(layer.operation.macs for layer in structure.layers) == pytest.approx(macs, rel=1e-3)
    assert [entry.reason for entry in structure.frozen] == ["the model's output"]


def test_a_detector_with_several_outputs_and_a_shared_head() -> None:
    module = randomized(Pyramid())
    structure = find_structure(module, image())
    sizes = {"stage1.0:out": 6, "stage2.0:out": 8, "lateral2:out": 10, "tower.0:out": 10}
    assert structure.sizes == sizes
    assert {entry.name for entry in structure.frozen} == {"classes:out", "boxes:out"}
    removed = {"stage1.0:out": [1, 4], "stage2.0:out": [0], "lateral2:out": [2, 3, 9], "tower.0:out": [7]}
    given = answers(remove_units(module, structure, removed), image())
    assert difference(given, answers(mask_units(module, structure, removed), image())) < 1e-12
    assert [tuple(t.shape) for t in given] == [(2, 3, 8, 8), (2, 3, 4, 4), (2, 4, 8, 8), (2, 4, 4, 4)]


def test_a_comprehension_over_several_lines_is_read() -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8 * 5, 4)
            self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            parts = [
                pool(x).flatten(
                    1
                )
                for pool in self.pools
            ]  # fmt: skip
            return self.fc(torch.cat(parts, dim=1))

    assert find_structure(randomized(Pools()), image()).sizes == {"conv:out": 8}
