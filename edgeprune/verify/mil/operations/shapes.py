"""Operations that move elements and compute nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.verify.mil.operations.layers import pad_spatial
from edgeprune.verify.mil.registry import ints, operation, refuse


@operation("reshape")
def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """A size of 0 keeps the input's size at that place, counted from the right (1 beyond it); -1 takes what is left."""
    wanted = ints(shape, [])
    kept = [1] * len(wanted) + list(x.shape)
    return x.reshape([size or kept[place - len(wanted)] for place, size in enumerate(wanted)])


@operation("transpose")
def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(ints(perm, []))


@operation("expand_dims")
def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """The axes are those of the output."""
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in ints(axes, [])):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze")
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes, [])))


@operation("concat")
def concat(values: list[Tensor] | Tensor, axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    parts = values if isinstance(values, list) else [values]
    if interleave is None or not bool(interleave):
        return torch.cat(parts, int(axis))
    place = int(axis) % parts[0].ndim
    return torch.stack(parts, place + 1).flatten(place, place + 1)


@operation("stack")
def stack(values: list[Tensor] | Tensor, axis: Tensor) -> Tensor:
    return torch.stack(values if isinstance(values, list) else [values], int(axis))


@operation("split")
def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    sizes = ints(split_sizes, [])
    if sizes:
        return tuple(x.split(sizes, int(axis)))
    if num_splits is None or x.shape[int(axis)] % int(num_splits):
        raise refuse("split", "neither sizes nor a number of equal parts")
    return tuple(x.split(x.shape[int(axis)] // int(num_splits), int(axis)))


@operation("slice_by_index")
def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """Slicing as Python's; a set mask leaves an end open, a squeezed dimension takes element `begin` alone."""
    rank = x.ndim
    starts, ends, steps = ints(begin, []), ints(end, []), ints(stride, [1] * rank)
    open_start, open_end = ints(begin_mask, [0] * rank), ints(end_mask, [0] * rank)
    squeezed = ints(squeeze_mask, [0] * rank)
    for axis in range(rank):
        if squeezed[axis]:
            picked = [starts[axis] % x.shape[axis]]
        else:
            part = slice(
                None if open_start[axis] else starts[axis], None if open_end[axis] else ends[axis], steps[axis]
            )
            picked = list(range(*part.indices(x.shape[axis])))
        if picked != list(range(x.shape[axis])):
            x = x.index_select(axis, torch.tensor(picked, dtype=torch.long))
    return x.squeeze(tuple(axis for axis in range(rank) if squeezed[axis])) if any(squeezed) else x


@operation("slice_by_size")
def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """A size of -1 reaches to the end."""
    for axis, (start, length) in enumerate(zip(ints(begin, []), ints(size, []), strict=True)):
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


@operation("crop")
def crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    """Cut rows off the top and bottom, and columns off the left and right."""
    top, bottom = ints(crop_height, [])
    left, right = ints(crop_width, [])
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operation("gather")
def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
    validate_indices: Tensor | None = None,  # noqa: ARG001  (torch always validates)
) -> Tensor:
    if batch_dims is not None and int(batch_dims):
        raise refuse("gather", "batch_dims")
    place = 0 if axis is None else int(axis) % x.ndim
    picked = indices.long()
    picked = torch.where(picked < 0, picked + x.shape[place], picked)
    shape = [*x.shape[:place], *picked.shape, *x.shape[place + 1 :]]
    return x.index_select(place, picked.flatten()).reshape(shape)


@operation("tile")
def tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.repeat(ints(reps, []))


@operation("pad")
def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    """Pad the last dimensions: `pad` holds (before, after) for each of them, in the order of the dimensions."""
    sizes = ints(pad, [])
    if mode == "constant":
        return pad_spatial(x, sizes[0::2], sizes[1::2], 0.0 if constant_val is None else float(constant_val))
    if mode not in ("reflect", "replicate"):
        raise refuse("pad", f"mode {mode}")
    while len(sizes) > 4 and sizes[:2] == [0, 0]:  # torch reflects only the last dimensions
        sizes = sizes[2:]
    backwards = [size for low, high in zip(sizes[-2::-2], sizes[::-2], strict=True) for size in (low, high)]
    return functional.pad(x, backwards, mode=mode)


@operation("pixel_shuffle")
def pixel_shuffle(x: Tensor, upscale_factor: Tensor) -> Tensor:
    return functional.pixel_shuffle(x, int(upscale_factor))


@operation("pixel_unshuffle")
def pixel_unshuffle(x: Tensor, downscale_factor: Tensor) -> Tensor:
    return functional.pixel_unshuffle(x, int(downscale_factor))
