"""From a name to a model: a timm model, or what the user's own factory makes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.errors import ModelError, listed
from edgeprune.labels import check_labels, read_labels
from edgeprune.models.answers import ONLY, answer_flat, outputs_of
from edgeprune.models.attention import has_attention, write_attention, write_plainly, written_plainly
from edgeprune.models.checkpoint import Loaded, load_state, not_finite
from edgeprune.models.factory import SEED, call_factory, fixed_seed, users_code
from edgeprune.models.inputs import how_to_give, inputs_of, told
from edgeprune.models.plain import fold_parametrizations, is_parametrized, made_plain
from edgeprune.models.spec import InputSpec, Model, ModelSpec, OutputSpec, Preprocessing, packed_size
from edgeprune.models.taking import Weights
from edgeprune.models.timm_import import import_timm
from edgeprune.models.trust import canonical, is_timm, remember
from edgeprune.recipe import ModelSection, input_size_fault, inputs_fault


def load(
    source: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    input_size: tuple[int, int, int] | None = None,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    labels: tuple[str, ...] = (),
    weights: Weights | None = None,
) -> Model:
    """Load a model in eval mode on the CPU.

    Args:
        source: a timm name (also written `timm:NAME`), `package.module:factory` or `path/file.py:factory`; the
            working directory, and the file's own folder, can be imported from.
        arguments: keyword arguments of timm's `create_model` or of the factory.
        pretrained: let timm load its weights (from its cache or the hub).
        checkpoint: weights to load instead, see `checkpoint.load_state`. Without either the weights are random,
            the same at each call.
        num_classes: for timm, the classifier's size; for a factory, checked against what it answers.
        input_size: channels, height, width; timm models know theirs, a factory's must be given.
        inputs: instead of it, for a factory whose model takes several inputs, or one that is no image: the shape of
            each for one example, by name; see `edgeprune.models.inputs`.
        mean, std: per channel, on images scaled to 0..1; timm models know theirs, a factory's default to 0 and 1
            (the image is only scaled).
        labels: the class names, one for each class.
        weights: of a checkpoint that holds averaged (EMA) and raw weights, which are meant.

    Raises:
        ModelError: an unknown name, a factory that cannot be imported or fails, a checkpoint that does not fit,
            an input size the model does not run at, outputs that are not one row of numbers for each image.
    """
    if pretrained and checkpoint is not None:
        raise ModelError("both `pretrained` and `checkpoint` are given", where=source, hint="give one of them")
    _check_input_size(input_size, source)
    taken = _inputs(inputs, source, (input_size, mean, std))
    if is_timm(source):
        spec, module = _timm_model(source, dict(arguments or {}), pretrained, num_classes, input_size)
    else:
        spec, module = _factory_model(source, dict(arguments or {}), pretrained, input_size, taken)
    remember(spec.source, spec.arguments)
    module, said = made_plain(module, spec)
    spec = spec.model_copy(update={"inputs": inputs_of(module)})  # in the order of its forward
    form = answer_flat(module, _example(spec), spec.source)
    loaded = None
    if checkpoint is not None:
        loaded = _load_weights(module, spec, checkpoint, weights)
        said = [*([f"{checkpoint}: {loaded.said}"] if loaded.said else []), *said]
    said += fold_parametrizations(module, _example(spec), spec.source)
    write_attention(module, _example(spec), spec.source)
    written = written_plainly(module)
    if written:
        said.append(f"{len(written)} nn.MultiheadAttention written as plain layers")
    _check_finite(module, spec.source)
    outputs = _look_at_answers(module, spec, form.names)
    classes = outputs[0].shape[1] if len(outputs[0].shape) > 1 else 1
    if num_classes not in (None, classes):
        raise ModelError(
            f"the model answers {classes} classes, num_classes is {num_classes}",
            where=spec.source,
            hint="give the factory its number of classes through `arguments`",
        )
    if labels and len(check_labels(labels, where="labels")) != max(2, classes):
        raise ModelError(f"{len(labels)} labels for {classes} classes", where=spec.source, hint="one label a class")
    preprocessing = _preprocessing(spec.preprocessing, spec.input_size[0], mean, std, spec.source)
    told = {
        "num_classes": classes,
        "outputs": outputs,
        "labels": labels,
        "preprocessing": preprocessing,
        "written_plainly": written,
    }
    spec = spec.model_copy(update=told)
    return Model(spec=spec, module=module, checkpoint=checkpoint, loaded=loaded, said=tuple(said))


def _check_input_size(size: tuple[int, ...] | None, where: str) -> None:
    """Of a caller's: a recipe's is checked there."""
    if size is None or not (fault := input_size_fault(size)):
        return
    raise ModelError(f"the input size {tuple(size)} is none: {fault}", where=where, hint="give one like (3, 224, 224)")


def _inputs(
    shapes: Mapping[str, tuple[int, ...]] | None, where: str, of_images: tuple[object, ...]
) -> tuple[InputSpec, ...]:
    """Of a caller's: a recipe's are checked there."""
    if shapes is None:
        return ()
    fault = "they are those of a factory" if is_timm(where) else inputs_fault(shapes)
    if not fault and any(given is not None for given in of_images):
        fault = "input_size, mean and std are of a model that takes an image"
    if fault:
        raise ModelError(f"the inputs {dict(shapes)} are none: {fault}", where=where, hint="see docs/tasks.md")
    return tuple(InputSpec(name=name, shape=tuple(shape)) for name, shape in shapes.items())


def load_from(section: ModelSection) -> Model:
    """Load the model of a recipe; see `load`."""
    return load(
        section.source,
        arguments=section.arguments,
        pretrained=section.pretrained,
        checkpoint=section.checkpoint,
        num_classes=section.num_classes,
        input_size=section.input_size,
        inputs=section.inputs,
        mean=section.mean,
        std=section.std,
        weights=section.weights,
        labels=_labels_of(section),
    )


def _labels_of(section: ModelSection) -> tuple[str, ...]:
    if isinstance(section.labels, Path):
        return read_labels(section.labels.expanduser())
    return () if section.labels is None else check_labels(section.labels, where="model.labels")


def _load_weights(module: nn.Module, spec: ModelSpec, checkpoint: Path, weights: Weights | None) -> Loaded:
    """Load a checkpoint of the model as its factory makes it, or else of a plain form of it: without parametrizations,
    then with attention as plain layers."""
    try:
        return load_state(module, checkpoint, weights=weights)
    except ModelError as error:
        if not (is_parametrized(module) or has_attention(module)):
            raise
        as_made = error
    if is_parametrized(module):
        fold_parametrizations(module, _example(spec), spec.source)
        try:
            return load_state(module, checkpoint, weights=weights)
        except ModelError as error:
            as_made = error
    write_attention(module, _example(spec), spec.source)
    try:
        return load_state(module, checkpoint, weights=weights)
    except ModelError:
        raise as_made from None  # its user knows the names that the factory gives


def build(spec: ModelSpec, *, seed: int = SEED) -> nn.Module:
    """The architecture of a spec, in eval mode, with the random weights that `load` gives without a checkpoint.

    It runs what the spec names: ask `trust.require` first where the spec is a run folder's.

    Raises:
        ModelError: timm does not know the name any more, or the factory cannot be imported or fails.
    """
    if spec.source.startswith("timm:"):
        name = spec.source.removeprefix("timm:")
        module = _create_timm(name, pretrained=False, arguments=dict(spec.arguments), seed=seed)
    else:
        module = call_factory(spec.source, spec.arguments, seed=seed)
    module, _ = made_plain(module, spec)
    if len(spec.outputs) > 1 or any(output.name != ONLY for output in spec.outputs):
        answer_flat(module, _example(spec), spec.source)
    fold_parametrizations(module, _example(spec), spec.source)
    write_plainly(module, spec.written_plainly, spec.source)
    return module


def _example(spec: ModelSpec) -> torch.Tensor:
    return torch.randn(1, *spec.input_size, generator=torch.Generator().manual_seed(SEED))


def _timm_model(
    source: str,
    arguments: dict[str, Any],
    pretrained: bool,
    num_classes: int | None,
    input_size: tuple[int, int, int] | None,
) -> tuple[ModelSpec, nn.Module]:
    """Spec and module of a timm model. The spec's arguments hold all that create_model needs again."""
    name = source.removeprefix("timm:")
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if input_size is not None:
        arguments |= _timm_input_arguments(name, input_size, arguments)
    module = _create_timm(name, pretrained=pretrained, arguments=arguments)
    config = import_timm().data.resolve_model_data_config(module)
    channels = arguments.get("in_chans", config["input_size"][0])
    spec = ModelSpec(
        source=f"timm:{name}",
        arguments=arguments,
        input_size=input_size or (channels, *config["input_size"][1:]),
        num_classes=1,  # counted later, on the model's answer
        preprocessing=Preprocessing(
            mean=_for_channels(config["mean"], channels),
            std=_for_channels(config["std"], channels),
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
        ),
        versions={"torch": torch.__version__, "timm": version("timm")},
    )
    return spec, module


