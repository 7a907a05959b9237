"""The processes that train one model together: one, unless `torchrun` or `accelerate launch` began more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor

from edgeprune.errors import UsageError
from edgeprune.tasks.task import Rows
from edgeprune.training.norms import statistics_of_all

Value = TypeVar("Value")
PATIENCE = timedelta(days=1)  # of processes for the main one, which may measure a device before they train


class Processes:
    """This process among those of a training. Each has its part of every batch; what is told and written down is the
    main one's.

    Raises:
        UsageError: the launcher asks for a precision, which is the recipe's to say.
    """

    def __init__(self) -> None:
        patient = InitProcessGroupKwargs(timeout=PATIENCE)
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patient])
        if self.accelerator.mixed_precision != "no":
            raise UsageError(
                f"the launcher asks for mixed precision {self.accelerator.mixed_precision}",
                where="accelerate",
                hint="launch with --mixed_precision no, and set tune.precision in the recipe",
            )
        self.device: torch.device = self.accelerator.device
        self.count: int = self.accelerator.num_processes
        self.number: int = self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        return self.number == 0

    def part_of(self, images: int) -> slice:
        """This process's images of a batch: as many as each other's, or one more."""
        return slice(images * self.number // self.count, images * (self.number + 1) // self.count)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each of these tensors, in one exchange."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        summed = self.accelerator.reduce(flat, reduction="sum")
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(summed[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()

    def all_rows(self, rows: Rows) -> Rows:
        """The rows of all processes, one after the other."""
        return np.concatenate(gather_object([rows])) if self.count > 1 else rows

    def from_main(self, value: Value) -> Value:
        """What the main process has, in every process."""
        if self.count == 1:
            return value
        told = [value]
        broadcast_object_list(told)
        return told[0]

    def end(self, value: object) -> object:
        """The last word of the main process; the connection between them ends."""
        told = self.from_main(value)
        self.accelerator.end_training()
        return told

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within this context batch norms in training mode take their statistics from the batches of all processes."""
        if self.count == 1:
            yield
        else:
            with statistics_of_all():
                yield
