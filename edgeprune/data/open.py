"""From the recipe's [data] to four splits that share no image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from edgeprune.data.check import hashes_of
from edgeprune.data.classes import class_order, places_of, tell_missing, text_order
from edgeprune.data.coco import find_coco
from edgeprune.data.copies import tell_copies, without_copies
from edgeprune.data.divide import PARTS, Division, divide
from edgeprune.data.folders import list_classes
from edgeprune.data.images import Geometry, Indices
from edgeprune.data.own import open_own
from edgeprune.data.paired import Kind, find_paired, pair_in
from edgeprune.data.pools import FolderPool, Found, Labelled, Opening, Source
from edgeprune.data.record import LEFT_OUT, DataRecord, ImageRecord, changes
from edgeprune.data.sources import find_source
from edgeprune.data.split import Split, Splits
from edgeprune.data.table import find_table
from edgeprune.errors import DataError, listed
from edgeprune.models.trust import is_users_data
from edgeprune.progress import SILENT, Progress, Silent
from edgeprune.recipe import DataSection, TargetKind

if TYPE_CHECKING:
    from edgeprune.models.spec import ModelSpec

MEMORY_LIMIT = 2 << 30


def open_data(
    section: DataSection,
    spec: ModelSpec,
    *,
    seed: int,
    kind: TargetKind = "class",
    record: DataRecord | None = None,
    progress: Progress = SILENT,
    memory_limit: int = MEMORY_LIMIT,
) -> Splits:
    """Open the recipe's data for a model.

    `source` is `digits`, `npz:FILE` (uint8 arrays train_images, train_labels, test_images, test_labels),
    `timm:NAME[@ROOT]`, `csv:FILE`, `coco:FILE.json[@FOLDER]`, or a folder: of classes (of images and what belongs to
    them, for tasks that read more than a class), or with `train` and `test` (by any usual name) in it; or a data set of
    the user's own (`own.py`).
    `train`, `test` and `calibration` name folders in it, or sources of their own.

    - Every image is decoded once, and what is read otherwise than it lies, left out or skipped is told.
    - Without a test source, a seeded and stratified fifth of the training images is set aside as test.
    - Validation and calibration images are taken out of training (seeded, stratified); where together they would
      take more than half of it, they shrink alike. Images that the test images have too, pixel for pixel, stay out of
      training and calibration, and those of a calibration source of its own out of training.
    - Without training images, the calibration images are trained on too (`train_is_calibration`).
    - Images are resized so that the shorter side is input / crop_pct (the recipe's, else the model's;
      `resize` sets it outright) and the centre is cut out. A pool above `memory_limit` bytes streams from disk.
    - A class's index is its place in the model's labels where they are known; else in the names in text order.

    Args:
        section: the recipe's [data].
        spec: of the model.
        seed: of the splits.
        kind: what the task needs beside an image.
        record: of the run that is gone on with: the same images are in the same splits, and nothing is checked anew.
        progress: is told how far the check is, and what is worth knowing.
        memory_limit: in bytes, of a pool that is kept.

    Raises:
        DataError: a source is missing, empty, of one class, unreadable, or does not fit the model or the others; two
            parts are the same images; a split would be empty; or the data are not those of the record.
    """
    remarks = _Remarks(progress if record is None else SILENT)  # what was told when the run was loaded
    if kind == "own" or spec.inputs or is_users_data(section.source):
        return open_own(section, spec, seed=seed, record=record, progress=progress)
    opening = Opening(_geometry(section, spec), memory_limit, progress)
    found, told = find_parts(section, spec.labels, kind)
    for remark in told:
        remarks.say(remark)
    pools = {part: one.open(_with_known(opening, record, part)) for part, one in found.items()}
    for pool in pools.values():
        for remark in pool.told:
            remarks.say(remark)
        if pool.targets is None and len(np.unique(pool.labels)) < 2:
            raise DataError("all images are of one class", where=pool.where, hint="a classifier needs two or more")
    order = _order(pools, spec, kind, where=section.source, progress=remarks)
    if record is not None:
        return _as_recorded(pools, record, spec)
    kept = without_copies(pools, progress=remarks)
    for pool in pools.values():
        tell_copies(pool, progress=remarks)
    division = divide(section, pools, kept, seed=seed, progress=remarks)
    alone = "train" not in pools
    if alone:
        remarks.say("no training images: the calibration images stand in for them")
    labels = _labels(pools, order)
    splits = {name: _split(name, of, pools, labels, order, spec) for name, of in division.items()}
    for name in ("train", "calibration", "test") if kind == "class" else ():
        tell_missing(name, order, splits[name].labels.tolist(), remarks)
    made = DataRecord(order, _files(found), _images(pools, labels, division), alone, tuple(remarks.told), kind)
    return Splits(**splits, train_is_calibration=alone, record=made)


class _Remarks(Silent):
    """Keeps what is worth knowing of the data, and tells each once."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self.told = progress, list[str]()

    def say(self, text: str) -> None:
        if text not in self.told:
            self.told.append(text)
            self._progress.say(text)


