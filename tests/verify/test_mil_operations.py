"""Operations that torch conversion does not write, or not with these settings: built one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from torch.nn import functional

from edgeprune.errors import UsageError
from edgeprune.verify.mil import run_mlpackage
from edgeprune.verify.mil.operations import known_operations

Build = Callable[[Callable[[Any, Any], Any], tuple[int, ...]], Path]


@pytest.fixture
def build(coremltools: Any, tmp_path: Path) -> Build:
    """A package from a function of (mb, input) and the input's shape."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    def make(body: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> Path:
        spec = [mb.TensorSpec(shape=shape)]
        program = mb.program(input_specs=spec, opset_version=coremltools.target.iOS17)(lambda x: body(mb, x))
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS17,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(tmp_path / "program.mlpackage"))
        return tmp_path / "program.mlpackage"

    return make


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 2, 1), (9, 4, 3)])
def test_same_padding(build: Build, pad_type: str, size: int, kernel: int, stride: int) -> None:
    """ceil(size / stride) outputs, the odd row after (same) or before (same_lower)."""
    weight = noise(4, 2, kernel, kernel)

    def body(mb: Any, x: Any) -> Any:
        return mb.conv(x=x, weight=weight, strides=[stride, stride], pad_type=pad_type)

    inputs = noise(1, 2, size, size)
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    before, after = total // 2, total - total // 2
    if pad_type == "same_lower":
        before, after = after, before
    padded = np.pad(inputs, ((0, 0), (0, 0), (before, after), (before, after)))
    wanted = functional.conv2d(torch.from_numpy(padded), torch.from_numpy(weight), stride=stride).numpy()
    given = run_mlpackage(build(body, (1, 2, size, size)), inputs)
    assert given.shape[-1] == -(-size // stride)
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exclude", [True, False])
def test_average_with_uneven_padding(build: Build, exclude: bool) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.avg_pool(
            x=x,
            kernel_sizes=[2, 3],
            strides=[2, 1],
            pad_type="custom",
            pad=[0, 1, 2, 0],
            exclude_padding_from_average=exclude,
        )

    inputs = noise(1, 1, 3, 4)
    padded = np.pad(inputs[0, 0], ((0, 1), (2, 0)))
    inside = np.pad(np.ones((3, 4)), ((0, 1), (2, 0)))
    wanted = np.zeros((2, 4))
    for row in range(2):
        for column in range(4):
            window = np.s_[2 * row : 2 * row + 2, column : column + 3]
            wanted[row, column] = padded[window].sum() / (inside[window].sum() if exclude else 6)
    np.testing.assert_allclose(run_mlpackage(build(body, (1, 1, 3, 4)), inputs)[0, 0], wanted, rtol=1e-5, atol=1e-6)


def test_maximum_does_not_see_the_padding(build: Build) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[1, 1], pad_type="custom", pad=[0, 2, 0, 2])

    inputs = -np.abs(noise(1, 1, 4, 4)) - 1
    given = run_mlpackage(build(body, (1, 1, 4, 4)), inputs)
    assert given.shape == (1, 1, 4, 4)
    assert (given < 0).all()
    assert given[0, 0, 3, 3] == inputs[0, 0, 3, 3]


def test_slicing_backwards_and_squeezing(build: Build) -> None:
    def body(mb: Any, x: Any) -> Any:
        return mb.slice_by_index(
            x=x,
            begin=[0, -1, 0, 4],
            end=[0, 0, 0, -7],
            stride=[1, 1, 2, -2],
            begin_mask=[True, False, True, False],
            end_mask=[True, False, True, True],
            squeeze_mask=[False, True, False, False],
        )

    inputs = noise(1, 3, 5, 6)
    assert np.array_equal(run_mlpackage(build(body, (1, 3, 5, 6)), inputs), inputs[:, -1, ::2, 4::-2])


def test_reshape_keeps_and_infers(build: Build) -> None:
    """0 keeps the size at that place, counted from the right: a coremltools program of iOS 17."""
    inputs = noise(2, 3, 4, 5)
    kept = run_mlpackage(build(lambda mb, x: mb.reshape(x=x, shape=[0, 0, -1, 0]), (2, 3, 4, 5)), inputs)
    assert np.array_equal(kept, inputs)
    fewer = run_mlpackage(build(lambda mb, x: mb.reshape(x=x, shape=[-1, 0, 0]), (2, 3, 4, 5)), inputs)
    assert np.array_equal(fewer, inputs.reshape(6, 4, 5))
    more = run_mlpackage(build(lambda mb, x: mb.reshape(x=x, shape=[0, 0, 0, 0, 0]), (2, 3, 4, 5)), inputs)
    assert np.array_equal(more, inputs[None])


