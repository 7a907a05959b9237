"""int8 weights for Core ML; activations stay fp16. Runs inside a conversion child."""

from __future__ import annotations

from typing import Any


def quantize_weights(model: Any) -> Any:
    """The Core ML model (coremltools MLModel) with its weights as int8, symmetric, one scale per output channel."""
    from coremltools.optimize import coreml

    settings = coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0
    )
    return coreml.linear_quantize_weights(model, config=coreml.OptimizationConfig(global_config=settings))