def _order(
    pools: Mapping[str, Labelled], spec: ModelSpec, kind: TargetKind, *, where: str, progress: Progress
) -> tuple[str, ...]:
    """The names of the classes: in the order of the model's outputs where these are classes."""
    if kind == "class":
        return class_order(pools, spec, where=where, progress=progress)
    if kind == "identity":  # those of training and of testing may be others
        return text_order({name for pool in pools.values() for name in pool.classes})
    return _one_order(pools, where) or spec.labels


def _one_order(pools: Mapping[str, Labelled], where: str) -> tuple[str, ...]:
    """The names that targets have for the classes, where they have any: the same in all parts.

    Raises:
        DataError: parts name others, or in another order.
    """
    orders = {pool.classes: pool.where for pool in pools.values() if pool.classes}
    if len(orders) > 1:
        told = "; ".join(f"{place}: {listed(names, 5)}" for names, place in orders.items())
        raise DataError(
            f"the parts of the data name other classes, or in another order: {told}",
            where=where,
            hint="give all parts the same classes; where labels are names, model.labels says their order",
        )
    return next(iter(orders), ())


def changed_since(section: DataSection, record: DataRecord) -> str:
    """What became of the data's files since a record was made, in words; empty where nothing did.

    Raises:
        NoData: they are not there any more.
        DataError: they are something else now.
    """
    if record.kind == "own":
        return ""  # it is asked when it is opened
    found, _ = find_parts(section, record.classes, record.kind)
    return changes(record.files, _files(found))


def find_parts(
    section: DataSection, labels: tuple[str, ...] = (), kind: TargetKind = "class"
) -> tuple[dict[str, Found], list[str]]:
    """The pool of each part that the recipe's data have, found and not looked into yet, and what is worth telling.

    Raises:
        DataError: a part is missing, or lies within another.
    """
    root = Path(section.source).expanduser()
    named = {"train": section.train, "calibration": section.calibration, "test": section.test}
    inside = {part: name for part, name in named.items() if name is not None and _is_inside(root, name)}
    pools: dict[str, Found | None] = dict.fromkeys(named)
    told: list[str] = []
    for part, name in named.items():
        if part in inside:
            folder = root / inside[part]
            pools[part] = pair_in(folder, kind) if _is_paired(kind) else FolderPool(list_classes(folder, labels=labels))
        elif name is not None:
            other = _find(name, kind, labels)
            told += other.told
            pools[part] = other.for_testing() if part == "test" else other.for_training()
            if pools[part] is None:
                raise DataError(
                    f"`{part}` names a source without such images",
                    where=name,
                    hint="an .npz file has them as test_images and test_labels, a folder in one of class folders",
                )
    if pools["train"] is None or pools["test"] is None:
        named_inside = frozenset(part for name in inside.values() for part in Path(name).parts[:1])
        own = _find(section.source, kind, labels, named_inside)
        told += own.told
        pools["train"] = pools["train"] or own.for_training()
        pools["test"] = pools["test"] or own.test
    found = {part: pool for part, pool in pools.items() if pool is not None}
    _check_apart(found)
    return found, told


def _is_paired(kind: TargetKind) -> TypeGuard[Kind]:
    return kind in ("mask", "values", "classes")


def _find(source: str, kind: TargetKind, labels: tuple[str, ...], named: frozenset[str] = frozenset()) -> Source:
    if source.startswith("csv:"):
        return find_table(source, kind, labels=labels)
    if source.startswith("coco:"):
        return find_coco(source, kind, labels=labels)
    if _is_paired(kind):
        return find_paired(source, kind, named=named)
    return find_source(source, named=named, labels=labels)


def _geometry(section: DataSection, spec: ModelSpec) -> Geometry:
    own = with_preprocessing(spec, section).preprocessing
    return Geometry.of(
        spec.input_size,
        interpolation=own.interpolation,
        crop_pct=own.crop_pct,
        resize=own.resize,
    )


