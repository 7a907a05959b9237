"""A split: images with labels, read in preprocessed batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.data.ahead import ahead
from edgeprune.data.augment import EVERYTHING, NOTHING_STRONGER, Stronger, augmented
from edgeprune.data.images import Images, Indices
from edgeprune.data.workers import made_by_workers
from edgeprune.errors import RecipeError

if TYPE_CHECKING:
    from edgeprune.data.record import DataRecord
    from edgeprune.data.targets import TargetSource
    from edgeprune.models.spec import Preprocessing
    from edgeprune.recipe import Augment

Labels = npt.NDArray[np.int64]
Part = Callable[[int], slice]  # which images of a batch of so many


def whole(size: int) -> slice:  # noqa: ARG001
    """All images of a batch."""
    return EVERYTHING


@dataclass(frozen=True, eq=False)
class Split:
    """Some images of a pool, with their labels (class indices of the model) and how they are normalised."""

    name: str
    classes: tuple[str, ...]
    labels: Labels
    images: Images = field(repr=False)
    indices: Indices = field(repr=False)  # of the images in the pool, beside `labels`
    preprocessing: Preprocessing = field(repr=False)
    targets: TargetSource | None = field(default=None, repr=False)  # of the pool's images, where they are no classes

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_pixels(self) -> bool:
        """Whether its images are pixels that are prepared here, and could be prepared otherwise."""
        return True

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augment = "none",
        stronger: Stronger = NOTHING_STRONGER,
        part: Part = whole,
        workers: int = 0,
    ) -> Iterator[tuple[torch.Tensor, Any]]:
        """Preprocessed images, float32 (n, C, H, W), and their targets: labels, int64 (n,), or what the data set gives
        in their place; the last batch may be shorter. Maps of the images' size are shifted and flipped with them.

        A seed shuffles (and sets the augmentation: another seed for each epoch); without one they come in order.
        The same seed gives the same batches, however many workers make them.

        Args:
            stronger: what is done to the images beside `augment`; it needs a seed.
            part: which of a batch's images are wanted, of so many: these alone are read, and are what they are in the
                whole batch.
            workers: processes that read images which stream from disk; 0: a thread of this one does.

        Raises:
            DataError: an image cannot be read, or a worker died.
        """
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        order = stronger.order(order)
        reading = _Reading(self, order, batch_size, part, stronger, 0 if seed is None else seed)
        for number, pixels in zip(range(reading.count), self._pixels(reading, workers), strict=True):
            chosen = reading.chosen(number)
            size = reading.size(number)
            targets = self._targets(chosen)
            maps = targets if self.targets is not None and targets.ndim > 2 else None  # others lie nowhere
            if maps is not None and stronger.randaugment is not None:
                raise RecipeError(
                    "RandAugment turns and bends images, and their masks or maps would stay as they are",
                    where="tune.randaugment",
                    hint="leave it out, or augment both in a data set of your own",
                )
            batch, moved = augmented(torch.from_numpy(pixels), augment, generator, maps=maps, of=size, part=part(size))
            images = stronger.erased(self._normalised(batch), reading.seed_of(number))
            yield images, targets if moved is None else moved

    def _targets(self, places: Indices) -> torch.Tensor:
        """Of the images at these positions of the split."""
        if self.targets is None:
            return torch.from_numpy(self.labels[places])
        return self.targets.of(self.indices[places])

    def take(self, n: int) -> Split:
        """At most n images, spread evenly over the classes; the same ones each time, in the split's order."""
        if n >= len(self):
            return self
        return self.select(np.sort(spread(self.labels, n, seed=0)))

    def select(self, chosen: Indices, *, name: str | None = None) -> Split:
        """The images at these positions of the split."""
        return replace(self, name=name or self.name, labels=self.labels[chosen], indices=self.indices[chosen])

    def _pixels(self, reading: _Reading, workers: int) -> Iterator[npt.NDArray[np.uint8]]:
        """The pixels of each batch; when they stream from disk, the next batch is read meanwhile."""
        if self.images.streams and workers:
            return made_by_workers(reading, reading.count, workers)
        read = map(reading, range(reading.count))
        # RandAugment draws from generators of the whole process, which the one that trains may use meanwhile.
        return ahead(read) if self.images.streams and reading.stronger.randaugment is None else read

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.preprocessing.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(1, -1, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)


@dataclass(frozen=True, eq=False)
class _Reading:
    """Makes the pixels of a batch, by its number, in any order and in any process."""

    split: Split
    order: Indices
    batch_size: int
    part: Part
    stronger: Stronger
    seed: int

    @property
    def count(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def size(self, number: int) -> int:
        """How many images the whole batch has."""
        return min(self.batch_size, len(self.order) - number * self.batch_size)

    def chosen(self, number: int) -> Indices:
        """The positions in the split of this process's images of a batch."""
        start = number * self.batch_size
        return self.order[start : start + self.batch_size][self.part(self.size(number))]

    def seed_of(self, number: int) -> int:
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])

    def __call__(self, number: int) -> npt.NDArray[np.uint8]:
        pixels = self.split.images.pixels(self.split.indices[self.chosen(number)])
        if self.stronger.randaugment is None:
            return pixels
        seeds = np.random.SeedSequence([self.seed, number, 1]).generate_state(self.size(number))
        return self.stronger.changed(pixels, seeds[self.part(self.size(number))].astype(np.int64))


@dataclass(frozen=True)
class Splits:
    """The four splits of a job. Test is never trained, tuned or calibrated on.

    `train_is_calibration`: there are no training images, so tuning sees the calibration images only. `record` says
    which images each split has.
    """

    train: Split
    validation: Split
    calibration: Split
    test: Split
    train_is_calibration: bool = False
    record: DataRecord | None = field(default=None, repr=False)


def spread(labels: Labels, n: int, *, seed: int, keys: Sequence[str] | None = None) -> Indices:
    """Positions of n seeded samples in which each class has its share (as nearly as whole images allow).

    Each class's images are shuffled and laid evenly over 0..1 with a random offset; the n first are taken. With `keys`
    the shuffled order is that of their hashes: an image more or less changes the place of few others.
    """
    random = np.random.default_rng(seed)
    rank = np.array([_rank(key, seed) for key in keys]) if keys is not None else None
    place = np.empty(len(labels))
    for one in np.unique(labels):
        mine = np.flatnonzero(labels == one)
        mine = random.permutation(mine) if rank is None else mine[np.argsort(rank[mine], kind="stable")]
        place[mine] = (np.arange(len(mine)) + random.random()) / len(mine)
    return np.argsort(place, kind="stable")[:n].astype(np.int64)


def _rank(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