def _timm_input_arguments(name: str, input_size: tuple[int, int, int], given: dict[str, Any]) -> dict[str, Any]:
    """What create_model must be told so that the model takes this input (in_chans; img_size where it is fixed)."""
    timm = import_timm()
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    extra: dict[str, Any] = {}
    if input_size[0] != 3 and "in_chans" not in given:
        extra["in_chans"] = input_size[0]
    fixed = config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != input_size[1:]
    if fixed and "img_size" not in given:
        extra["img_size"] = list(input_size[1:])
    return extra


def _create_timm(name: str, *, pretrained: bool, arguments: dict[str, Any], seed: int = SEED) -> nn.Module:
    timm = import_timm()
    if ":" not in name and not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "list the names with timm.list_models()"
        raise ModelError(f"timm has no model `{name}`", hint=hint)
    try:
        with fixed_seed(seed):
            module: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        if pretrained or ":" in name:
            raise ModelError(
                f"timm could not load `{name}` from the hub: {_first_line(error)}",
                hint="the model hub has to be in reach (or its cache filled); else give the weights as `checkpoint`",
            ) from error
        raise ModelError(
            f"timm could not create `{name}`: {_first_line(error)}", hint="check the model's arguments and input_size"
        ) from error
    return module


def _factory_model(
    source: str,
    arguments: dict[str, Any],
    pretrained: bool,
    input_size: tuple[int, int, int] | None,
    inputs: tuple[InputSpec, ...],
) -> tuple[ModelSpec, nn.Module]:
    """Spec and module of the user's factory; a file's path is made absolute so that any process finds it."""
    size = packed_size(inputs) if inputs else input_size
    if size is None:
        raise ModelError(
            "the input size of a factory's model has to be given", where=source, hint="add input_size = [3, 32, 32]"
        )
    if pretrained:
        raise ModelError(
            "`pretrained` is for timm models", where=source, hint="give the weights as `checkpoint`, or load them there"
        )
    source = canonical(source)
    channels = size[0]
    spec = ModelSpec(
        source=source,
        arguments=arguments,
        input_size=size,
        inputs=inputs,
        num_classes=1,
        preprocessing=Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, interpolation="bilinear"),
        versions={"torch": torch.__version__},
    )
    return spec, call_factory(source, arguments)


