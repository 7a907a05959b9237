"""From the recipe's [data] to four splits that share no image."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.images import Geometry
from edgeprune.data.sources import SPLIT_FOLDERS, Labelled, Source, image_folder, open_source
from edgeprune.data.split import Split, Splits, spread
from edgeprune.errors import DataError
from edgeprune.recipe import DataSection

if TYPE_CHECKING:
    from edgeprune.models.spec import ModelSpec

MEMORY_LIMIT = 2 << 30
_TEST_SHARE = 0.2
_log = logging.getLogger(__name__)


def open_data(section: DataSection, spec: ModelSpec, *, seed: int, memory_limit: int = MEMORY_LIMIT) -> Splits:
    """Open the recipe's data for a model.

    `source` is `digits`, `npz:FILE` (uint8 arrays train_images, train_labels, test_images, test_labels),
    `timm:NAME[@ROOT]`, or a folder: of classes, or with `train` and `test` (`val`, `validation`, `valid`) in it.
    `train`, `test` and `calibration` name folders in it, or sources of their own.

    - Without a test source, a seeded and stratified fifth of the training images is set aside as test.
    - Validation and calibration images are taken out of training (seeded, stratified); where together they would
      take more than half of it, they shrink alike. Calibration images of a source of their own stay out of training.
    - Without training images, the calibration images are trained on too (`train_is_calibration`).
    - Images are resized so that the shorter side is input / crop_pct (the recipe's, else the model's;
      `resize` sets it outright) and the centre is cut out. A pool above `memory_limit` bytes streams from disk.
    - A class's index is its place in the sorted names; in the model's labels where they hold all the names.

    Raises:
        DataError: a source is missing, empty, of one class, unreadable, or does not fit the model or the others.
    """
    geometry = Geometry.of(
        spec.input_size,
        interpolation=spec.preprocessing.interpolation,
        crop_pct=section.crop_pct or spec.preprocessing.crop_pct,
        resize=section.resize,
    )
    pools = _pools(section, geometry, memory_limit)
    train, calibration, test = (_as_split(pools[name], name, spec) for name in ("train", "calibration", "test"))
    known = [split for split in (train, calibration, test) if split is not None]
    train, calibration, test = (split and _with_classes_of(split, known, spec) for split in (train, calibration, test))
    return _divide(section, train, calibration, test, seed)


def _pools(section: DataSection, geometry: Geometry, memory_limit: int) -> dict[str, Labelled | None]:
    """The pool of each part as the recipe names it; None where it names none."""
    root = Path(section.source).expanduser()
    named = {"train": section.train, "calibration": section.calibration, "test": section.test}
    inside = {part: name for part, name in named.items() if name is not None and _is_inside(root, name)}
    pools: dict[str, Labelled | None] = dict.fromkeys(named)
    for part, name in named.items():
        if part in inside:
            pools[part] = image_folder(root / inside[part], geometry, memory_limit=memory_limit)
        elif name is not None:
            other = open_source(name, geometry, memory_limit=memory_limit)
            pools[part] = other.for_testing() if part == "test" else other.for_training()
            if pools[part] is None:
                raise DataError(f"`{part}` names a source without such images", where=name)
    if pools["train"] is None or pools["test"] is None:
        own = _own_parts(section.source, set(inside.values()), geometry, memory_limit)
        pools["train"] = pools["train"] or own.for_training()
        pools["test"] = pools["test"] or own.test
    _check_apart(pools)
    return pools


def _check_apart(pools: Mapping[str, Labelled | None]) -> None:
    """Two parts must not be the same images: accuracy would be on what was trained or calibrated on."""
    seen: dict[str, str] = {}
    for part, pool in pools.items():
        if pool is None:
            continue
        if pool.where in seen:
            raise DataError(
                f"`{seen[pool.where]}` and `{part}` are the same images",
                where=pool.where,
                hint=f"leave `{part}` out: it is then set aside from the others; or name images of its own",
            )
        seen[pool.where] = part


def _is_inside(root: Path, name: str) -> bool:
    """Whether this is a sub-folder of the root, not a source of its own."""
    return not Path(name).is_absolute() and (root / name).is_dir()


def _own_parts(source: str, named: set[str], geometry: Geometry, memory_limit: int) -> Source:
    """What the source holds beside the folders that the recipe names in it."""
    root = Path(source).expanduser()
    if named and not any((root / part).is_dir() and part not in named for part in SPLIT_FOLDERS):
        return Source()  # the folder only holds the named ones: its sub-folders are no classes
    return open_source(source, geometry, memory_limit=memory_limit)


def _as_split(pool: Labelled | None, name: str, spec: ModelSpec) -> Split | None:
    if pool is None:
        return None
    if len(pool.classes) > spec.num_classes:
        raise DataError(
            f"the labels do not fit the classifier: the data has {len(pool.classes)} classes, "
            f"the model answers {spec.num_classes}",
            where=pool.where,
            hint="set num_classes in [model], or choose other data",
        )
    if len(np.unique(pool.labels)) < 2:
        raise DataError("all images are of one class", where=pool.where, hint="a classifier needs two or more")
    return Split(
        name=name,
        classes=pool.classes,
        labels=pool.labels,
        images=pool.images,
        indices=np.arange(len(pool.labels)),
        preprocessing=spec.preprocessing,
    )


def _with_classes_of(split: Split, known: list[Split], spec: ModelSpec) -> Split:
    """The split with its labels as places in the classes that all sources share: the model's own, or the longest."""
    names = {name for other in known for name in other.classes}
    classes = spec.labels if names <= set(spec.labels) else max((s.classes for s in known), key=len)
    strange = [name for name in split.classes if name not in classes]
    if strange:
        raise DataError(
            f"the {split.name} images have classes that the others have not: {', '.join(strange[:5])}",
            hint="use the same class names in all folders",
        )
    if len(classes) < spec.num_classes:
        _log.warning("the data has %d classes, the model answers %d", len(classes), spec.num_classes)
    place = {name: index for index, name in enumerate(classes)}
    mapped = np.array([place[name] for name in split.classes], np.int64)
    return replace(split, classes=tuple(classes), labels=mapped[split.labels])


