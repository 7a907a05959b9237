"""Batches of images made by processes beside the one that trains, in their order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from edgeprune.data.images import Bytes
from edgeprune.errors import DataError

Make = Callable[[int], Bytes]


class _Batches(Dataset[Any]):
    """Number of a batch -> its pixels, or what was wrong with an image of it."""

    def __init__(self, make: Make, count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        try:
            return torch.from_numpy(self._make(number))
        except DataError as error:  # an error that crosses processes loses its parts
            return (error.what, error.where, error.hint)


def _as_it_is(made: Any) -> Any:
    return made


def made_by_workers(make: Make, count: int, workers: int) -> Iterator[Bytes]:
    """The batches 0..count-1 that `make` makes, by so many processes, two batches ahead each.

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
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a process that reads images died at batch {number + 1} of {count}: {str(error).splitlines()[0]}",
                where="tune.workers",
                hint="it was killed, often for memory: lower tune.workers or tune.batch_size and go on with --resume; "
                "finished epochs are kept",
            ) from error
        if isinstance(made, tuple):
            what, where, hint = made
            raise DataError(what, where=where, hint=hint)
        yield made.numpy()
