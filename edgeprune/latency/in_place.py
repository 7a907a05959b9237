"""In place: what each layer of a whole model takes where it stands, read off the runtime's own profiler.

A layer's time in a model is not its time alone: its input is in the cache, its activation is fused, and what stands
between two layers (attention's products, pads, transposes) belongs to no layer. Here each layer with weights is
charged with its own kernel and all that run after it, up to the next layer's. So the layers sum up to the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from edgeprune.errors import EdgePruneError
from edgeprune.graph.operations import COUNTED_BEFORE, IN_PLACE, OpSignature
from edgeprune.latency.profile import Kernel
from edgeprune.latency.tflite_reader import Likeness, read_layers
from edgeprune.space.units import Layer

WEIGHTED = ("conv2d", "depthwise_conv2d", "linear")
_KERNELS = (
    "Convolution",
    "Fully Connected",
    "Dynamic Fully Connected",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
)  # fused, and not
_MOVING = {"Static Reshape", "Transpose", "Copy", "Slice", "Static Slice", "Constant Pad"}


class NotInPlace(EdgePruneError):
    """The kernels of this file cannot be told by layer; the message says why."""


@dataclass(frozen=True)
class Match:
    """A layer of a file, and whose it is."""

    name: str
    operation: OpSignature
    kernels: int  # with weights: its own, and those whose weights are computed
    rows_after: int  # see `WrittenLayer`


def match_layers(file: Path, layers: Sequence[Layer], kept: Mapping[str, int]) -> tuple[Match, ...]:
    """Whose each layer with weights of a .tflite file is, in the file's order.

    Args:
        layers: of the model's structure, unpruned.
        kept: units of each group that the file's model has.

    Raises:
        NotInPlace: the file's layers are not those of the model, as where the exporter rewrote one.
        UsageError: the file cannot be read.
    """
    waiting: dict[Likeness, deque[tuple[str, OpSignature]]] = {}
    for layer in layers:
        if layer.operation.kind in WEIGHTED:
            operation = layer.signature(kept)
            waiting.setdefault(Likeness.of(operation), deque()).append((layer.name, operation))
    found: list[Match] = []
    for written in read_layers(file):
        if written.likeness is None and found:
            found[-1] = replace(found[-1], kernels=found[-1].kernels + 1)
            continue
        if written.likeness is None:
            raise NotInPlace("the file's first layer has computed weights", where=file.name)
        if not (queue := waiting.get(written.likeness)):
            raise NotInPlace(f"no layer of the model is like the file's {written.likeness}", where=file.name)
        found.append(Match(*queue.popleft(), 1, written.rows_after))
    if left := [name for queue in waiting.values() for name, _ in queue]:
        raise NotInPlace(f"the file has no layer like {left[0]}", where=file.name)
    return tuple(found)


def times_in_place(
    matches: Sequence[Match], kernels: Sequence[Kernel]
) -> tuple[float, tuple[tuple[str, OpSignature, float], ...]]:
    """What each matched layer took under the profiler, with what ran after it.

    Returns:
        (seconds of the kernels ahead of the first layer, (name, operation with its place, seconds) in the file's
        order).

    Raises:
        NotInPlace: there is not one kernel with weights for each layer.
    """
    before, *chains = _chains([(kernel.name, kernel.median_s) for kernel in kernels])
    expected = sum(match.kernels for match in matches)
    if len(chains) != expected:
        raise NotInPlace(f"{len(chains)} kernels with weights for {expected} layers")
    found, rest = [], iter(chains)
    for match in matches:
        chain = [kernel for _ in range(match.kernels) for kernel in next(rest)]
        place = _place([kernel for kernel, _ in chain[1:]], match.rows_after)
        found.append((match.name, replace(match.operation, place=place), sum(seconds for _, seconds in chain)))
    return sum(seconds for _, seconds in before), tuple(found)


def _chains(kernels: Sequence[tuple[str, float]]) -> list[list[tuple[str, float]]]:
    """What runs ahead of the first kernel with weights, then each such kernel with what follows it."""
    chains: list[list[tuple[str, float]]] = [[]]
    for kernel in kernels:
        if kernel[0].startswith(_KERNELS):
            chains.append([])
        chains[-1].append(kernel)
    return chains


def _place(followed: Sequence[str], rows: int) -> str:
    """The words for a place: what kinds of kernels come after, over how many positions.

    How often each, and the kernels that only move data, are left out: the exporter adds and drops some as widths go.
    """
    kinds = sorted({name.split(" (")[0] for name in followed} - _MOVING)
    if not kinds:
        return IN_PLACE
    return f"{IN_PLACE}, then {', '.join(kinds)} over {rows}"


def model_key(layers: Sequence[Layer], kept: Mapping[str, int]) -> str:
    """What the table calls a whole model: a hash over its layers, their names and widths (weights cost no time)."""
    texts = [f"{layer.name}: {replace(layer.signature(kept), place='').key()}" for layer in layers]
    return sha256("\n".join(texts).encode()).hexdigest()


def placed(layers: Sequence[Layer], places: Mapping[str, str]) -> tuple[Layer, ...]:
    """Layers that know their place in the model (by name); the others are counted with the layer before them."""
    return tuple(
        replace(layer, operation=replace(layer.operation, place=places.get(layer.name, COUNTED_BEFORE)))
        for layer in layers
    )