def _divide(
    section: DataSection, train: Split | None, calibration: Split | None, test: Split | None, seed: int
) -> Splits:
    pool = train or calibration
    if pool is None:
        raise DataError(
            "there are no training or calibration images", where=section.source, hint="name `train` or `calibration`"
        )
    if test is None:
        held = spread(pool.labels, round(_TEST_SHARE * len(pool)), seed=seed)
        test, pool = _cut(pool, held, "test")
        _log.info("no test images are named: %d of %d are set aside (seed %d)", len(test), len(test) + len(pool), seed)
    own_calibration = train is not None and calibration is not None
    wanted = (section.validation_images, 0 if own_calibration else section.calibration_images)
    counts = _at_most_half(wanted, len(pool)) if train is not None else _most_for_calibration(wanted, len(pool))
    validation, pool = _cut(pool, spread(pool.labels, counts[0], seed=seed + 1), "validation")
    if own_calibration:
        assert calibration is not None
        chosen = calibration.select(spread(calibration.labels, section.calibration_images, seed=seed + 2))
    else:
        chosen, pool = _cut(pool, spread(pool.labels, counts[1], seed=seed + 2), "calibration")
    if train is None:
        _log.warning("no training images: the %d calibration images are trained on as well", len(chosen))
        return Splits(replace(chosen, name="train"), validation, chosen, test, train_is_calibration=True)
    return Splits(replace(pool, name="train"), validation, chosen, test)


def _at_most_half(wanted: tuple[int, int], available: int) -> tuple[int, int]:
    """Validation and calibration counts, shrunk alike where they would take more than half of what there is."""
    if sum(wanted) <= available // 2:
        return wanted
    share = available / 2 / sum(wanted)
    counts = (int(wanted[0] * share), int(wanted[1] * share))
    _log.warning("only %d training images: validation and calibration take %d and %d of them", available, *counts)
    return counts


def _most_for_calibration(wanted: tuple[int, int], available: int) -> tuple[int, int]:
    """Without training images a quarter at most validates and the rest, as far as wanted, calibrates."""
    validation = min(wanted[0], available // 4)
    return validation, min(wanted[1], available - validation)


def _cut(split: Split, chosen: np.ndarray[tuple[int], np.dtype[np.int64]], name: str) -> tuple[Split, Split]:
    """The chosen images as a split of their own, and what is left."""
    left = np.setdiff1d(np.arange(len(split)), chosen)
    return split.select(np.sort(chosen), name=name), split.select(left)
