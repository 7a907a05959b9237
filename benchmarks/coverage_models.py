"""The models of the coverage benchmark: one of each timm family, with random weights that leave nothing dead."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.models.timm_import import import_timm

SEED = 0
FINDING = "finding units"  # what a side was at when it was stopped
_GAINS = ("gain", "gamma", "alpha", "scale", "ls")


@dataclass(frozen=True)
class Family:
    name: str
    model: str
    parameters: int
    input: tuple[int, ...]  # without the batch


def read_families(path: Path) -> list[Family]:
    """The list's families, those of few parameters first."""
    listed = json.loads(path.read_text())["families"]
    found = [Family(name, f["model"], f["parameters"], tuple(f["input"])) for name, f in listed.items()]
    return sorted(found, key=lambda family: (family.parameters, family.name))


def build(family: Family) -> tuple[nn.Module, Tensor]:
    """The family's model in eval mode, alive (`enliven`), and an example input of one image."""
    torch.manual_seed(SEED)
    module = import_timm().create_model(family.model, pretrained=False).eval()
    enliven(module, torch.cat([random_input(family, seed) for seed in range(100, 104)]))
    return module, random_input(family, 0)


def random_input(family: Family, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.randn(1, *family.input, generator=generator).to(dtype)


def enliven(module: nn.Module, images: Tensor) -> None:
    """Give a freshly initialised model gains, biases and statistics that are neither zero nor all alike.

    timm starts residual branches at a gain of 0 or 1e-6 and biases at 0: a model in which most of the network counts
    for nothing would prove nothing. Norms get gains of 0.5..1.5 and biases of 0.2 N(0, 1); parameters that are
    constant get gains around their value (around 1 where it is next to 0) or, where they are added, 0.2 N(0, 1).
    Statistics of batch norms are those of these images, shifted by a tenth of their deviation and scaled by 0.5..1.5,
    so that signals neither vanish nor explode on their way.
    """
    generator = torch.Generator().manual_seed(SEED)
    norms = {name for name, part in module.named_modules() if "norm" in type(part).__name__.lower()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            owner, _, last = name.rpartition(".")
            _enliven_parameter(parameter, last, owner in norms, generator)
        _random_statistics(module, images, generator)


def _enliven_parameter(parameter: Tensor, last: str, of_norm: bool, generator: torch.Generator) -> None:
    def uniform() -> Tensor:
        return torch.rand(parameter.shape, generator=generator) + 0.5

    def normal() -> Tensor:
        return torch.randn(parameter.shape, generator=generator)

    constant = float(parameter.max()) == float(parameter.min())
    value = float(parameter.reshape(-1)[0])
    if of_norm and parameter.ndim <= 1 and last == "weight":
        parameter.copy_(uniform())
    elif not constant:
        return
    elif "bias" in last:
        parameter.copy_((0.2 if of_norm else 0.1) * normal())
    elif abs(value) >= 1e-2:
        parameter.copy_(value * uniform())
    elif value or parameter.numel() == 1 or any(word in last for word in _GAINS):
        parameter.copy_(uniform())
    elif last == "weight" and parameter.ndim >= 2:
        parameter.copy_(normal() / parameter[0].numel() ** 0.5)
    else:
        parameter.copy_(0.2 * normal())


def _random_statistics(module: nn.Module, images: Tensor, generator: torch.Generator) -> None:
    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        x = inputs[0].transpose(0, 1).flatten(1)
        mean, variance = x.mean(1), x.var(1, correction=0)
        floor = 0.1 * max(float(variance.mean()), float(mean.square().mean()), 1e-6)
        variance = variance.clamp_min(floor)
        shift = 0.1 * torch.randn(mean.shape, generator=generator)
        norm.running_mean.copy_(mean + shift * variance.sqrt())
        norm.running_var.copy_(variance * (torch.rand(mean.shape, generator=generator) + 0.5))

    hooks = [
        part.register_forward_pre_hook(take)
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]
    if hooks:
        module(images)
    for hook in hooks:
        hook.remove()