def with_preprocessing(spec: ModelSpec, section: DataSection) -> ModelSpec:
    """The spec with the preprocessing that its images get: the recipe's `crop_pct` and `resize` before the model's."""
    own = spec.preprocessing
    update = {"crop_pct": section.crop_pct or own.crop_pct, "resize": section.resize or own.resize}
    return spec.model_copy(update={"preprocessing": own.model_copy(update=update)})


def _with_known(opening: Opening, record: DataRecord | None, part: str) -> Opening:
    if record is None:
        return opening
    begin = f"{part}/"
    known = {name.removeprefix(begin): one.pixels for name, one in record.images.items() if name.startswith(begin)}
    return Opening(opening.geometry, opening.memory_limit, opening.progress, known)


def _check_apart(pools: Mapping[str, Found]) -> None:
    """Two parts must not be the same images: accuracy would be on what was trained or calibrated on."""
    seen: dict[str, Path] = {}
    for part, pool in pools.items():
        place = Path(pool.where).resolve()  # of what is no folder, a path like no other
        for other, there in seen.items():
            if place.is_relative_to(there) or there.is_relative_to(place):
                raise DataError(
                    f"`{other}` and `{part}` are the same images, or one lies within the other",
                    where=pool.where,
                    hint=f"leave `{part}` out: it is then set aside from the others; or name images of its own",
                )
        seen[part] = place


def _is_inside(root: Path, name: str) -> bool:
    """Whether this is a sub-folder of the root, not a source of its own."""
    return not Path(name).is_absolute() and (root / name).is_dir()


def _files(found: Mapping[str, Found]) -> dict[str, str]:
    """The hash of each file that the parts consist of."""
    hashes: dict[str, str] = {}
    for part, pool in found.items():
        hashes |= {f"{part}/{name}": value for name, value in hashes_of(Path(pool.where), pool.files()).items()}
    return hashes


def _labels(pools: Mapping[str, Labelled], order: tuple[str, ...]) -> dict[str, Indices]:
    """Each pool's labels as places in the order of the classes."""
    mapped = {}
    for part, pool in pools.items():
        if pool.targets is not None:
            mapped[part] = pool.labels
            continue
        places = places_of(pool, order)
        mapped[part] = np.array([places[number] for number in range(len(pool.classes))], np.int64)[pool.labels]
    return mapped


def _split(
    name: str,
    places: Mapping[str, Indices],
    pools: Mapping[str, Labelled],
    labels: Mapping[str, Indices],
    order: tuple[str, ...],
    spec: ModelSpec,
) -> Split:
    ((part, indices),) = places.items()
    return Split(
        name=name,
        classes=order,
        labels=labels[part][indices],
        images=pools[part].images,
        indices=indices,
        preprocessing=spec.preprocessing,
        targets=pools[part].targets,
    )


def _images(
    pools: Mapping[str, Labelled],
    labels: Mapping[str, Indices],
    division: Division,
) -> dict[str, ImageRecord]:
    images: dict[str, ImageRecord] = {}
    for part, pool in pools.items():
        of = [LEFT_OUT] * len(pool.names)
        for split in PARTS:  # calibration after training: with no training images they are the same
            for place in division[split].get(part, np.empty(0, np.int64)):
                of[place] = split
        for name, split, pixels, label in zip(pool.names, of, pool.pixels, labels[part].tolist(), strict=True):
            images[f"{part}/{name}"] = ImageRecord(split, pixels, label)
    return images


def _as_recorded(pools: Mapping[str, Labelled], record: DataRecord, spec: ModelSpec) -> Splits:
    """The splits as the record has them.

    Raises:
        DataError: the images are not those of the record.
    """
    labels = _labels(pools, record.classes)
    now = {
        f"{part}/{name}": (pixels, label)
        for part, pool in pools.items()
        for name, pixels, label in zip(pool.names, pool.pixels, labels[part].tolist(), strict=True)
    }
    before = {name: (one.pixels, one.label) for name, one in record.images.items()}
    if now != before:
        raise DataError(
            "the data are not what they were when the run was loaded: "
            + (changes({n: str(v) for n, v in before.items()}, {n: str(v) for n, v in now.items()}) or "other order"),
            hint="run again with --resume: what depends on them is done again; or bring them back",
        )
    splits: dict[str, Split] = {}
    for split in PARTS:
        of = "calibration" if split == "train" and record.train_is_calibration else split
        for part, pool in pools.items():
            chosen = [i for i, name in enumerate(pool.names) if record.images[f"{part}/{name}"].split == of]
            if chosen or split not in splits:
                splits[split] = _split(split, {part: np.array(chosen, np.int64)}, pools, labels, record.classes, spec)
    return Splits(**splits, train_is_calibration=record.train_is_calibration, record=record)
