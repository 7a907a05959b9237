"""Small .tflite nets of one float32 image: some that XNNPACK runs with its sparse kernels, and one for each way not to.

They are written operator by operator, so that each breaks one rule alone. `NETS` says which rules each breaks once its
weights are stored sparsely.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.latency.tflite_writer import Graph

PIXELS, CHANNELS = 17, 16


class Net:
    """A net under construction; every method returns a tensor. Nine of ten weights of 1x1 convolutions are zero."""

    def __init__(self, *, zeros: float = 0.9, pixels: int = PIXELS, channels: int = 3) -> None:
        self.graph = Graph()
        self._random = np.random.default_rng(1)
        self._zeros = zeros
        self.image = self.graph.input((1, pixels, pixels, channels))

    def save(self, path: Path, *outputs: int) -> None:
        for tensor in outputs:
            self.graph.output(tensor)
        path.write_bytes(self.graph.to_bytes())

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.graph.shape(tensor)

    def convolution(
        self,
        x: int,
        out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        pad: int | None = None,
        same: bool = False,
        fused: int = 0,
        groups: int = 1,
        dilation: int = 1,
    ) -> int:
        """`pad`: by a PAD of its own; `same`: TensorFlow's padding. 1x1 convolutions get the zeros."""
        x = x if pad is None else self.pad(x, pad)
        shape = (out, kernel, kernel, self.shape(x)[3] // groups)
        weights = (self._random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        if kernel == 1:
            weights[self._random.random(shape) < self._zeros] = 0
        options = schema.Conv2DOptionsT()
        self._window(options, stride, same, fused, dilation)
        bias = self.graph.constant(self._random.standard_normal(out).astype(np.float32))
        result = self._image(x, dilation * (kernel - 1) + 1, stride, same, out)
        return self.graph.add("CONV_2D", [x, self.graph.constant(weights), bias], result, options)

    def depthwise(
        self,
        x: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        pad: int | None = None,
        same: bool = False,
        times: int = 1,
        dilation: int = 1,
    ) -> int:
        x = x if pad is None else self.pad(x, pad)
        out = self.shape(x)[3] * times
        options = schema.DepthwiseConv2DOptionsT()
        self._window(options, stride, same, 0, dilation)
        options.depthMultiplier = times
        weights = (self._random.standard_normal((1, kernel, kernel, out)) / kernel).astype(np.float32)
        bias = self.graph.constant(np.zeros(out, np.float32))
        result = self._image(x, dilation * (kernel - 1) + 1, stride, same, out)
        return self.graph.add("DEPTHWISE_CONV_2D", [x, self.graph.constant(weights), bias], result, options)

    def pad(self, x: int, side: int) -> int:
        batch, height, width, channels = self.shape(x)
        amounts = self.graph.constant(np.array([[0, 0], [side, side], [side, side], [0, 0]], np.int32))
        shape = (batch, height + 2 * side, width + 2 * side, channels)
        return self.graph.add("PAD", [x, amounts], shape, schema.PadOptionsT())

    def stem(self, *, pad: int | None = 1, **options: Any) -> int:
        return self.convolution(
            self.image, CHANNELS, 3, stride=2, pad=pad, fused=schema.ActivationFunctionType.RELU, **options
        )

    def mean(self, x: int, *, axes: tuple[int, ...] = (1, 2), keep: bool = False) -> int:
        options = schema.ReducerOptionsT()
        options.keepDims = keep
        shape = tuple(1 if n in axes else size for n, size in enumerate(self.shape(x)) if keep or n not in axes)
        return self.graph.add("MEAN", [x, self.graph.constant(np.array(axes, np.int32))], shape, options)

    def average_pool(self, x: int) -> int:
        _, height, width, channels = self.shape(x)
        options = schema.Pool2DOptionsT()
        options.padding, options.filterHeight, options.filterWidth = schema.Padding.VALID, height, width
        options.strideH = options.strideW = 1
        return self.graph.add("AVERAGE_POOL_2D", [x], (1, 1, 1, channels), options)

    def linear(self, x: int, out: int) -> int:
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims = True  # as converters write it
        weights = self.graph.weights((out, self.shape(x)[-1]))
        return self.graph.add("FULLY_CONNECTED", [x, weights], (1, out), options, version=5)

    def resize(self, x: int) -> int:
        options = schema.ResizeBilinearOptionsT()
        options.halfPixelCenters, options.alignCorners = True, False
        size = self.graph.constant(np.array([18, 18], np.int32))
        return self.graph.add("RESIZE_BILINEAR", [x, size], (1, 18, 18, self.shape(x)[3]), options)

    def depth_to_space(self, x: int) -> int:
        _, height, width, channels = self.shape(x)
        options = schema.DepthToSpaceOptionsT()
        options.blockSize = 2
        return self.graph.add("DEPTH_TO_SPACE", [x], (1, 2 * height, 2 * width, channels // 4), options)

    def unary(self, name: str, x: int) -> int:
        return self.graph.add(name, [x], self.shape(x))

    def two(self, name: str, x: int, y: int) -> int:
        options = schema.AddOptionsT() if name == "ADD" else schema.MulOptionsT()
        return self.graph.add(name, [x, y], self.shape(x), options)

    def constant(self, value: float) -> int:
        return self.graph.constant(np.full((1, 1, 1, 1), value, np.float32))

    def _image(self, x: int, reach: int, stride: int, same: bool, channels: int) -> tuple[int, ...]:
        _, height, width, _ = self.shape(x)
        lost = 0 if same else reach - 1
        return (1, -(-(height - lost) // stride), -(-(width - lost) // stride), channels)

    @staticmethod
    def _window(options: Any, stride: int, same: bool, fused: int, dilation: int = 1) -> None:
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = dilation
        options.fusedActivationFunction = fused


def head(net: Net, x: int, path: Path) -> None:
    net.save(path, net.linear(net.mean(net.convolution(x, 32)), 5))


def separable(path: Path) -> None:
    net = Net()
    x = net.stem()
    x = net.two("ADD", x, net.depthwise(net.convolution(x, CHANNELS), same=True))
    x = net.unary("HARD_SWISH", net.depthwise(net.convolution(x, 24), 5, stride=2, pad=2))
    head(net, x, path)


def strided_same(path: Path) -> None:
    """SAME with a stride, on odd sizes, pads by 1 on all sides: the rewriter says so."""
    net = Net(pixels=33)
    x = net.convolution(net.image, CHANNELS, 3, stride=2, same=True)
    head(net, net.depthwise(net.convolution(x, CHANNELS), stride=2, same=True), path)


def squeeze_and_excitation(path: Path) -> None:
    net = Net()
    x = net.depthwise(net.convolution(net.stem(), 32), pad=1)
    gate = net.unary("RELU", net.convolution(net.mean(x, keep=True), 8))
    head(net, net.two("MUL", x, net.unary("LOGISTIC", net.convolution(gate, 32))), path)


def convolution_head(path: Path) -> None:
    """MobileNetV3's: a 1x1 convolution behind the mean."""
    net = Net()
    x = net.mean(net.convolution(net.stem(), 32), keep=True)
    x = net.unary("HARD_SWISH", net.convolution(x, 48))
    net.save(path, net.graph.add("RESHAPE", [x, net.graph.constant(np.array([1, 48], np.int32))], (1, 48)))


def two_means(path: Path) -> None:
    net = Net()
    x = net.convolution(net.stem(), CHANNELS)
    net.save(path, net.mean(x), net.mean(net.depthwise(x, pad=1)))


def stem_of_one_channel(path: Path) -> None:
    net = Net(channels=1)
    head(net, net.stem(), path)


def stem_padded_after(path: Path) -> None:
    """TensorFlow's own way on even sizes: nothing above and left, 1 below and right."""
    net = Net(pixels=18)
    head(net, net.stem(pad=None, same=True), path)


def stem_of_stride_1(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.image, CHANNELS, 3, pad=1), path)


def no_stem(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.image, CHANNELS), path)


def few_zeros(path: Path) -> None:
    net = Net(zeros=0.6)
    head(net, net.depthwise(net.convolution(net.stem(), 32), pad=1), path)


def wide_classifier(path: Path) -> None:
    """A linear layer that takes the mean is counted with the 1x1 convolutions, unless the rewriter sets it apart."""
    net = Net()
    net.save(path, net.linear(net.mean(net.convolution(net.stem(), 32)), 100))


def resized(path: Path) -> None:
    net = Net()
    head(net, net.resize(net.convolution(net.stem(), CHANNELS)), path)


def depth_to_space(path: Path) -> None:
    net = Net()
    net.save(path, net.depth_to_space(net.convolution(net.stem(), 32)))


def more_behind_depth_to_space(path: Path) -> None:
    """It ends a cluster, and no other begins with it: one of two convolutions runs sparsely."""
    net = Net()
    head(net, net.depth_to_space(net.convolution(net.stem(), 32)), path)


def all_behind_depth_to_space(path: Path) -> None:
    net = Net()
    head(net, net.depth_to_space(net.stem()), path)


def convolution_within(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.stem(), CHANNELS, 3, pad=1), path)


def strided_1x1(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.stem(), CHANNELS, stride=2), path)


def grouped_1x1(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.stem(), CHANNELS, groups=2), path)


def dilated_1x1(path: Path) -> None:
    """Which changes nothing."""
    net = Net()
    head(net, net.convolution(net.stem(), CHANNELS, dilation=2), path)


def padded_1x1(path: Path) -> None:
    net = Net()
    head(net, net.convolution(net.stem(), CHANNELS, pad=1), path)


def dilated_depthwise(path: Path) -> None:
    net = Net()
    head(net, net.depthwise(net.stem(), pad=1, dilation=2), path)


def depthwise_of_stride_3(path: Path) -> None:
    net = Net()
    head(net, net.depthwise(net.stem(), pad=1, stride=3), path)


def dilated_stem(path: Path) -> None:
    net = Net()
    head(net, net.stem(dilation=2), path)


def resized_from_one_row(path: Path) -> None:
    net = Net(pixels=2)
    head(net, net.resize(net.convolution(net.stem(), CHANNELS)), path)


def depthwise_7x7(path: Path) -> None:
    net = Net()
    head(net, net.depthwise(net.stem(), 7, pad=3), path)


def depthwise_unpadded(path: Path) -> None:
    net = Net()
    head(net, net.depthwise(net.stem()), path)


def depthwise_padded_after(path: Path) -> None:
    net = Net(pixels=20)
    head(net, net.depthwise(net.stem(), stride=2, same=True), path)


def depthwise_of_two_filters(path: Path) -> None:
    net = Net()
    head(net, net.depthwise(net.stem(), pad=1, times=2), path)


def constant_operand(path: Path) -> None:
    net = Net()
    x = net.convolution(net.stem(), CHANNELS)
    head(net, net.two("ADD", x, net.constant(3.0)), path)


def max_pool(path: Path) -> None:
    net = Net()
    x = net.stem()
    _, height, width, channels = net.shape(x)
    options = schema.Pool2DOptionsT()
    options.padding, options.filterHeight, options.filterWidth = schema.Padding.SAME, 3, 3
    options.strideH = options.strideW = 1
    head(net, net.graph.add("MAX_POOL_2D", [x], (1, height, width, channels), options), path)


def ends_in_average_pool(path: Path) -> None:
    net = Net()
    net.save(path, net.average_pool(net.convolution(net.stem(), 32)))


def mean_over_channels(path: Path) -> None:
    net = Net()
    net.save(path, net.mean(net.convolution(net.stem(), 32), axes=(3,)))


def computed_weights(path: Path) -> None:
    net = Net()
    weights = net.graph.add("ABS", [net.graph.weights((32, 1, 1, CHANNELS))], (32, 1, 1, CHANNELS))
    options, bias = schema.Conv2DOptionsT(), net.graph.constant(np.zeros(32, np.float32))
    net._window(options, 1, False, 0)
    x = net.convolution(net.stem(), CHANNELS)
    head(net, net.graph.add("CONV_2D", [x, weights, bias], (1, 9, 9, 32), options), path)


def whole_numbers_within(path: Path) -> None:
    net = Net()
    whole, real = schema.CastOptionsT(), schema.CastOptionsT()
    whole.inDataType = real.outDataType = schema.TensorType.FLOAT32
    whole.outDataType = real.inDataType = schema.TensorType.INT32
    x = net.convolution(net.stem(), CHANNELS)
    rounded = net.graph.add("CAST", [x], net.shape(x), whole, kind=schema.TensorType.INT32)
    head(net, net.graph.add("CAST", [rounded], net.shape(x), real), path)


def pad_of_two_readers(path: Path) -> None:
    """It is part of neither convolution."""
    net = Net()
    padded = net.pad(net.image, 1)
    one, two = (net.convolution(padded, CHANNELS, 3, stride=2) for _ in range(2))
    head(net, net.two("ADD", one, two), path)


def pad_of_channels(path: Path) -> None:
    """A fourth channel of zeros beside the three: no padding of an image."""
    net = Net(channels=2)
    amounts = net.graph.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 1]], np.int32))
    x = net.graph.add("PAD", [net.image, amounts], (1, PIXELS + 2, PIXELS + 2, 3), schema.PadOptionsT())
    head(net, net.convolution(x, CHANNELS, 3, stride=2), path)


