"""The weights of convolutions and linear layers, as a model uses them.

Found in the recorded operators and not by the classes of modules: a convolution that computes its weight anew at each
call (standardized, normed) has none whose zeros would be zeros in an exported file, and a module of the user's own that
calls `F.conv2d` has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, fx, nn

from edgeprune.graph.flow import arguments
from edgeprune.graph.record import record
from edgeprune.graph.trace import operator_name, shape_of
from edgeprune.graph.unfused import unfused


@dataclass(frozen=True)
class Weight:
    """A parameter that is the weight of two-dimensional convolutions or of linear layers, at least once.

    `shape` is (out, in, height, width) or (out, in); `positions` are those it is used at on one image, all uses
    together.
    """

    name: str
    shape: tuple[int, ...]
    positions: int
    groups: int = 1
    dense_1x1: bool = False  # every use is a 1x1 convolution of stride 1 without groups and padding

    @property
    def macs(self) -> int:
        """Multiply-accumulates on one image."""
        return self.positions * math.prod(self.shape)

    @property
    def kind(self) -> str:
        """ "linear", "depthwise", or the size of a convolution's kernel, "3x3"."""
        if len(self.shape) == 2:
            return "linear"
        out, each, height, width = self.shape
        return "depthwise" if each == 1 and out == self.groups > 1 else f"{height}x{width}"


def find_weights(module: nn.Module, example: Tensor) -> dict[str, Weight]:
    """The weights by name, in the order of their first use; one that layers share has its first name.

    Args:
        module: unchanged (recorded in eval mode).
        example: images, (N, C, H, W), of which only shape and dtype count.

    Raises:
        ModelError: the model cannot be recorded.
    """
    trace = record(unfused(module), example)
    found: dict[str, Weight] = {}
    for node in trace.graph.nodes:
        if node.op != "call_function" or operator_name(node) not in ("conv2d", "linear"):
            continue
        name = trace.parameters.get(arguments(node)["weight"])
        if name is None:
            continue
        use = _use(name, node, len(example))
        if (other := found.get(name)) is not None:
            both = other.dense_1x1 and use.dense_1x1
            use = replace(other, positions=other.positions + use.positions, dense_1x1=both)
        found[name] = use
    return found


def _use(name: str, node: fx.Node, images: int) -> Weight:
    args, shape = arguments(node), shape_of(arguments(node)["weight"])
    positions = math.prod(shape_of(node)) // (shape[0] * images)
    if operator_name(node) == "linear":
        return Weight(name, shape, positions)
    plain = (args["groups"], *_all(args["stride"])) == (1, 1, 1)
    padded = args["padding"] not in ("same", "valid") and any(_all(args["padding"]))  # of 1x1 these two add nothing
    return Weight(name, shape, positions, int(args["groups"]), shape[2:] == (1, 1) and plain and not padded)


def _all(value: int | list[int]) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return int(values[0]), int(values[-1])
