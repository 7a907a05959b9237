"""The optimizer of a recipe, and what it remembers of each parameter, by name: that goes into snapshots, and to the
parts of a model that is pruned meanwhile."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import EdgePruneError, RecipeError
from edgeprune.recipe import TuneSection

Value = Tensor | int | float | bool | None
State = dict[str, dict[str, Value]]  # parameter name -> key -> what is remembered; "" for what is no parameter's
WHOLE = ""
_SETTINGS = {"lr", "lr_scale", "initial_lr", "weight_decay"}  # of a group, beside the optimizer's own


def optimizer_of(module: nn.Module, settings: TuneSection) -> torch.optim.Optimizer:
    """The recipe's optimizer of a module's parameters that learn: SGD with Nesterov momentum, which decays no bias and
    no norm, or timm's of that name.

    Raises:
        RecipeError: there is none, or it cannot be made here.
    """
    if settings.optimizer == "sgd" and settings.layer_decay is None:
        learning = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.SGD(
            [
                {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
    check_name(settings.optimizer)
    from timm.optim import create_optimizer_v2

    try:
        made: torch.optim.Optimizer = create_optimizer_v2(
            module,
            opt=settings.optimizer,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            layer_decay=settings.layer_decay,
        )
    except Exception as error:  # each has its own reasons: a package, a GPU, a setting
        raise _cannot(settings.optimizer, error) from error
    return made


def check_name(name: str) -> None:
    """Check that timm has an optimizer.

    Raises:
        RecipeError: it has none of this name.
    """
    from edgeprune.models.timm_import import import_timm

    import_timm()
    from timm.optim import list_optimizers

    known = list_optimizers()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or ["sgd", "adamw", "lamb"]
        raise RecipeError(
            f"timm has no optimizer {name!r}", where="tune.optimizer", hint=f"did you mean {', '.join(near)}?"
        )


def check_optimizer(settings: TuneSection, *, in_turns: bool) -> None:
    """Try a recipe's optimizer on a small net, before hours of work.

    Args:
        in_turns: it goes on with parts of a model, whose shares of what it remembers have to be known.

    Raises:
        RecipeError: it cannot be made or run here, or what it remembers cannot be kept.
    """
    if settings.optimizer == "sgd":
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(32, 32))
        # The small net has no layers to tell apart.
        optimizer = optimizer_of(net, settings.model_copy(update={"layer_decay": None}))
        try:
            for _ in range(2):
                optimizer.zero_grad()
                net(torch.randn(2, 32, 3, 3)).square().sum().backward()
                optimizer.step()
        except Exception as error:
            raise _cannot(settings.optimizer, error) from error
    named = dict(net.named_parameters())
    for name, remembered in state_of(optimizer, named).items():
        other = [k for k, v in remembered.items() if isinstance(v, Tensor) and v.ndim and v.shape != named[name].shape]
        if in_turns and other:
            raise RecipeError(
                f"the optimizer {settings.optimizer} remembers {', '.join(other)} of a layer as a whole, and with "
                "prune.epochs layers lose channels and get them back while it trains",
                where="tune.optimizer",
                hint="take sgd, adamw or another that remembers each weight by itself; or leave prune.epochs out",
            )


def state_of(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> State:
    """What an optimizer remembers.

    Raises:
        RecipeError: something that no snapshot holds.
    """
    known = ((name, optimizer.state[p]) for name, p in named.items())
    state: State = {name: _plain(optimizer, remembered) for name, remembered in known if remembered}
    groups = {
        f"{number}.{key}": value
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key not in optimizer.defaults and key not in _SETTINGS and isinstance(value, int | float | bool | Tensor)
    }
    others = {str(key): value for key, value in optimizer.state.items() if isinstance(key, str)}
    return {**state, WHOLE: _plain(optimizer, {**groups, **{f"all.{key}": value for key, value in others.items()}})}


def put_state(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: State) -> None:
    """Let an optimizer go on with what one like it remembered."""
    for name, remembered in state.items():
        if name == WHOLE:
            _put_groups(optimizer, remembered)
        elif name in named:
            optimizer.state[named[name]] = {key: _placed(value, named[name]) for key, value in remembered.items()}


def _put_groups(optimizer: torch.optim.Optimizer, remembered: Mapping[str, Value]) -> None:
    for place, value in remembered.items():
        group, _, key = place.partition(".")
        if group == "all":
            optimizer.state[key] = value.clone() if isinstance(value, Tensor) else value  # type: ignore[index]
        elif int(group) < len(optimizer.param_groups):
            optimizer.param_groups[int(group)][key] = value.clone() if isinstance(value, Tensor) else value


def _placed(value: Value, parameter: nn.Parameter) -> Value:
    """A copy beside a parameter, in its layout where it has its shape."""
    if not isinstance(value, Tensor) or not value.ndim:
        return value.clone() if isinstance(value, Tensor) else value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
    return value.to(parameter.device, copy=True)


def _plain(optimizer: torch.optim.Optimizer, remembered: Mapping[str, Any]) -> dict[str, Value]:
    strange = [key for key, value in remembered.items() if not isinstance(value, Tensor | int | float | bool | None)]
    if strange:
        raise RecipeError(
            f"the optimizer {type(optimizer).__name__} remembers {', '.join(strange)} in a form that no snapshot holds",
            where="tune.optimizer",
            hint="take another: an interrupted training could not go on with this one",
        )
    return dict(remembered)


def _cannot(name: str, error: Exception) -> EdgePruneError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return RecipeError(
        f"the optimizer {name} cannot be used: {lines[0]}",
        where="tune.optimizer",
        hint="look at tune.lr, tune.weight_decay, tune.momentum and tune.layer_decay; some need a package or a GPU",
    )
