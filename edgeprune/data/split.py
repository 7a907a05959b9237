"""A split: images with labels, read in preprocessed batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from edgeprune.data.ahead import ahead
from edgeprune.data.augment import augmented
from edgeprune.data.images import Images, Indices

if TYPE_CHECKING:
    from edgeprune.data.record import DataRecord
    from edgeprune.data.targets import TargetSource
    from edgeprune.models.spec import Preprocessing
    from edgeprune.recipe import Augment

Labels = npt.NDArray[np.int64]


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
        self, batch_size: int, *, seed: int | None = None, augment: Augment = "none"
    ) -> Iterator[tuple[torch.Tensor, Any]]:
        """Preprocessed images, float32 (n, C, H, W), and their targets: labels, int64 (n,), or what the data set gives
        in their place; the last batch may be shorter. Maps of the images' size are shifted and flipped with them.

        A seed shuffles (and sets the augmentation: another seed for each epoch); without one they come in order.
        The same seed gives the same batches.

        Raises:
            DataError: an image cannot be read.
        """
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        for part, pixels in zip(parts, self._pixels(parts), strict=True):
            if self.targets is None:
                batch, _ = augmented(torch.from_numpy(pixels), augment, generator)
                yield self._normalised(batch), torch.from_numpy(self.labels[part])
                continue
            beside = self.targets.of(self.indices[part])
            if beside.ndim < 3:  # numbers or switches that lie nowhere
                batch, _ = augmented(torch.from_numpy(pixels), augment, generator)
            else:
                batch, moved = augmented(torch.from_numpy(pixels), augment, generator, beside)
                beside = beside if moved is None else moved
            yield self._normalised(batch), beside

    def take(self, n: int) -> Split:
        """At most n images, spread evenly over the classes; the same ones each time, in the split's order."""
        if n >= len(self):
            return self
        return self.select(np.sort(spread(self.labels, n, seed=0)))

    def select(self, chosen: Indices, *, name: str | None = None) -> Split:
        """The images at these positions of the split."""
        return replace(self, name=name or self.name, labels=self.labels[chosen], indices=self.indices[chosen])

    def _pixels(self, parts: list[Indices]) -> Iterator[npt.NDArray[np.uint8]]:
        """The pixels of each batch; when they stream from disk, the next batch is read meanwhile."""
        read = (self.images.pixels(self.indices[part]) for part in parts)
        return ahead(read) if self.images.streams else read

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.preprocessing.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(1, -1, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)


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
