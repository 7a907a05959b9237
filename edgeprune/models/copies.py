"""Are copies of a model the model? EdgePrune trains and judges copies, and builds a model again in other processes.

A few forward passes at load tell: built again (other seeds), copied, asked twice, asked alone and in a batch, in
training mode. What a model keeps outside of its weights, draws, or changes as it answers is found here, not in a
figure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from edgeprune.errors import ModelError, listed
from edgeprune.models.answers import as_one, outputs_of, tensors_in
from edgeprune.models.factory import SEED, fixed_seed, users_code
from edgeprune.models.load import build
from edgeprune.models.spec import Model

_CLOSE = 1e-4  # of the largest answer: more than kernels for other batch sizes differ by, less than another model does
_OTHER = 271828  # a seed that `build` does not take
_OWN_STATE = "state_dict() and load_state_dict() have to go together: see its state_dict hooks"
_GRADIENTLESS = 0.1  # of the weights of convolutions and linear layers


def check_copies(model: Model, *, trains: bool = True) -> list[str]:
    """Refuse a model whose copies are not the model; returns what is worth saying of it.

    Args:
        trains: it will be trained: then something in it has to be trainable.

    Raises:
        ModelError: what differs, and where.
    """
    module, where = model.module, model.spec.source
    x = model.example_input(3, seed=1)
    expected = _asked_alike(module, x, where)
    _batches_alike(module, x, expected, where)
    twin = _copied(module, x, expected, where)
    with torch.no_grad():
        _disturb(twin)
    disturbed = _answer(twin, x, where)
    builds = [build(model.spec, seed=seed) for seed in (SEED, _OTHER)]
    _built_alike(module, builds, where)
    for again in builds:
        with users_code("its own state does not fit a new build of it", where, _OWN_STATE):
            again.load_state_dict(module.state_dict())
        answer, what = _answer(again, x, where), "built again with the same weights, it is another model"
        _compare(answer, expected, what, module, again, where)
    again.load_state_dict(twin.state_dict())
    _compare(
        disturbed,
        _answer(again, x, where),
        "a copy of it answers with the original's weights: a hook or closure in it holds on to the original",
        module,
        None,
        where,
    )
    return _trained_alike(module, x, where, trains=trains)


def _asked_alike(module: nn.Module, x: Tensor, where: str) -> Tensor:
    """The answer, which has to be the same again, whatever the generators say, and to change nothing."""
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    answers = [_answer(module, x, where, seed=seed) for seed in (0, _OTHER)]
    changed = [n for n, t in module.state_dict().items() if t.is_floating_point() and not torch.equal(t, before[n])]
    if changed:
        raise ModelError(
            f"it changes as it answers, in eval mode: {listed(changed)}",
            where=where,
            hint="let it change its buffers in training mode only (if self.training)",
        )
    broken = [answer for answer in answers if not answer.isfinite().all()]
    if broken:
        raise ModelError(
            "the model answers NaN or infinity to random images",
            where=where,
            hint="check its weights, model.mean and model.std",
        )
    if not _close(answers[0], answers[1]):
        raise ModelError(
            f"asked twice, it answers differently in eval mode (by {_apart(*answers):.3g})",
            where=where,
            hint="something in it is random: F.dropout without training=self.training, noise, or a state it keeps",
        )
    return answers[0]


def _batches_alike(module: nn.Module, x: Tensor, expected: Tensor, where: str) -> None:
    alone = torch.cat([_answer(module, one[None], where) for one in x])
    if not _close(alone, expected):
        raise ModelError(
            f"it answers an image otherwise in a batch than alone (by {_apart(alone, expected):.3g})",
            where=where,
            hint="it mixes the images of a batch (batch norms without running statistics, a mean over dimension 0); "
            "exported files get one image at a time",
        )


def _copied(module: nn.Module, x: Tensor, expected: Tensor, where: str) -> nn.Module:
    with users_code("it cannot be copied (copy.deepcopy)", where, "keep no activations, locks or files in attributes"):
        twin = copy.deepcopy(module)
    _compare(_answer(twin, x, where), expected, "a copy of it (copy.deepcopy) is another model", module, twin, where)
    return twin


def _built_alike(module: nn.Module, builds: list[nn.Module], where: str) -> None:
    """The names and shapes of all weights; and, of two builds that have not answered yet, what weights do not hold."""
    shapes, *others = ({name: tuple(t.shape) for name, t in one.state_dict().items()} for one in (module, *builds))
    for other in others:
        if shapes != other:
            names = sorted(name for name in shapes.keys() | other.keys() if shapes.get(name) != other.get(name))
            raise ModelError(
                f"built again, it has other weights: {listed(names)}",
                where=where,
                hint="let the factory make the same layers at each call; draw nothing at random there",
            )
    kept, others_kept = (dict(_kept(one)) for one in builds)
    differing = sorted(
        name for name in kept.keys() | others_kept.keys() if not _equal(kept.get(name), others_kept.get(name))
    )
    if differing:
        raise ModelError(
            f"built again, it differs in what its weights do not hold: {listed(differing)}",
            where=where,
            hint="the factory draws it at random (or takes it from the time, a counter): fix it there with a seed of "
            "its own, or keep it in a persistent buffer",
        )


def _kept(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays that a module keeps and its state dict does not hold."""
    saved = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    for path, part in module.named_modules():
        at = f"{path}." if path else ""
        for name, tensor in part._buffers.items():
            if tensor is not None and id(tensor) not in saved:
                yield f"{at}{name}", tensor
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for place, kept in _arrays(f"{at}{name}", value, 0):
                    if id(kept) not in saved:  # a recurrent layer lists its own parameters
                        yield place, kept


