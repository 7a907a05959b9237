"""timm, importable also where torchvision's compiled operators do not match torch (a CPU torch, a CUDA torchvision)."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from edgeprune.errors import ToolkitMissing

# What torchvision's own C++ library declares, and its Python side registers fakes for while it is imported.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_timm() -> ModuleType:
    """The timm module; calling it again costs nothing.

    A torchvision whose library cannot be loaded fails on import with `operator torchvision::nms does not exist`.
    Only then are the schemas of its operators declared (nothing that EdgePrune calls runs them) and the import retried;
    a matching pair is left alone.

    Raises:
        ToolkitMissing: timm or torchvision is not installed, or cannot be imported for another reason.
    """
    if "timm" in sys.modules:
        return sys.modules["timm"]
    try:
        import_torchvision()
        return importlib.import_module("timm")
    except ImportError as error:
        raise ToolkitMissing(f"timm cannot be imported: {error}", hint="pip install timm torchvision") from error


def import_torchvision() -> None:
    """Import torchvision, with its operators declared where its own library cannot be loaded.

    Raises:
        ToolkitMissing: it cannot be imported for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ToolkitMissing(
                f"torchvision cannot be imported: {error}", hint="install the torchvision that matches your torch"
            ) from error
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema.removeprefix(name))
