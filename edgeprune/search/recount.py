"""The real figures of a module: its parameters and its multiply-accumulates, counted on itself and by torch.

What a target asks for is chosen on paper, from the structure; it is checked here, on the model that comes out.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.models.modes import evaluating
from edgeprune.recipe import Target
from edgeprune.reparam.merge import merge


def real_cost(module: nn.Module, example: Tensor, target: Target) -> float:
    """Parameters, bytes (float32) or multiply-accumulates of a module, batch norms folded, as `counted_cost` budgets.

    Args:
        module: unchanged.
        example: one image, (1, C, H, W).

    Raises:
        ModelError: the model cannot be traced.
    """
    if target.unit in ("MMACs", "GMACs"):
        return float(real_macs(module, example))
    count = sum(parameter.numel() for parameter in merge(module, example).parameters())
    return float(count if target.unit in ("kparams", "Mparams") else 4 * count)


def real_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one image, of every convolution and matrix product that torch's counter knows."""
    plain = copy.deepcopy(module).requires_grad_(False)  # the counter stumbles over views of what trains
    fast, counter = torch.backends.mha.get_fastpath_enabled(), FlopCounterMode(display=False)
    written_out = (sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False))
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # whole layers in one operator are unknown to the counter
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # to switch oneDNN off warns of GPUs that are not there
            with evaluating(plain), torch.no_grad(), written_out[0], written_out[1], counter:
                plain(example[:1])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2
