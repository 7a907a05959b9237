"""What a factory gave, made plain: an ordinary float32 module on the CPU whose weights are parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from edgeprune.errors import ModelError, listed
from edgeprune.models.answers import as_one
from edgeprune.models.factory import fixed_seed, users_code
from edgeprune.models.inputs import take_packed
from edgeprune.models.spec import ModelSpec

_SAME = 1e-5  # of the largest answer: how far folding a parametrization may move answers


def made_plain(module: nn.Module, spec: ModelSpec) -> tuple[nn.Module, list[str]]:
    """The module without wrappers (torch.compile, DataParallel), with its lazy layers made, as float32 on the CPU, in
    eval mode; and what was done, in words. A module of several inputs takes them in one tensor from now on.

    The parametrizations stay until the weights are in: see `fold_parametrizations`.

    Raises:
        ModelError: it is a torch.jit module or has one, its weights are on the meta device, quantized, sparse or no
            tensors, its lazy layers cannot be made by an input of this size, or it does not take the spec's inputs.
    """
    said, where = [], spec.source
    module, wrappers = _unwrapped(module)
    if wrappers:
        said.append(f"taken out of its wrapper: {', '.join(sorted(wrappers))}")
    scripted = [
        name or "the model" for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)
    ]
    if scripted:
        raise ModelError(
            f"{listed(scripted)} is a torch.jit module: a program that cannot be pruned",
            where=where,
            hint="give the factory that makes the module before torch.jit.script or torch.jit.trace",
        )
    module.eval()
    if spec.inputs:
        take_packed(module, spec.inputs, where)
    if any(is_lazy(tensor) for tensor in _tensors(module)):
        hint = "give layers their sizes, or check input_size"
        with fixed_seed(), torch.no_grad(), users_code("the lazy layers cannot be made", where, hint):
            module(torch.zeros(2, *spec.input_size))
        left = [name for name, t in module.state_dict().items() if is_lazy(t)]
        if left:
            raise ModelError(f"lazy layers that the model does not run: {listed(left)}", where=where, hint=hint)
        said.append("its lazy layers were made")
    if any(tensor.is_meta for tensor in _tensors(module)):
        raise ModelError("its weights are on the meta device: there are none", where=where, hint="make them on the CPU")
    _refuse_unusual_tensors(module, where)
    kinds = {t.dtype for t in _tensors(module) if t.is_floating_point()} - {torch.float32}
    if kinds:
        module.float()
        said.append(f"its {' and '.join(sorted(str(k).removeprefix('torch.') for k in kinds))} weights became float32")
    return module.cpu().eval(), said


def _refuse_unusual_tensors(module: nn.Module, where: str) -> None:
    """Weights that are not plain arrays of numbers cannot be cut, trained or written down."""
    inferred = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_inference()]
    if inferred:
        raise ModelError(
            f"{listed(inferred)} was made under torch.inference_mode, and can never be trained",
            where=where,
            hint="let the factory make the model outside of it",
        )
    packed = [name for name, part in module.named_modules() if ".quantized" in type(part).__module__]
    tensors = (*module.named_parameters(), *module.named_buffers())
    quantized = [*packed, *(name for name, tensor in tensors if tensor.is_quantized)]
    if quantized:
        raise ModelError(
            f"{listed(quantized)} is quantized: what is pruned is the model before it is quantized",
            where=where,
            hint="give the factory that makes it in float, and its checkpoint; EdgePrune quantizes at export",
        )
    other = [name for name, tensor in tensors if tensor.layout != torch.strided or tensor.is_nested]
    if other:
        hint = "keep it dense: tensor.to_dense()"
        raise ModelError(f"{listed(other)} is a sparse or nested tensor", where=where, hint=hint)
    extra = [name for name, value in module.state_dict().items() if not isinstance(value, torch.Tensor)]
    if extra:
        raise ModelError(
            f"its state holds what is no tensor: {listed(extra)}",
            where=where,
            hint="keep it out of the state (get_extra_state), or keep it as a buffer",
        )


def is_parametrized(module: nn.Module) -> bool:
    """Whether some of its weights are made from others at each call."""
    return next(_folds(module), None) is not None


def fold_parametrizations(module: nn.Module, example: torch.Tensor, where: str) -> list[str]:
    """Compute the weights that are made from others (weight_norm, spectral_norm, torch.nn.utils.parametrize and prune)
    once, in place; returns what was folded, in words.

    Raises:
        ModelError: a weight cannot be computed, or the answers change.
    """
    folds = list(_folds(module))
    if not folds:
        return []
    names = sorted({name for name, _ in folds})
    with fixed_seed(), torch.no_grad():
        with users_code("the model does not run", where, "check input_size"):
            before = as_one(module(example.clone()))
        what = f"the parametrization of {listed(names)} cannot be folded"
        with torch.enable_grad(), users_code(what, where, "remove it in the factory"):
            for _, fold in folds:  # with gradients: what is computed from weights that train, trains
                fold()
        with users_code("the model does not run without its parametrizations", where, "remove them in the factory"):
            after = as_one(module(example.clone()))
    if before.shape != after.shape or (before - after).abs().max() > _SAME * before.abs().max().clamp(min=1):
        raise ModelError(
            f"the model answers otherwise without the parametrization of {listed(names)}",
            where=where,
            hint="remove it in the factory (torch.nn.utils.parametrize.remove_parametrizations)",
        )
    for parameter in module.parameters():
        parameter.grad = None
    return [f"computed once, and plain weights from now on: {listed(names)} (parametrized)"]


def _folds(module: nn.Module) -> Iterator[tuple[str, Callable[[], object]]]:
    for path, part in list(module.named_modules()):
        if parametrize.is_parametrized(part):
            for name in list(part.parametrizations):
                yield f"{path}.{name}", lambda p=part, n=name: parametrize.remove_parametrizations(p, n)  # type: ignore[misc]
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                yield f"{path}.{hook.name}", lambda p=part, n=hook.name: remove_weight_norm(p, n)  # type: ignore[misc]
            elif isinstance(hook, SpectralNorm):
                yield f"{path}.{hook.name}", lambda p=part, n=hook.name: _remove_spectral_norm(p, n)  # type: ignore[misc]
            elif isinstance(hook, prune.BasePruningMethod):
                tensor = hook._tensor_name
                yield f"{path}.{tensor}", lambda p=part, n=tensor: prune.remove(p, n)  # type: ignore[misc]


def _remove_spectral_norm(part: nn.Module, name: str) -> None:
    remove_spectral_norm(part, name)
    for key, hook in list(part._load_state_dict_pre_hooks.items()):  # torch wraps it, and does not find it again
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del part._load_state_dict_pre_hooks[key]


def _unwrapped(module: nn.Module) -> tuple[nn.Module, set[str]]:
    """Without the wrappers around it and its parts."""
    found: set[str] = set()
    while (inner := _inside(module)) is not None:
        found.add(type(module).__name__)
        module = inner
    for part in list(module.modules()):
        if getattr(part, "_compiled_call_impl", None) is not None:
            part._compiled_call_impl = None
            found.add("torch.compile")
        for name, child in list(part._modules.items()):
            while child is not None and (inner := _inside(child)) is not None:
                found.add(type(child).__name__)
                child = inner  # noqa: PLW2901
                part._modules[name] = child
    return module, found


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper holds; None for other modules."""
    kinds = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel)
    compiled = type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch._dynamo")
    inner = module._modules.get("_orig_mod") if compiled else module.module if isinstance(module, kinds) else None
    return inner if isinstance(inner, nn.Module) else None


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