def _look_at_answers(module: nn.Module, spec: ModelSpec, names: tuple[str, ...]) -> tuple[OutputSpec, ...]:
    """Run the model once; each of its outputs must be floats, the first axis the image."""
    example = _example(spec)
    given = example.clone()
    what = f"the model does not run on {told(module, example)}"
    with fixed_seed(), torch.no_grad(), users_code(what, spec.source, how_to_give(module)):
        outputs = outputs_of(module(given))
    if not torch.equal(given, example):
        raise ModelError(
            "the model changes its input in place: all that see the same images after it would see others",
            where=spec.source,
            hint="let it make new tensors: x = x * 2 instead of x.mul_(2), no inplace=True on the input",
        )
    for name, output in zip(names, outputs, strict=True):
        if output.ndim == 0 or output.shape[0] != 1 or not output.is_floating_point():
            kind = str(output.dtype).removeprefix("torch.")
            raise ModelError(
                f"the model's {name} is {kind} of shape {tuple(output.shape)} for one image",
                where=spec.source,
                hint="let it answer floats whose first axis is the image (no .argmax() at its end, no .squeeze()), and "
                "leave out what is the same for all images",
            )
    return tuple(OutputSpec(name=name, shape=tuple(output.shape)) for name, output in zip(names, outputs, strict=True))


def _preprocessing(
    base: Preprocessing, channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, where: str
) -> Preprocessing:
    chosen = base.model_copy(update={"mean": mean or base.mean, "std": std or base.std})
    if len(chosen.mean) != channels or len(chosen.std) != channels:
        raise ModelError(
            f"mean and std must have one value for each of {channels} channels",
            where=where,
            hint=f"got mean {chosen.mean}, std {chosen.std}",
        )
    if any(value <= 0 for value in chosen.std):
        raise ModelError(f"std must be positive, got {chosen.std}", where=where)
    return chosen


def _check_finite(module: nn.Module, where: str) -> None:
    broken = not_finite(module.state_dict(), module)
    if broken:
        raise ModelError(
            f"weights are not finite: {listed(broken)}",
            where=where,
            hint="use weights from before the training diverged",
        )


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """A mean or std for another number of channels: that of RGB, averaged."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
