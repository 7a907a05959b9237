from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgeprune.models.checkpoint import load_state
from edgeprune.models.load import load

EXAMPLES = Path(__file__).parents[2] / "examples"
RESNET, SMALL = EXAMPLES / "cifar_resnet.py", EXAMPLES / "small_cnn.py"


@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)]
)  # 0.27M, 0.46M, 0.66M, 0.85M in the paper's table 6
def test_cifar_resnets_are_those_of_the_paper(depth: int, parameters: int) -> None:
    model = load(f"{RESNET}:resnet{depth}", input_size=(3, 32, 32))
    assert sum(p.numel() for p in model.module.parameters()) == parameters
    weights = [m for m in model.module.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weights) == depth
    names = model.module.state_dict().keys()
    assert {"conv1.weight", "bn1.running_var", "layer3.2.bn2.bias", "layer2.0.conv1.weight", "linear.bias"} <= names


def test_the_shortcut_has_no_weights() -> None:
    block = load(f"{RESNET}:resnet20", input_size=(3, 32, 32)).module.layer2[0]
    x = torch.randn(1, 16, 8, 8)
    short = block._shortcut(x)
    assert torch.equal(short[:, 8:24], x[:, :, ::2, ::2])
    assert not short[:, :8].any()
    assert not short[:, 24:].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_network_runs(channels: int) -> None:
    model = load(f"{SMALL}:small_cnn", arguments={"channels": channels}, input_size=(channels, 32, 32))
    assert model.spec.num_classes == 10
    kinds = {m.groups > 1 for m in model.module.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kinds == {True, False}


@pytest.mark.slow
def test_the_digits_can_be_trained(tmp_path: Path) -> None:
    out = tmp_path / "digits.safetensors"
    command = [sys.executable, str(EXAMPLES / "train_digits.py"), str(out), "--epochs", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    accuracy = float(done.stdout.rsplit(": ", 1)[1].split("%")[0])
    assert accuracy > 90
    load_state(load(f"{SMALL}:small_cnn", input_size=(1, 32, 32)).module, out)