def _arrays(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensor | np.ndarray):
        yield name, value
    elif isinstance(value, Mapping) and depth < 3:
        for key, part in value.items():
            yield from _arrays(f"{name}[{key!r}]", part, depth + 1)
    elif isinstance(value, list | tuple) and depth < 3:
        if value and all(isinstance(part, int) for part in value):
            yield name, np.array(value)  # an order of channels is a list of numbers as often as an array
            return
        for number, part in enumerate(value):
            yield from _arrays(f"{name}[{number}]", part, depth + 1)


def _trained_alike(module: nn.Module, x: Tensor, where: str, *, trains: bool) -> list[str]:
    """What training mode does: a tensor like in eval mode, differentiable, and copies can be made after it."""
    said = []
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    total = sum(1 for _ in module.parameters())
    if trains and frozen and len(frozen) == total:
        raise ModelError(
            "no parameter of it trains (requires_grad is False for all)",
            where=where,
            hint="let the factory leave requires_grad on, or set tune.epochs = 0",
        )
    if frozen:
        said.append(f"{len(frozen)} of {total} parameters are frozen (requires_grad) and stay so: {listed(frozen)}")
    twin = copy.deepcopy(module).train()
    for parameter in twin.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    called: set[str] = set()
    for name, part in twin.named_modules():
        part.register_forward_pre_hook(lambda *_, n=name: called.add(n))
    before = {name: parameter.detach().clone() for name, parameter in twin.named_parameters()}
    given = x.clone()
    with fixed_seed(), torch.no_grad():
        expected = module(given)
    with fixed_seed(), torch.enable_grad(), users_code("it does not run in training mode", where, "see its forward"):
        outputs = tensors_in(twin(given))
    shapes, known = ([tuple(output.shape) for output in each] for each in (outputs, outputs_of(expected)))
    if shapes != known:
        got, meant = (shape[0] if len(shape) == 1 else shape for shape in (shapes, known))
        raise ModelError(
            f"in training mode it answers {got}, in eval mode {meant}",
            where=where,
            hint="what it answers in eval mode is trained: leave auxiliary heads out (aux_logits = false)",
        )
    if not torch.equal(given, x):
        raise ModelError("it changes its input in place, in training mode", where=where, hint="let it make new tensors")
    changed = [name for name, parameter in twin.named_parameters() if not torch.equal(parameter, before[name])]
    if changed:
        raise ModelError(f"its forward changes its own parameters: {listed(changed)}", where=where)
    kept = [name for name, tensor in _kept(twin) if isinstance(tensor, Tensor) and tensor.grad_fn is not None]
    if kept:
        raise ModelError(
            f"it keeps activations in attributes: {listed(kept)}; after a step of training no copy of it can be made",
            where=where,
            hint="keep them detached (x.detach()), or return them nowhere",
        )
    return said + _gradients(twin, as_one(tuple(outputs)), called, where)


