"""A pruned model as a part of the whole one: where its tensors lie there, to be taken out and put back."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.space.cut import Removed, gone_indices
from edgeprune.space.units import Structure

Places = tuple[npt.NDArray[np.int64], ...]  # kept indices along each dimension


class Part:
    """What stays of a model without some units.

    Args:
        whole: the model that `structure` was found in.
        removed: group id -> unit numbers that are gone.
    """

    def __init__(self, whole: nn.Module, structure: Structure, removed: Removed) -> None:
        self._gone: dict[str, dict[int, npt.NDArray[np.int64]]] = defaultdict(dict)
        for (name, dim), indices in gone_indices(whole, structure, removed).items():
            self._gone[name][dim] = indices

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """The part of a tensor of the whole model that stays."""
        return tensor[self._places(name, tensor)] if name in self._gone else tensor.clone()

    def put(self, name: str, tensor: Tensor, part: Tensor) -> None:
        """Write a part back to where it was taken from; what is gone stays as it is.

        Raises:
            ModelError: it is not the size of what was taken.
        """
        target = tensor[self._places(name, tensor)] if name in self._gone else tensor
        if target.shape != part.shape:
            raise ModelError(
                f"{name} has shape {tuple(part.shape)}, its place {tuple(target.shape)}",
                hint="put back the very model that was cut out",
            )
        if name in self._gone:
            tensor[self._places(name, tensor)] = part.to(tensor)
        else:
            tensor.copy_(part)

    def put_back(self, whole: nn.Module, pruned: nn.Module) -> None:
        """Write all tensors of a pruned model to their places in the whole one. Modules that went with a residual
        branch, and units that are gone, keep what they had.

        Raises:
            ModelError: the pruned model has a tensor that the whole one has not, or of another size.
        """
        state = whole.state_dict(keep_vars=False)
        with torch.no_grad():
            for name, tensor in pruned.state_dict().items():
                if name not in state:
                    raise ModelError(
                        f"the whole model has no tensor {name}", hint="put back the model that was cut out"
                    )
                self.put(name, state[name], tensor)

    def places(self, name: str, dim: int, size: int) -> npt.NDArray[np.int64]:
        """The indices that stay along one dimension, which has `size` in the whole model, ascending."""
        return np.setdiff1d(np.arange(size), self._gone.get(name, {}).get(dim, []))

    def _places(self, name: str, tensor: Tensor) -> tuple[Tensor, ...]:
        kept = [self.places(name, dim, n) for dim, n in enumerate(tensor.shape)]
        return tuple(torch.from_numpy(index).to(tensor.device) for index in np.ix_(*kept))
