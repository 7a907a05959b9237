"""What keeps a GPU busy in the training of a small net: its passes recorded once and replayed.

The kernels of a pruned ConvNet take less time than launching them one by one does (benchmarks/gpu_step.py).
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

from edgeprune.errors import ModelError


def recorded(module: nn.Module, images: torch.Tensor, *, precision: torch.dtype | None) -> nn.Module:
    """A module that answers as `module` does in train mode, its forward and its backward pass replayed as CUDA graphs.

    Weights, gradients and batch norm statistics are those of `module`, which stays as it is. What its `forward` decides
    in Python is decided here, once and for all. An answer lasts until the next one: it is in the same memory.

    Args:
        module: on a GPU.
        images: a batch there, of the shape and layout that every batch will have.
        precision: of autocast, or None.

    Raises:
        ModelError: the module asks its own tensors for numbers, or does something else that a graph cannot hold. CUDA's
            own random numbers cannot be drawn in this process after that (seen with torch 2.11).
    """
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    whole = _Whole(module).train()
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # that gradients were set up on another stream
            torch.random.fork_rng(),
            torch.autocast("cuda", precision, enabled=precision is not None, cache_enabled=False),
        ):
            torch.cuda.make_graphed_callables(whole, (images,), allow_unused_input=True)  # replaces its `forward`
    except RuntimeError as error:
        raise ModelError(
            f"the model's pass cannot be recorded as a CUDA graph: {str(error).splitlines()[0]}",
            where="tune",
            hint="set `cuda_graphs = false` in [tune], and begin a new process",
        ) from error
    module.load_state_dict(kept)  # recording runs the module a few times, of which its batch norms took note
    return whole


class _Whole(nn.Module):
    """A module inside another, which keeps its own `forward`: copies of it are whole."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(images)
        return answers
