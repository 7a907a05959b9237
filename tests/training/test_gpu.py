"""What a GPU trains with. The tests of recordings run on an NVIDIA GPU only (CI has none)."""

from __future__ import annotations

import copy

import pytest
import torch
from facts import refused
from test_loop import SETTINGS
from torch import nn
from toy_training import make_net

from edgeprune.data.split import Split
from edgeprune.errors import ModelError
from edgeprune.training.accuracy import top1
from edgeprune.training.gpu import recorded
from edgeprune.training.loop import tune

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_graphs_change_nothing(train: Split, validation: Split) -> None:
    graphs = SETTINGS.model_copy(update={"cuda_graphs": True, "epochs": 1})
    plain = tune(make_net(), None, train, validation, SETTINGS.model_copy(update={"epochs": 1}), seed=0, snapshots=None)
    asked = tune(make_net(), None, train, validation, graphs, seed=0, snapshots=None)
    for one, other in zip(plain.module.parameters(), asked.module.parameters(), strict=True):
        assert torch.equal(one, other)


@GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_training_is_the_plain_one(train: Split, validation: Split, precision: str) -> None:
    settings = SETTINGS.model_copy(update={"precision": precision})
    plain = tune(make_net(), make_net(1), train, validation, settings, seed=0, snapshots=None)
    settings = settings.model_copy(update={"cuda_graphs": True})
    replayed = tune(make_net(), make_net(1), train, validation, settings, seed=0, snapshots=None)
    for one, other in zip(plain.history, replayed.history, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.05)
    assert abs(top1(replayed.module, validation) - top1(plain.module, validation)) < 0.05
    copied = copy.deepcopy(replayed.module)
    nn.init.zeros_(next(copied.parameters()))
    assert top1(copied, validation) < top1(replayed.module, validation)


@GPU
def test_recording_leaves_the_module_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(288, 4)).cuda()
    images = torch.randn(16, 3, 8, 8, device="cuda")
    kept = copy.deepcopy(net.state_dict())
    whole = recorded(net, images, precision=None)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
    torch.manual_seed(0)
    one = whole(images).clone()
    assert not torch.equal(whole(images), one), "dropout draws anew"
    torch.manual_seed(0)
    again = whole(images)
    assert torch.equal(again, one)
    again.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@GPU
def test_a_model_that_cannot_be_recorded_is_refused() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images) * images.sum().item()

    net, images = Asking().cuda(), torch.randn(2, 4, device="cuda")
    with refused(ModelError, "cuda_graphs = false"):
        recorded(net, images, precision=None)
    assert net(images).shape == (2, 4)
