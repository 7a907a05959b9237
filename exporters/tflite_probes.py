"""One-operation int8 .tflite files: the float probes of the latency table, quantized as whole models are."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_probes import copies_of, repeated
from edgeprune.latency.tflite_writer import Unsupported, input_shape

SAMPLES = 4


def build_int8(signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
    """Write an int8 .tflite for each signature that LiteRT can run; the others are logged and left out.

    Input and output are int8, as within a model. What the quantizer cannot do stays in float there too, so its probe
    is the float file.
    """
    from edgeprune.quantization.tflite import quantize_samples

    files: dict[str, Path] = {}
    for number, signature in enumerate(signatures):
        source, file = folder / f"{number}_float.tflite", folder / f"{number}_int8.tflite"
        try:
            source.write_bytes(repeated(signature, copies_of(signature)))
        except Unsupported as error:
            logging.getLogger(__name__).warning("no probe for %s: %s", signature.key(), error.what)
            continue
        random = np.random.default_rng(0)
        samples = [(random.standard_normal(input_shape(signature), np.float32),) for _ in range(SAMPLES)]
        try:
            quantize_samples(source, file, samples)
        except ValueError as error:
            logging.getLogger(__name__).warning("%s stays in float: %s", signature.key(), error)
            source.replace(file)
        source.unlink(missing_ok=True)
        files[signature.key()] = file
    return files
