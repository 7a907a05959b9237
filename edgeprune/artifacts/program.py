"""The traced program that a conversion child is given, so that it never needs the user's factory code."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import torch
from torch import nn

from edgeprune.graph.trace import trace
from edgeprune.models.spec import Model
from edgeprune.runs import write_atomic
from edgeprune.space.branches import fold_removed


def save_program(model: Model, path: Path) -> None:
    """Trace the model with batch 1 in eval mode on the CPU and save the ExportedProgram (.pt2).

    Raises:
        ModelError: the model cannot be traced.
    """
    module = on_cpu(model.module)
    program = trace(module, model.example_input())
    fold_removed(program)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines and folders of this machine: no file needs them
    data = io.BytesIO()  # on a full disk torch's own writer ends the process (std::terminate), ours says what is wrong
    torch.export.save(program, data)
    write_atomic(path, data.getvalue())


def on_cpu(module: nn.Module) -> nn.Module:
    """The module in eval mode with float32 parameters on the CPU; a copy where it is not so already."""
    tensors = [*module.parameters(), *module.buffers()]
    ready = all(t.device.type == "cpu" and (not t.is_floating_point() or t.dtype == torch.float32) for t in tensors)
    if ready and not any(child.training for child in module.modules()):
        return module
    return copy.deepcopy(module).to("cpu", torch.float32).eval()
