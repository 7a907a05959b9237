"""Operation signatures: what the latency table is keyed by, beside the device and the runtime's build."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

IN_PLACE = "in place"  # of a place: timed inside of a model, nothing but its own kernel
COUNTED_BEFORE = "counted with the layer before it"  # of a place: its time is in that layer's
Kind = Literal[
    "conv2d",
    "depthwise_conv2d",
    "linear",
    "add",
    "mul",
    "avg_pool2d",
    "max_pool2d",
    "mean",
    "activation",
    "product",
    "weights",
]


@dataclass(frozen=True)
class OpSignature:
    """One operation as a runtime sees it, batch 1, float32.

    A convolution followed by batch norm or ReLU is one operation: runtimes fuse these.
    `height` and `width` are of the input. For a linear layer height is the number of rows (tokens).
    For `add` and `mul` with a broadcast (squeeze-excitation) second operand, `broadcast` is set.
    `activation` operations carry their name in `function`; fused ones too (`relu`, `relu6` or empty).
    `product` and `weights` are counted and never timed (see `edgeprune.space.counting`): so many
    multiply-accumulates or parameters as `in_channels` says.
    `place` is empty for an operation by itself; one that was timed inside a model says "in place" and which kernels
    ran after it, its time included (see `edgeprune.latency.in_place`).
    """

    kind: Kind
    in_channels: int
    out_channels: int
    height: int = 1
    width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    function: str = ""
    broadcast: bool = False
    place: str = ""

    def with_channels(self, in_channels: int, out_channels: int) -> OpSignature:
        """The same operation at other widths; with one group per channel (depthwise, any multiplier) it stays so."""
        depthwise = self.kind == "depthwise_conv2d" or self.groups == self.in_channels > 1
        groups = in_channels if depthwise else self.groups
        return replace(self, in_channels=in_channels, out_channels=out_channels, groups=groups)

    @property
    def is_square(self) -> bool:
        """Whether input and output channels are the same axis."""
        return self.kind not in ("conv2d", "linear", "product", "weights")

    @property
    def out_hw(self) -> tuple[int, int]:
        if self.kind in ("conv2d", "depthwise_conv2d", "avg_pool2d", "max_pool2d"):
            sizes = (self.height, self.width)
            h, w = (
                (n + 2 * p - d * (k - 1) - 1) // s + 1
                for n, p, d, k, s in zip(sizes, self.padding, self.dilation, self.kernel, self.stride, strict=True)
            )
            return h, w
        return (1, 1) if self.kind == "mean" else (self.height, self.width)

    @property
    def macs(self) -> int:
        """Multiply-accumulates; element-wise operations and pooling count none (as the field counts)."""
        if self.kind == "linear":
            return self.height * self.in_channels * self.out_channels
        if self.kind == "product":
            return self.in_channels
        if self.kind in ("conv2d", "depthwise_conv2d"):
            h, w = self.out_hw
            return h * w * self.out_channels * (self.in_channels // self.groups) * self.kernel[0] * self.kernel[1]
        return 0

    @property
    def parameters(self) -> int:
        """Weights and one bias per output channel (batch norm folded)."""
        if self.kind == "weights":
            return self.in_channels
        if self.kind not in ("conv2d", "depthwise_conv2d", "linear"):
            return 0
        return (
            self.out_channels * (self.in_channels // self.groups) * self.kernel[0] * self.kernel[1] + self.out_channels
        )

    def key(self) -> str:
        """A stable text for the table."""
        return ";".join(f"{name}={value}" for name, value in asdict(self).items() if name != "place" or value)
