"""From pools to four splits that share no image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.data.copies import groups_of
from edgeprune.data.images import Indices
from edgeprune.data.pools import Labelled
from edgeprune.data.split import Labels, spread
from edgeprune.errors import DataError
from edgeprune.progress import Progress
from edgeprune.recipe import DataSection

PARTS = ("train", "validation", "calibration", "test")
Division = dict[str, dict[str, Indices]]  # split -> part of the data -> places in its pool
_TEST_SHARE = 0.2
_LEAST_TRAIN = 2  # batch norms have no variance of one image


def divide(
    section: DataSection,
    pools: Mapping[str, Labelled],
    kept: Mapping[str, Indices],
    *,
    seed: int,
    progress: Progress,
) -> Division:
    """Which images each split has. Without test images a fifth is set aside; equal images go to one split.

    Args:
        section: how many images validate and calibrate.
        pools: of each part that the data have.
        kept: of each part, the images that count.
        seed: of the choice.
        progress: is told what is otherwise than asked for.

    Raises:
        DataError: a split that later stages need would have no image.
    """
    part = "train" if "train" in pools else "calibration"
    if part not in pools:
        raise DataError(
            "there are no training or calibration images", where=section.source, hint="name `train` or `calibration`"
        )
    pool, left = pools[part], kept[part]
    division: Division = {}
    if "test" in kept:
        division["test"] = {"test": kept["test"]}
    else:
        held, left = _cut(pool, left, round(_TEST_SHARE * len(left)), seed)
        division["test"] = {part: held}
        progress.say(f"no test images are named: {len(held)} of {len(held) + len(left)} are set aside (seed {seed})")
    own_calibration = "train" in pools and "calibration" in pools
    wanted = (section.validation_images, 0 if own_calibration else section.calibration_images)
    counts = _at_most_half(wanted, len(left), progress) if part == "train" else _most_for_calibration(wanted, len(left))
    validation, left = _cut(pool, left, counts[0], seed + 1)
    division["validation"] = {part: validation}
    if own_calibration:
        chosen, _ = _cut(pools["calibration"], kept["calibration"], section.calibration_images, seed + 2)
        division["calibration"] = {"calibration": chosen}
    else:
        chosen, left = _cut(pool, left, counts[1], seed + 2)
        division["calibration"] = {part: chosen}
    division["train"] = {part: left if part == "train" else chosen}
    _check_enough(section, division)
    return division


def _at_most_half(wanted: tuple[int, int], available: int, progress: Progress) -> tuple[int, int]:
    """Validation and calibration counts, shrunk alike where they would take more than half of what there is."""
    if sum(wanted) <= available // 2:
        return wanted
    share = available / 2 / sum(wanted)
    calibration = max(int(wanted[1] * share), min(1, wanted[1]))
    counts = (int(wanted[0] * share), calibration)
    progress.say(
        f"only {available} training images: validation and calibration take {counts[0]} and {counts[1]} of them"
    )
    return counts


def _most_for_calibration(wanted: tuple[int, int], available: int) -> tuple[int, int]:
    """Without training images a quarter at most validates and the rest, as far as wanted, calibrates."""
    validation = min(wanted[0], available // 4)
    return validation, min(wanted[1], available - validation)


def _cut(pool: Labelled, places: Indices, count: int, seed: int) -> tuple[Indices, Indices]:
    """About `count` of these images, each class with its share and equal images together, and what is left."""
    pixels = [pool.pixels[place] for place in places]
    first, group = groups_of(pixels)
    labels: Labels = pool.labels[places][first]
    keys = [pixels[one] for one in first] if pool.in_files else None
    groups = round(count * len(first) / len(places)) if len(places) else 0
    chosen = np.isin(group, spread(labels, groups, seed=seed, keys=keys))
    return places[chosen], places[~chosen]


def _check_enough(section: DataSection, division: Division) -> None:
    counts = {split: sum(map(len, of.values())) for split, of in division.items()}
    least = {"test": 1, "calibration": 1, "train": _LEAST_TRAIN}
    short = {split: count for split, count in least.items() if counts[split] < count}
    if short:
        there = ", ".join(f"{counts[split]} for {split}" for split in PARTS)
        raise DataError(
            f"there are too few images: {there}; {', '.join(f'{split} needs {n}' for split, n in short.items())}",
            where=section.source,
            hint="add images (about 10 in all are the least that can be divided), or name `test` and `calibration`",
        )
