"""quantize: choose the calibration images and write them down; each format's toolkit quantizes from these in export.

The schemes differ by toolkit (PT2E for .pte, ai-edge-quantizer on the .tflite, weights only for Core ML), so the
quantized weights first exist in the exported files; what is common to them, and decided here, is the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgeprune.artifacts.plugins import find_exporter, int8_scheme
from edgeprune.data.split import Splits
from edgeprune.recipe import Format, Recipe
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context


def int8_formats(recipe: Recipe) -> tuple[Format, ...]:
    """The formats that get an int8 file: those asked for, of those that can have one."""
    if not recipe.quantize.enabled:
        return ()
    asked = recipe.export.formats if recipe.quantize.formats is None else recipe.quantize.formats
    return tuple(f for f in recipe.export.formats if f in asked and "int8" in find_exporter(f).precisions)


def quantize_stage(context: Context, folder: Path) -> dict[str, Any]:
    if not context.recipe.quantize.enabled:
        return {"enabled": False}
    images = calibration_images(context.splits)
    write_atomic(folder / "calibration.safetensors", safetensors.torch.save({"input": images.contiguous()}))
    schemes = {name: int8_scheme(find_exporter(name)) for name in int8_formats(context.recipe)}
    return {"enabled": True, "images": len(images), "schemes": schemes}


def calibration_images(splits: Splits) -> torch.Tensor:
    """Preprocessed, (N, C, H, W) float32."""
    return torch.cat([images for images, _ in splits.calibration.batches(64)])


def read_calibration(context: Context) -> torch.Tensor | None:
    """Calibration images, preprocessed, shape (N, C, H, W) float32; None when quantization is off."""
    if not context.recipe.quantize.enabled:
        return None
    return safetensors.torch.load_file(context.file("quantize", "calibration.safetensors"))["input"]
