"""Equal images: none may be both trained and tested on, and those of one pool go to one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeprune.data.pools import Labelled
from edgeprune.errors import DataError
from edgeprune.progress import Progress

Indices = npt.NDArray[np.int64]
_PART_OF = ("test", "validation", "calibration", "train")  # a part loses the images that one before it has


def without_copies(pools: Mapping[str, Labelled], *, progress: Progress) -> dict[str, Indices]:
    """The images of each part, by their places in its pool, less those that the parts before it have too
    (test, validation, calibration, training).

    Raises:
        DataError: more than half of a part's images are also another part's.
    """
    kept: dict[str, Indices] = {}
    seen: dict[str, set[str]] = {}
    for part in (part for part in _PART_OF if part in pools):
        pool = pools[part]
        left_out = np.zeros(len(pool.pixels), bool)
        for earlier, digests in seen.items():
            copies = np.array([digest in digests for digest in pool.pixels], bool)
            if copies.any():
                _check_few(pools, part, earlier, copies)
                progress.say(
                    f"left out of {part}: {copies.sum()} images that the {earlier} images have too (pixel for pixel)"
                )
            left_out |= copies
        kept[part] = np.flatnonzero(~left_out)
        seen[part] = set(pool.pixels)
    return kept


def groups_of(pixels: Sequence[str]) -> tuple[Indices, Indices]:
    """The first image of each group of equal ones, by its place, and for each image the number of its group."""
    _, first, group = np.unique(np.array(pixels), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return first[order].astype(np.int64), rank[group.reshape(-1)]


def tell_copies(pool: Labelled, *, progress: Progress) -> None:
    """Say how many images of a pool are equal, and whether some of them are of several classes."""
    first, group = groups_of(pool.pixels)
    if len(first) == len(pool.labels):
        return
    text = f"{len(pool.labels) - len(first)} images are copies of others in {pool.where}; copies go to one split"
    torn = set(group[pool.labels != pool.labels[first[group]]].tolist())
    if torn:
        names = ", ".join(pool.names[first[number]] for number in sorted(torn)[:3])
        text += f". WARNING: equal images of different classes, so that no model can be right: {names}"
    progress.say(text)


def _check_few(pools: Mapping[str, Labelled], part: str, other: str, copies: npt.NDArray[np.bool_]) -> None:
    mine, theirs = pools[part], pools[other]
    digests = {digest for digest, copied in zip(mine.pixels, copies, strict=True) if copied}
    of_theirs = sum(digest in digests for digest in theirs.pixels)
    shares = {part: (copies.sum(), len(copies)), other: (of_theirs, len(theirs.pixels))}
    for name, (count, total) in shares.items():
        if 2 * count > total and not (other == "calibration" and name == other):
            raise DataError(
                f"the {part} and the {other} images are the same: {count} of {total} {name} images are in both",
                where=theirs.where,
                hint=f"leave `{other}` out: it is then set aside from the others; or name images of its own",
            )
