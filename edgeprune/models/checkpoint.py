"""Weights in and out: into a module from a checkpoint, and as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from edgeprune.errors import ModelError, listed
from edgeprune.models.taking import Weights, facts_of, take
from edgeprune.models.weights_file import read_tree
from edgeprune.runs import write_atomic


@dataclass(frozen=True)
class Loaded:
    """What was taken from a checkpoint: in words ("" for a plain state dict), and the plain values it states
    (epoch, accuracy)."""

    said: str
    facts: Mapping[str, float | int | str | bool]


def load_state(module: nn.Module, path: Path, *, weights: Weights | None = None) -> Loaded:
    """Copy a checkpoint into a module, in place; every tensor must be there and fit.

    The state is found where it lies in the file: nested (`state_dict`, `checkpoint.model`), with `module.`,
    `_orig_mod.`, `model.` or `backbone.` before its names, in any order. Only a batch norm's `num_batches_tracked`
    may be missing (older checkpoints have none; inference ignores it).

    Args:
        weights: "ema" or "raw", where the file has both; see `taking.take`.

    Raises:
        ModelError: names or shapes differ (they are listed), several states fit, a value is not finite, or see
            `weights_file.read_tree`.
    """
    tree = read_tree(path)
    taken, said = take(tree, module.state_dict(), where=str(path), weights=weights)
    _refuse_other_kinds(taken.tensors, module.state_dict(), str(path))
    broken = not_finite(taken.tensors, module)
    if broken:
        raise ModelError(
            f"the checkpoint holds values that are not finite, in {listed(broken, 5)}",
            where=str(path),
            hint="use a checkpoint from before the training diverged",
        )
    try:
        module.load_state_dict(dict(taken.tensors), strict=False)
    except RuntimeError as error:
        raise ModelError(f"the weights cannot be copied: {str(error).splitlines()[-1]}", where=str(path)) from error
    return Loaded(said, facts_of(tree))


def not_finite(tensors: Mapping[str, torch.Tensor], module: nn.Module) -> list[str]:
    """The tensors of a module's state with values that no training leaves. Infinity is one, but not in a buffer that
    holds a constant, as masks of attention do.
    """
    statistics = {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if isinstance(part, _NormBase)
        for name in ("running_mean", "running_var")
    }
    constants = {name for name, _ in module.named_buffers()} - statistics
    floats = {name: tensor.float() for name, tensor in tensors.items() if tensor.is_floating_point()}
    return [n for n, t in floats.items() if bool(t.isnan().any() if n in constants else (~t.isfinite()).any())]


def _refuse_other_kinds(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], where: str) -> None:
    """Tensors of the right shape that are not what their numbers seem to be."""
    empty = [name for name, tensor in tensors.items() if tensor.is_meta]
    if empty:
        raise ModelError(f"it holds shapes without values (meta tensors), in {empty[0]}", where=where)
    other = [
        name
        for name, tensor in tensors.items()
        if tensor.layout != torch.strided
        or tensor.is_quantized
        or (own[name].is_floating_point() and not tensor.is_floating_point())
    ]
    if other:
        kind = str(tensors[other[0]].dtype).removeprefix("torch.")
        if tensors[other[0]].layout != torch.strided:
            kind = f"sparse {kind}"
        raise ModelError(
            f"quantized or sparse weights: {other[0]} is {kind}, the model's is float",
            where=where,
            hint="use the checkpoint in float, from before it was quantized",
        )


def save_state(path: Path, module: nn.Module) -> None:
    """Write a module's state as safetensors, whole or not at all; reading it back gives the same bits.

    Raises:
        EdgePruneError: the disk is full or the folder cannot be written.
        ModelError: the module keeps state that is no tensor.
    """
    write_atomic(Path(path), to_bytes(module.state_dict(), where=str(path)))


def state_digest(module: nn.Module) -> str:
    """A digest (hexadecimal) of a module's parameters and buffers, their names and their bits.

    Raises:
        ModelError: the module keeps state that is no tensor.
    """
    return hashlib.sha256(to_bytes(module.state_dict(), where=type(module).__name__)).hexdigest()


def to_bytes(tensors: Mapping[str, torch.Tensor], *, where: str = "model") -> bytes:
    """Tensors as the bytes of a safetensors file; one that shares its memory with another is written out twice.

    Raises:
        ModelError: a value is no tensor.
    """
    ready: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f"`{name}` of the state is a {type(tensor).__name__}, not a tensor",
                where=where,
                hint="keep it out of the module's extra state",
            )
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        ready[name] = own.clone() if storage in seen or own.untyped_storage().nbytes() != own.nbytes else own
        seen.add(storage)
    return bytes(safetensors.torch.save(ready, metadata={"format": "pt"}))
