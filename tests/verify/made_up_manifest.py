"""A manifest of a file that need not be there."""

from __future__ import annotations

from edgeprune.artifacts.manifest import Manifest


def manifest(**changes: object) -> Manifest:
    tensor = {"name": "x", "shape": (1, 3, 8, 8), "dtype": "float32", "layout": "NCHW"}
    base = {
        "format": "tflite",
        "precision": "fp32",
        "weights_precision": "fp32",
        "sha256": "0",
        "size_bytes": 1,
        "input": tensor,
        "output": {**tensor, "shape": (1, 10), "layout": "NC"},
        "preprocessing": {"mean": (0.0,), "std": (1.0,)},
        "labels": (),
        "reference": "reference.safetensors",
        "delegation": None,
        "toolkit": {},
        "seconds": 0.0,
    }
    suffix = {"coreml": "mlpackage"}.get(str(changes.get("format", "tflite")), changes.get("format", "tflite"))
    return Manifest.model_validate({**base, "file": f"m.{suffix}", **changes})
