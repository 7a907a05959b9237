"""Weights in and out: safetensors, and what torch can read without executing anything."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.runs import write_atomic

_NESTS = ("state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema")
_PREFIXES = ("module.", "_orig_mod.")
_LISTED = 5


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, on the CPU; float16 and bfloat16 ones come as float32.

    A `.safetensors` file, or what `torch.load(weights_only=True)` reads; a state nested under `state_dict` or
    `model` is found, and the `module.` that DataParallel puts before every name is taken off.

    Raises:
        ModelError: the file is missing, broken, holds no state, or would have to be unpickled by running its code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError("no such checkpoint", where=str(path), hint="check the path of `checkpoint`")
    tree = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = {name: _widened(tensor) for name, tensor in _state_of(tree, path).items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_state(module: nn.Module, path: Path) -> None:
    """Copy a checkpoint into a module, in place; every tensor must be there and fit.

    Only a batch norm's `num_batches_tracked` may be missing (older checkpoints have none; inference ignores it).

    Raises:
        ModelError: names or shapes differ (they are listed), a value is not finite, or see `read_state`.
    """
    state = read_state(path)
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    differing = [
        f"{name} is {tuple(state[name].shape)}, the model's {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or differing:
        parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", differing)]
        raise ModelError(
            "a checkpoint of another architecture: "
            + "; ".join(_listed(label, names) for label, names in parts if names),
            where=str(path),
            hint="check the model's name, its arguments and num_classes against the checkpoint",
        )
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ModelError(
            f"the checkpoint holds values that are not finite, {_listed('in', broken)}",
            where=str(path),
            hint="use a checkpoint from before the training diverged",
        )
    module.load_state_dict(state, strict=False)


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


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(str(path)))
    except SafetensorError as error:
        raise ModelError(f"not a whole safetensors file: {error}", where=str(path), hint="copy it again") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "this checkpoint is a pickle that holds more than tensors; pickles are never executed here",
            where=str(path),
            hint="where you trust it, convert it once: safetensors.torch.save_file("
            "torch.load(file, weights_only=False)['state_dict'], 'weights.safetensors')",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"torch cannot read this checkpoint: {str(error).splitlines()[0] if str(error) else error!r}",
            where=str(path),
            hint="it is broken or no torch checkpoint; copy it again, or save it as .safetensors",
        ) from error


def _state_of(tree: Any, path: Path) -> dict[str, torch.Tensor]:
    """The mapping of tensors in a checkpoint's tree."""
    while isinstance(tree, Mapping):
        nested = next((tree[key] for key in _NESTS if isinstance(tree.get(key), Mapping)), None)
        if nested is None:
            break
        tree = nested
    if not isinstance(tree, Mapping) or not tree:
        raise ModelError(
            f"the checkpoint holds a {type(tree).__name__}, not a state dict",
            where=str(path),
            hint="save model.state_dict()",
        )
    others = [str(name) for name, value in tree.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ModelError(
            f"the checkpoint's entries are not all tensors: {', '.join(others[:_LISTED])}",
            where=str(path),
            hint=f"save model.state_dict(), alone or under one of {', '.join(_NESTS[:2])}",
        )
    return {str(name): tensor for name, tensor in tree.items()}


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _listed(label: str, names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{label} {', '.join(names[:_LISTED])}{more}"