def test_quantize_and_dequantize_per_channel(build: Build) -> None:
    scale, zero = np.array([0.5, 0.01], np.float32), np.array([3, -7], np.int8)

    def body(mb: Any, x: Any) -> Any:
        steps = mb.quantize(input=x, scale=scale, zero_point=zero, axis=1, output_dtype="int8")
        return mb.dequantize(input=steps, scale=scale, zero_point=zero, axis=1)

    inputs = noise(1, 2, 3, 3)
    inputs[0, 0, 0, :2] = [0.25, 0.75]  # halves: to even
    wide, shift = scale.reshape(1, 2, 1, 1), zero.reshape(1, 2, 1, 1).astype(np.float32)
    wanted = (np.clip(np.rint(inputs / wide) + shift, -128, 127) - shift) * wide
    given = run_mlpackage(build(body, (1, 2, 3, 3)), inputs)
    np.testing.assert_allclose(given, wanted, rtol=1e-6)
    assert given[0, 0, 0, :2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "arguments", "formula"),
    [
        ("thresholded_relu", {"alpha": 0.5}, lambda x: np.where(x >= 0.5, x, 0)),
        ("clamped_relu", {"alpha": 0.1, "beta": 0.8}, lambda x: np.minimum(np.where(x >= 0, x, 0.1 * x), 0.8)),
        ("sigmoid_hard", {"alpha": 0.3, "beta": 0.4}, lambda x: np.clip(0.3 * x + 0.4, 0, 1)),
        ("linear_activation", {"alpha": 2.0, "beta": -1.0}, lambda x: 2 * x - 1),
        ("clip", {"alpha": -0.3, "beta": 0.7}, lambda x: np.clip(x, -0.3, 0.7)),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x / (1 + np.exp(-1.702 * x))),
        ("square", {}, np.square),
        ("inverse", {"epsilon": 3.0}, lambda x: 1 / (x + 3.0)),
        ("reduce_l2_norm", {"axes": [1, 3], "keep_dims": True}, lambda x: np.sqrt((x**2).sum((1, 3), keepdims=True))),
        ("reduce_min", {"axes": [-1], "keep_dims": False}, lambda x: x.min(-1)),
        ("layer_norm", {"axes": [1], "epsilon": 1e-3}, lambda x: (x - x.mean(1, keepdims=True))
            / np.sqrt(x.var(1, keepdims=True) + 1e-3)),
        ("instance_norm", {"epsilon": 1e-2}, lambda x: (x - x.mean((2, 3), keepdims=True))
            / np.sqrt(x.var((2, 3), keepdims=True) + 1e-2)),
        ("batch_norm", {"mean": np.float32([1, 2]), "variance": np.float32([3, 4]), "epsilon": 0.5},
            lambda x: (x - np.reshape([1, 2], (1, 2, 1, 1))) / np.sqrt(np.reshape([3.5, 4.5], (1, 2, 1, 1)))),
        ("tile", {"reps": [1, 2, 1, 3]}, lambda x: np.tile(x, (1, 2, 1, 3))),
        ("slice_by_size", {"begin": [0, 1, 0, 2], "size": [1, 1, -1, 2]}, lambda x: x[:, 1:, :, 2:4]),
        ("gather", {"indices": [1, 0, -1], "axis": 1}, lambda x: x[:, [1, 0, -1]]),
        ("upsample_nearest_neighbor", {"scale_factor_height": 2, "scale_factor_width": 3},
            lambda x: x.repeat(2, 2).repeat(3, 3)),
        ("cast", {"dtype": "fp16"}, lambda x: x.astype(np.float16)),
    ],
)  # fmt: skip
def test_single_operations(build: Build, name: str, arguments: dict[str, Any], formula: Callable[..., Any]) -> None:
    inputs = noise(1, 2, 3, 4)
    given = run_mlpackage(build(lambda mb, x: getattr(mb, name)(x=x, **arguments), (1, 2, 3, 4)), inputs)
    np.testing.assert_allclose(given, formula(inputs), rtol=2e-5, atol=1e-6)


def test_interleaved_concatenation(build: Build) -> None:
    inputs = noise(1, 4, 2, 2)
    given = run_mlpackage(
        build(
            lambda mb, x: mb.concat(values=[x, mb.add(x=x, y=np.float32(1.0))], axis=1, interleave=True), (1, 4, 2, 2)
        ),
        inputs,
    )
    assert np.array_equal(given[:, 0::2], inputs)
    assert np.array_equal(given[:, 1::2], inputs + 1)


def test_an_unknown_operation_is_named(build: Build) -> None:
    path = build(lambda mb, x: mb.local_response_norm(x=x, size=3), (1, 4, 2, 2))
    with pytest.raises(UsageError, match="`local_response_norm`"):
        run_mlpackage(path, noise(1, 4, 2, 2))


def test_a_setting_that_is_not_implemented_is_refused(build: Build) -> None:
    path = build(
        lambda mb, x: mb.resize_bilinear(x=x, target_size_height=5, target_size_width=5, sampling_mode="DEFAULT"),
        (1, 4, 3, 3),
    )
    with refused(UsageError, "sampling_mode DEFAULT"):
        run_mlpackage(path, noise(1, 4, 3, 3))


def test_half_precision_overflows_to_infinity(build: Build, coremltools: Any) -> None:
    path = build(lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), (1, 1, 1, 3))
    given = run_mlpackage(path, np.array([[[[70000.0, 1.0001, -70000.0]]]], np.float32))
    assert given.ravel().tolist() == [np.inf, 1.0, -np.inf]


def test_the_operations_of_the_zoo_are_known() -> None:
    """The kinds that coremltools writes for the models this was tried on."""
    zoo = (
        "add avg_pool batch_norm cast clip concat conv expand_dims gelu layer_norm linear matmul max_pool mul pad "
        "real_div reduce_mean relu relu6 reshape sigmoid sigmoid_hard silu slice_by_index softmax split squeeze sub "
        "thresholded_relu transpose constexpr_affine_dequantize constexpr_blockwise_shift_scale constexpr_lut_to_dense"
    )
    assert set(zoo.split()) <= set(known_operations())
