"""int8 .tflite of what its quantizer stumbles over: written, right, and said what stays in float."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.artifacts.export import export_each
from edgeprune.devices.local import LocalDevice
from edgeprune.models.attention import write_attention
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.verify.accuracy import read_reference
from edgeprune.verify.execute import run_file
from edgeprune.verify.parity import sqnr_db

SIDE = 16
SPEC = ModelSpec(
    source="tests:net",
    input_size=(3, SIDE, SIDE),
    num_classes=4,
    preprocessing=Preprocessing(mean=(0,) * 3, std=(1,) * 3),
)


class Cosine(nn.Module):
    """Pools that do not divide plainly, before a head of cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.conv(x), 3, 2, 1, ceil_mode=True)
        x = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        return 8 * F.linear(F.normalize(x.mean((2, 3))), F.normalize(self.head.weight))


class Tokens(nn.Module):
    """A class token put before the patches, as in DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.block(torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places)
        answer: torch.Tensor = self.head(x[:, 0])
        return answer


def cut(net: nn.Module, example: torch.Tensor) -> nn.Module:
    """As a run makes it: attention as plain layers, and one unit less of everything."""
    write_attention(net, example, "net")
    structure = find_structure(net, example)
    assert {"block.self_attn:heads", "block.self_attn:qk", "block.self_attn:v"} <= structure.sizes.keys()
    return remove_units(net, structure, {group.id: [0] for group in structure.groups})


@pytest.mark.parametrize(("net", "left", "least_db"), [(Cosine, {"MAXIMUM"}, 25), (Tokens, {"CONCATENATION"}, 10)])
def test_it_is_written_and_computes_what_the_model_does(
    tmp_path: Path, net: type[nn.Module], left: set[str], least_db: float
) -> None:
    torch.manual_seed(0)
    module = net().eval()
    images = torch.randn(32, 3, SIDE, SIDE)
    if net is Tokens:
        module = cut(module, images[:1])
    done = export_each(
        Model(SPEC, module),
        tmp_path,
        formats=["tflite"],
        int8=["tflite"],
        calibration=images,
        reference_input=images[:16],
    )
    assert not done.not_written
    inputs, (expected,) = read_reference(tmp_path / "reference.safetensors")
    assert [manifest.precision for manifest in done.manifests] == ["fp32", "int8"]
    for manifest in done.manifests:
        outputs = run_file(LocalDevice(), tmp_path / manifest.file, manifest, inputs).outputs[0]
        assert sqnr_db(expected, outputs) > (100 if manifest.precision == "fp32" else least_db)
        assert set(manifest.left_in_float or ()) <= left


class Twice(nn.Module):
    """A layer that sees two inputs of other ranges, as a detector's head sees several levels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.relu(self.conv(x)), torch.relu(self.conv(5 * x))], 1)
        answer: torch.Tensor = self.head(both).mean((2, 3))
        return answer


def test_a_layer_that_is_used_twice_is_int8_in_every_format(tmp_path: Path) -> None:
    """Its bias has the scale of its input, which are two."""
    torch.manual_seed(0)
    images = torch.randn(32, 3, SIDE, SIDE)
    formats = ["tflite", "pte"]
    done = export_each(
        Model(SPEC, Twice().eval()),
        tmp_path,
        formats=formats,
        int8=formats,
        floats=False,
        calibration=images,
        reference_input=images[:16],
    )
    assert not done.not_written
    inputs, (expected,) = read_reference(tmp_path / "reference.safetensors")
    for manifest in done.manifests:
        outputs = run_file(LocalDevice(), tmp_path / manifest.file, manifest, inputs).outputs[0]
        assert sqnr_db(expected, outputs) > 25
        assert not manifest.left_in_float
