"""int8 for ExecuTorch: PT2E with the XNNPACK quantizer. Runs inside a conversion child."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.quantization.calibration import samples_of


def quantize_pt2e(program: ExportedProgram, calibration: Tensor) -> ExportedProgram:
    """The program in int8: see `quantize_samples`. `calibration` is (N, C, H, W) float32, or (N, 1, 1, numbers)."""
    return quantize_samples(program, samples_of(program, calibration))


def quantize_samples(program: ExportedProgram, samples: Sequence[tuple[Tensor, ...]]) -> ExportedProgram:
    """The program with int8 weights (symmetric, per channel) and int8 activations (affine, per tensor).

    `samples` are the program's inputs in float32, of the shapes that it takes. Activation ranges come from torchao's
    histogram observers, which choose the range of least quantization error: on CIFAR-10 ResNets as good as the plain
    extremes, and safer with outliers.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(_unshared(program.module()), quantizer)
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    converted = cast(nn.Module, convert_pt2e(prepared))
    return torch.export.export(converted, samples[0], strict=False)


def _unshared(module: nn.Module) -> nn.Module:
    """The module with weights of its own for each operator that reads some: a bias is stored in steps of its input's
    scale, which two operators do not share, and XNNPACK refuses a file in which they do."""
    assert isinstance(module, fx.GraphModule)
    read = set[str]()
    for node in list(module.graph.find_nodes(op="get_attr")):
        name = str(node.target)
        weight = operator.attrgetter(name)(module)
        for user in list(node.users) if isinstance(weight, nn.Parameter) else ():
            if name in read:
                holder, _, last = f"{name}_of_{user.name}".rpartition(".")
                own = nn.Parameter(weight.detach().clone(), requires_grad=False)
                module.get_submodule(holder).register_parameter(last, own)
                with module.graph.inserting_before(user):
                    copied = module.graph.get_attr(f"{name}_of_{user.name}")
                copied.meta = dict(node.meta)
                user.replace_input_with(node, copied)
            read.add(name)
    module.recompile()
    return module