def another_beginning_within(path: Path) -> None:
    """A convolution that could begin a cluster takes its image channels last."""
    net = Net()
    x = net.convolution(net.stem(), 3)
    net.save(path, net.convolution(x, 8, 3, stride=2, pad=1), net.mean(net.convolution(x, 32)))


def image_is_an_output(path: Path) -> None:
    net = Net()
    x = net.convolution(net.stem(), CHANNELS)
    net.save(path, x, net.mean(net.convolution(x, 32)))


def last_image_is_an_output(path: Path) -> None:
    """A 1x1 convolution beside the mean whose image leaves the file."""
    net = Net()
    x = net.convolution(net.stem(), CHANNELS)
    net.save(path, net.convolution(x, 8), net.mean(net.convolution(x, 32)))


Build = Callable[[Path], None]
NETS: dict[Build, set[str]] = {
    separable: set(),
    strided_same: set(),
    squeeze_and_excitation: set(),
    convolution_head: set(),
    two_means: set(),
    wide_classifier: set(),
    resized: set(),
    depth_to_space: set(),
    more_behind_depth_to_space: set(),
    dilated_1x1: set(),
    stem_of_one_channel: {"begins"},
    stem_padded_after: {"begins"},
    stem_of_stride_1: {"begins"},
    dilated_stem: {"begins"},
    no_stem: {"begins"},
    few_zeros: {"zeros"},
    convolution_within: {"operators"},
    strided_1x1: {"operators"},
    grouped_1x1: {"operators"},
    padded_1x1: {"operators"},
    all_behind_depth_to_space: {"operators"},
    dilated_depthwise: {"operators"},
    depthwise_of_stride_3: {"operators"},
    resized_from_one_row: {"operators"},
    depthwise_7x7: {"operators"},
    depthwise_unpadded: {"operators"},
    depthwise_padded_after: {"operators"},
    depthwise_of_two_filters: {"operators"},
    constant_operand: {"operators"},
    max_pool: {"operators"},
    ends_in_average_pool: {"operators", "ends"},
    mean_over_channels: {"operators", "ends"},
    computed_weights: {"types"},
    whole_numbers_within: {"types"},
    pad_of_two_readers: {"begins", "operators"},
    pad_of_channels: {"begins", "operators"},
    another_beginning_within: {"closed"},
    image_is_an_output: {"closed"},
    last_image_is_an_output: {"closed"},
}
