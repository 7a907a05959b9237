"""Softmax over images: the .pte answers as torch does, where the delegate on its own does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exporting import export
from real_runtimes import run, sqnr_db
from torch import nn

from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from exporters.softmax import softmax_over_rows


class TalkingMaps(nn.Module):
    """Attention maps that go through 1x1 convolutions before and after their softmax, as EfficientFormerV2's do."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(3, 16, 1) for _ in range(3))
        self.before, self.after = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).reshape(-1, 4, 4, 49) for part in (self.query, self.key, self.value))
        maps = self.after(self.before(q.transpose(2, 3) @ k).softmax(-1))
        return self.head((v @ maps).reshape(-1, 16, 49).mean(-1))


def softmaxes(program: torch.export.ExportedProgram) -> list[tuple[int, ...]]:
    return [tuple(n.meta["val"].shape) for n in program.graph.nodes if "softmax" in str(n.target)]


def test_the_file_answers_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    preprocessing = Preprocessing(mean=(0,) * 3, std=(1,) * 3)
    spec = ModelSpec(source="test:maps", input_size=(3, 7, 7), num_classes=5, preprocessing=preprocessing)
    module, images = TalkingMaps().eval(), 3 * torch.randn(8, 3, 7, 7)
    model = Model(spec, module)
    (manifest,) = export(model, tmp_path, formats=["pte"], int8=False, calibration=None, reference_input=images)
    with torch.no_grad():
        assert sqnr_db(module(images), run(tmp_path, manifest, images)) > 100


def test_only_what_comes_from_convolutions_is_rewritten() -> None:
    class Both(TalkingMaps):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            plain = (x.reshape(-1, 3, 7, 7) @ x.transpose(2, 3)).softmax(-1)
            return super().forward(x + plain)

    module, x = Both().eval(), torch.randn(1, 3, 7, 7)
    program = torch.export.export(module, (x,), strict=False)
    softmax_over_rows(program)
    assert softmaxes(program) == [(1, 3, 7, 7), (4 * 49, 49)]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_other_axes_are_left_alone(dim: int) -> None:
    class Over(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).softmax(dim)

    program = torch.export.export(Over().eval(), (torch.randn(1, 3, 5, 5),), strict=False)
    softmax_over_rows(program)
    assert softmaxes(program) == [(1, 4, 5, 5) if dim < 3 else (20, 5)]
    program.validate()  # also where the softmax is the answer
