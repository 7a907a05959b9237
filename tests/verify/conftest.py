"""Small nets, and their conversion to Core ML."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

Convert = Callable[..., Path]


def randomize(module: nn.Module) -> nn.Module:
    """Weights, gains and statistics that hide no branch and no channel; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=generator)
        elif isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                layer.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return module.eval()


@pytest.fixture(scope="session")
def coremltools() -> Any:
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return pytest.importorskip("coremltools")


@pytest.fixture
def to_coreml(coremltools: Any, tmp_path: Path) -> Convert:
    """Convert a net on an input to a package; `weights` compresses them ("int8" or "palette")."""

    def convert(
        net: nn.Module, example: torch.Tensor, *, half: bool = False, target: str = "iOS16", weights: str | None = None
    ) -> Path:
        exported = torch.export.export(net, (example,)).run_decompositions({})
        model = coremltools.convert(
            exported,
            convert_to="mlprogram",
            minimum_deployment_target=getattr(coremltools.target, target),
            compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        if weights is not None:
            model = _compressed(coremltools, model, weights)
        path = tmp_path / f"{type(net).__name__}_{target}_{half}_{weights}.mlpackage"
        model.save(str(path))
        return path

    return convert


def _compressed(coremltools: Any, model: Any, weights: str) -> Any:
    from coremltools.optimize import coreml as optimize

    if weights == "int8":
        op = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=16)
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op))
    op = optimize.OpPalettizerConfig(nbits=4, weight_threshold=16)
    return optimize.palettize_weights(model, optimize.OptimizationConfig(op))
