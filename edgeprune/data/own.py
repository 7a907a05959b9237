"""The user's own data set: a function or class that gives a `torch.utils.data.Dataset` for each split.

    def make(split: str) -> Dataset | None: ...      # "train", "validation", "test"

An item is (input, target): the input as the model takes it, floats (channels, height, width), prepared and augmented by
the data set itself; the target a tensor, a number, or these in tuples, lists and dicts, as the task reads them. For a
model of several inputs, the input is a dict, a dataclass or a NamedTuple of them by name, or a tuple in their order.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from edgeprune.data.augment import NOTHING_STRONGER, Stronger
from edgeprune.data.copies import tell_copies, without_copies
from edgeprune.data.divide import PARTS, divide
from edgeprune.data.images import Bytes, Indices
from edgeprune.data.pools import Labelled
from edgeprune.data.record import LEFT_OUT, DataRecord, ImageRecord
from edgeprune.data.split import Part, Split, Splits, whole
from edgeprune.data.workers import made_by_workers
from edgeprune.errors import DataError, ModelError, RecipeError
from edgeprune.models.factory import fixed_seed, users_object
from edgeprune.models.inputs import by_name, packed
from edgeprune.models.trust import is_users_data
from edgeprune.progress import Progress
from edgeprune.recipe import Augment, DataSection

if TYPE_CHECKING:
    from edgeprune.models.spec import ModelSpec

Item = tuple[Tensor, Any]
Digests = tuple[str, int]
Form = tuple[tuple[str, str, tuple[int, ...]], ...]  # of each tensor of a target: its place, kind and shape
LOOKED_AT_AGAIN = 32  # items of each part, when all were looked at, and when a run goes on


class OwnItems:
    """Items of a user's data set, in the place of a pool's images; they are no pixels of ours."""

    streams = False

    def __init__(self, dataset: Any, part: str, source: str, spec: ModelSpec) -> None:
        self._dataset, self._part, self._source, self._spec = dataset, part, source, spec

    def __len__(self) -> int:
        return len(self._dataset)

    def pixels(self, indices: Indices) -> Bytes:  # noqa: ARG002
        raise DataError("a data set of your own gives no pixels", where=self._source)

    def item(self, index: int, *, seed: int = 0) -> Item:
        """Input and target, with the generators (torch's, numpy's, Python's) at a seed.

        Raises:
            DataError: the data set fails, or its item is no such pair.
        """
        where = f"{self._source}, item {index} of {self._part}"
        try:
            with fixed_seed(seed):
                item = self._dataset[index]
        except Exception as error:  # it is the user's code
            lines = str(error).strip().splitlines() or [""]
            raise DataError(f"the data set failed: {type(error).__name__}: {lines[0]}", where=where) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"an item is {type(item).__name__}, not (input, target)", where=where, hint="let it return two things"
            )
        given, target = item
        given = self._taken(given, where)
        try:
            return given, pytree.tree_map(_as_tensor, target)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"a target holds what is no number: {str(error).splitlines()[0]}",
                where=where,
                hint="let the target be a tensor, a number, or these in tuples, lists and dicts",
            ) from error

    def _taken(self, given: Any, where: str) -> Tensor:
        """An input as it goes through EdgePrune, float32; of several inputs all in a row (see `models/inputs.py`)."""
        spec = self._spec
        if not spec.inputs:
            return _floats(given, "an input", spec.input_size, where)
        try:
            parts = by_name(given, spec.inputs)
        except ValueError as error:
            raise DataError(
                f"the inputs of an item are not the model's: {error}",
                where=where,
                hint="let an item be (inputs, target), the inputs a dict by name or a tuple in their order",
            ) from error
        floats = [_floats(part, one.name, one.shape, where) for part, one in zip(parts, spec.inputs, strict=True)]
        return packed([part[None] for part in floats])[0]

    def check_same(self, index: int, item: Item, before: Digests) -> None:
        """Check that an item, drawn with seed 0, is what it was.

        Raises:
            DataError: it is not.
        """
        if digests_of(item) != before:
            raise DataError(
                "the item is not what it was when it was read before",
                where=f"{self._source}, item {index} of {self._part}",
                hint="a data set has to give the same items each time (what it draws at random it draws from torch's, "
                "numpy's or Python's generators); bring the items back, or begin a new run",
            )


def _floats(given: Any, what: str, shape: tuple[int, ...], where: str) -> Tensor:
    """An input in float32.

    Raises:
        DataError: it is of another shape or type, or is not finite.
    """
    given = torch.as_tensor(given) if isinstance(given, np.ndarray) else given
    if not isinstance(given, Tensor) or tuple(given.shape) != shape or not given.is_floating_point():
        got = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise DataError(
            f"{what} is {got}, the model takes floats {shape}",
            where=where,
            hint="let the data set give what the model takes: floats, prepared; an image as (channels, height, width)",
        )
    if given.layout != torch.strided or given.is_meta:
        raise DataError(f"{what} is a sparse tensor, or one without values", where=where, hint="give it dense")
    if not given.isfinite().all():
        raise DataError(f"{what} holds NaN or infinity", where=where)
    return given.float()


def digests_of(item: Item) -> Digests:
    """Of an input, and of its target."""
    given, target = item
    found = hashlib.sha256(np.ascontiguousarray(given.numpy()).data)
    sums = [zlib.crc32(np.ascontiguousarray(leaf.numpy()).tobytes()) for leaf in pytree.tree_leaves(target)]
    return found.hexdigest()[:32], zlib.crc32(repr(sums).encode())


def _form(target: Any) -> Form:
    leaves, _ = pytree.tree_flatten_with_path(target)
    return tuple(sorted((pytree.keystr(path), str(leaf.dtype), tuple(leaf.shape)) for path, leaf in leaves))


@dataclass(frozen=True, eq=False)
class OwnSplit(Split):
    """Items of a user's data set. They are augmented there, not here.

    `known`: what each item of the pool was. Where nothing is drawn, the first item of each batch is held against it.
    """

    known: tuple[Digests, ...] = field(default=(), repr=False)

    @property
    def has_pixels(self) -> bool:
        return False

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: Augment = "none",  # noqa: ARG002 - by the data set itself
        stronger: Stronger = NOTHING_STRONGER,
        part: Part = whole,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Any]]:
        """Inputs, float32 (n, C, H, W), or (n, 1, 1, numbers) of several inputs, and their targets, collated. A seed
        shuffles, and is that of what the data set draws; without one items come in order, drawn the same each time.

        Raises:
            DataError: an item cannot be read, targets cannot be put together, or a worker died.
            RecipeError: a stronger augmentation is asked for.
        """
        if stronger != NOTHING_STRONGER:
            raise RecipeError(
                "the data set is your own, and augments its items itself",
                where="tune",
                hint="leave randaugment, erasing and repeats out",
            )
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        reading = _Reading(self, order, batch_size, part, seed)
        yield from made_by_workers(reading, reading.count, workers) if workers else map(reading, range(reading.count))


@dataclass(frozen=True, eq=False)
class _Reading:
    """Makes a batch, by its number, in any order and in any process."""

    split: OwnSplit
    order: Indices
    batch_size: int
    part: Part
    seed: int | None

    @property
    def count(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __call__(self, number: int) -> tuple[Tensor, Any]:
        items = self.split.images
        assert isinstance(items, OwnItems)
        some = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        places = self.split.indices[some[self.part(len(some))]].tolist()
        seeds = [0 if self.seed is None else _seed_of(self.seed, place) for place in places]
        pairs = [items.item(place, seed=seed) for place, seed in zip(places, seeds, strict=True)]
        if self.seed is None and self.split.known and pairs:
            items.check_same(places[0], pairs[0], self.split.known[places[0]])
        inputs = torch.stack([given for given, _ in pairs])
        return inputs, _collated([target for _, target in pairs], self.split.name)


def open_own(
    section: DataSection, spec: ModelSpec, *, seed: int, record: DataRecord | None, progress: Progress
) -> Splits:
    """Open a user's own data set; see the head of this file, and `open_data`.

    Raises:
        RecipeError: [data] names no such data set, or asks for what it does itself.
        DataError: it cannot be made, is empty, fails on an item, two parts are the same items, or it is not that of the
            record.
    """
    _check_asked(section, spec)
    items = {part: made for part in ("train", "validation", "test") if (made := _made(section, part, spec)) is not None}
    if "train" not in items:
        raise DataError('the data set gives nothing for "train"', where=section.source, hint="return a Dataset for it")
    pools = {part: _pool(part, one, section.source, record, progress) for part, one in items.items()}
    if record is not None:
        return _as_recorded(pools, record, spec)
    kept = without_copies(pools, progress=progress)
    for pool in pools.values():
        tell_copies(pool, progress=progress)
    validated = pools.pop("validation", None)
    wanted = section.model_copy(update={"validation_images": 0}) if validated is not None else section
    division = divide(wanted, pools, kept, seed=seed, progress=progress)
    if validated is not None:
        pools["validation"] = validated
        division["validation"] = {"validation": kept["validation"]}
    splits = {name: _split(name, *next(iter(of.items())), pools, spec) for name, of in division.items()}
    images: dict[str, ImageRecord] = {}
    for part, pool in pools.items():
        of = [LEFT_OUT] * len(pool.names)
        for name in PARTS:
            for place in division[name].get(part, np.empty(0, np.int64)):
                of[place] = name
        for name, one, pixels, label in zip(pool.names, of, pool.pixels, pool.labels.tolist(), strict=True):
            images[f"{part}/{name}"] = ImageRecord(one, pixels, label)
    found = DataRecord(spec.labels, {}, images, False, (), kind="own")
    return Splits(**splits, train_is_calibration=False, record=found)


def _check_asked(section: DataSection, spec: ModelSpec) -> None:
    if not is_users_data(section.source):
        reads = "the model has inputs that only" if spec.inputs else "the task reads what"
        raise RecipeError(
            f"{reads} a data set of your own gives, and {section.source} is none",
            where="data.source",
            hint="name a function that returns it, file.py:function; or say in the task what it needs (`target`, as "
            '"class" or "mask"): see docs/data.md',
        )
    given = {name: getattr(section, name) for name in ("train", "test", "calibration", "resize", "crop_pct")}
    if asked := [f"data.{name}" for name, value in given.items() if value is not None]:
        raise RecipeError(
            f"the data set is your own, and says this itself: {', '.join(asked)}",
            where=asked[0],
            hint='leave it out: the function is called with "train", "validation" and "test", and prepares its items',
        )


def _made(section: DataSection, part: str, spec: ModelSpec) -> OwnItems | None:
    try:
        with users_object(section.source) as make, fixed_seed():
            dataset = make(part)
    except ModelError as error:
        raise DataError(error.what, where=section.source, hint=error.hint) from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise DataError(
            f"the data set cannot be made for {part!r}: {type(error).__name__}: {lines[0]}",
            where=section.source,
            hint='it is called with "train", "validation" and "test", and returns a Dataset, or None where it has none',
        ) from error
    if dataset is None:
        return None
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"for {part!r} it gives {type(dataset).__name__}, which has no length or no items",
            where=section.source,
            hint="return a map-style torch.utils.data.Dataset",
        )
    if len(dataset) == 0:
        raise DataError(f"the data set is empty for {part!r}", where=section.source)
    return OwnItems(dataset, part, section.source, spec)


def _pool(part: str, items: OwnItems, source: str, record: DataRecord | None, progress: Progress) -> Labelled:
    """The items' digests: all items are looked at, and some a second time; of known ones some.

    Raises:
        DataError: an item cannot be read, or is not what it was; or targets are of several forms.
    """
    count = len(items)
    known = {} if record is None else {name: one for name, one in record.images.items() if name.startswith(f"{part}/")}
    if record is not None and len(known) != count:
        raise DataError(
            f"the data set has {count} items for {part!r}, and had {len(known)} when the run was loaded",
            where=source,
            hint="bring them back, or begin a new run",
        )
    again = np.linspace(0, count - 1, min(count, LOOKED_AT_AGAIN)).astype(int).tolist()
    if record is not None:
        before = [known[f"{part}/{index}"] for index in range(count)]
        pixels, sums = [one.pixels for one in before], [one.label for one in before]
    else:
        pixels, sums = _looked_at(part, items, source, progress)
    for index in again:
        items.check_same(index, items.item(index), (pixels[index], sums[index]))
    names = tuple(str(number) for number in range(count))
    return Labelled(source, items, np.array(sums, np.int64), (), names, tuple(pixels), numbered=True)


def _looked_at(part: str, items: OwnItems, source: str, progress: Progress) -> tuple[list[str], list[int]]:
    """The digests of all inputs, and of all targets.

    Raises:
        DataError: an item cannot be read, or targets are of several forms.
    """
    pixels, sums = list[str](), list[int]()
    first: Form | None = None
    for index in range(len(items)):
        item = items.item(index)
        (digest, summed), form = digests_of(item), _form(item[1])
        first = form if first is None else first
        if form != first:
            raise DataError(
                f"the target is {_told(form)}, that of item 0 {_told(first)}: they cannot be put together",
                where=f"{source}, item {index} of {part}",
                hint="give all items targets of one form: as many boxes, padded, say",
            )
        pixels.append(digest)
        sums.append(summed)
        progress.update(f"looking at the {part} items of {source}", index + 1, len(items))
    return pixels, sums


def _told(form: Form) -> str:
    return (
        ", ".join(f"{place} {kind.removeprefix('torch.')} {shape}".strip() for place, kind, shape in form) or "nothing"
    )


def _split(name: str, part: str, indices: Indices, pools: dict[str, Labelled], spec: ModelSpec) -> OwnSplit:
    return OwnSplit(
        name=name,
        classes=spec.labels,
        labels=np.zeros(len(indices), np.int64),
        images=pools[part].images,
        indices=indices,
        preprocessing=spec.preprocessing,
        known=tuple(zip(pools[part].pixels, pools[part].labels.tolist(), strict=True)),
    )


def _as_recorded(pools: dict[str, Labelled], record: DataRecord, spec: ModelSpec) -> Splits:
    splits: dict[str, OwnSplit] = {}
    for name in PARTS:
        for part, pool in pools.items():
            chosen = [i for i, item in enumerate(pool.names) if record.images[f"{part}/{item}"].split == name]
            if chosen or name not in splits:
                splits[name] = _split(name, part, np.array(chosen, np.int64), pools, spec)
    return Splits(**splits, train_is_calibration=record.train_is_calibration, record=record)


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def _collated(targets: Sequence[Any], name: str) -> Any:
    try:
        return default_collate(list(targets))
    except (RuntimeError, TypeError, KeyError) as error:
        raise DataError(
            f"targets of the {name} items cannot be put together: {str(error).splitlines()[0]}",
            where="data.source",
            hint="give all items targets of one form: as many boxes, padded, say",
        ) from error


def _seed_of(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
