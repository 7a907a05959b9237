"""Batches of images made by processes beside the one that trains, in their order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgeprune.errors import DataError


@dataclass(frozen=True)
class _Wrong:
    """An error that would lose its parts on its way from another process."""

    what: str
    where: str | None
    hint: str | None


class _Batches(Dataset[Any]):
    """Number of a batch -> the batch, or what was wrong with an image of it."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        try:
            made = self._make(number)
        except DataError as error:
            return _Wrong(error.what, error.where, error.hint)
        return torch.from_numpy(made) if isinstance(made, np.ndarray) else made  # tensors travel in shared memory


def _as_it_is(made: Any) -> Any:
    return made


def made_by_workers(make: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """The batches 0..count-1 that `make` makes (an array, or tensors in tuples and dicts), by so many processes, two
    batches ahead each.

    Raises:
        DataError: an image cannot be read; or a worker died.
    """
    ways = multiprocessing.get_all_start_methods()
    loader = DataLoader(
        _Batches(make, count),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="fork" if "fork" in ways else None,
    )
    batches = iter(loader)
    for number in range(count):
        try:
            made = next(batches)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):
                raise
            raise DataError(
                f"a process that reads images died at batch {number + 1} of {count}: {str(error).splitlines()[0]}",
                where="tune.workers",
                hint="it was killed, often for memory: lower tune.workers or tune.batch_size and go on with --resume; "
                "finished epochs are kept",
            ) from error
        if isinstance(made, _Wrong):
            raise DataError(made.what, where=made.where, hint=made.hint)
        yield made.numpy() if isinstance(made, torch.Tensor) else made
