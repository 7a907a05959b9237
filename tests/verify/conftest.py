"""Conversion of small nets to Core ML."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import Convert
from torch import nn


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...


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