def _gradients(twin: nn.Module, answer: Tensor, called: set[str], where: str) -> list[str]:
    """Which layers that ran get no gradient: their scores would be zero, and nothing there would be trained."""
    what = "nothing in it can be trained: no gradient gets through"
    hint = "its forward runs under torch.no_grad, or detaches: to freeze layers, use requires_grad_(False) instead"
    if answer.grad_fn is None:
        raise ModelError(what, where=where, hint=hint)
    with users_code("no gradient can be computed", where, hint):
        answer.square().sum().backward()
    layers = {
        name: part.weight
        for name, part in twin.named_modules()
        if name in called and isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
    }
    without = [name for name, weight in layers.items() if weight.grad is None]
    share = sum(layers[name].numel() for name in without) / max(1, sum(weight.numel() for weight in layers.values()))
    if share > _GRADIENTLESS:
        raise ModelError(f"no gradient reaches {listed(without)}: scores there would be zero", where=where, hint=hint)
    return [f"no gradient reaches {listed(without)}: it is not trained"] if without else []


def _answer(module: nn.Module, x: Tensor, where: str, *, seed: int = 0) -> Tensor:
    with fixed_seed(seed), torch.no_grad(), users_code("the model does not run", where, "see its forward"):
        outputs = outputs_of(module(x.clone()))
    for output in outputs:
        if output.shape[:1] != x.shape[:1]:
            got = tuple(output.shape)
            raise ModelError(f"to {len(x)} images it answers {got}", where=where, hint="one row for each image")
    return as_one(outputs)


def _compare(
    found: Tensor, expected: Tensor, what: str, module: nn.Module, other: nn.Module | None, where: str
) -> None:
    if found.shape == expected.shape and _close(found, expected):
        return
    places = _parting(module, other) if other is not None else []
    raise ModelError(
        f"{what} (answers differ by {_apart(found, expected):.3g})" + (f": see {listed(places)}" if places else ""),
        where=where,
        hint="what it computes has to come from its weights and buffers, and from the factory's arguments, alone",
    )


def _parting(module: nn.Module, other: nn.Module) -> list[str]:
    """Plain attributes in which two builds differ."""
    parts, found = dict(other.named_modules()), []
    for path, part in module.named_modules():
        twin = vars(parts[path]) if path in parts else {}
        for name, value in vars(part).items():
            plain = isinstance(value, bool | int | float | str | list | tuple | np.ndarray | Tensor)
            if plain and not _equal(value, twin.get(name)):
                found.append(f"{path}.{name}" if path else name)
    return found


def _disturb(module: nn.Module) -> None:
    """Other weights, reproducibly, so that what reads the original's shows; norms stay positive."""
    generator = torch.Generator().manual_seed(1)
    for tensor in {id(t): t for t in (*module.parameters(), *_running(module))}.values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))


def _running(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        if isinstance(part, _NormBase) and part.running_mean is not None and part.running_var is not None:
            yield part.running_mean
            yield part.running_var


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype
        return alike and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # of tensors in lists
        return False


def _close(one: Tensor, other: Tensor) -> bool:
    return _apart(one, other) <= _CLOSE * max(1e-6, float(other.abs().max()))


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")
