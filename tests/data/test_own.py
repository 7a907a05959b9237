"""A data set of the user's own: what it gives, and the ways in which it can be wrong, also while it is read."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from small_data import NAMES, opened

from edgeprune.data.augment import Stronger
from edgeprune.errors import DataError, RecipeError

HEAD = """
import os
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

HERE = Path(__file__).parent


class Boxes(Dataset):
    '''The nth item of a split is filled with a number of its own, and its target tells it.'''

    def __init__(self, start, count):
        self.start, self.count = start, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        number = self.start + index
        return torch.full((3, 16, 16), float(number)), {"box": torch.tensor([number, 1.0]), "kind": number % 3}


"""
MAKE = """
def make(split):
    return {"train": Boxes(0, 20), "test": Boxes(100, 6)}.get(split)
"""


def data_set(folder: Path, code: str = "", make: str = MAKE) -> str:
    """A file of the user's, and its source."""
    file = folder / f"own_{len(list(folder.glob('own_*.py')))}.py"
    file.write_text(HEAD + textwrap.dedent(code) + textwrap.dedent(make))
    return f"{file}:make"


def numbers(split: Any, **more: Any) -> list[float]:
    return [float(image[0, 0, 0]) for images, _ in split.batches(3, **more) for image in images]


def test_items_and_targets_come_as_the_data_set_gives_them(tmp_path: Path) -> None:
    splits = opened(data_set(tmp_path), "own")
    assert numbers(splits.test) == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    images, targets = next(splits.test.batches(4))
    assert images.shape == (4, 3, 16, 16)
    assert targets["box"].tolist() == [[100.0, 1.0], [101.0, 1.0], [102.0, 1.0], [103.0, 1.0]]
    assert targets["kind"].tolist() == [1, 2, 0, 1]
    seen = [number for name in NAMES[:3] for number in numbers(getattr(splits, name))]
    assert sorted(seen) == [float(number) for number in range(20)]
    assert sorted(numbers(splits.train, seed=5)) == sorted(numbers(splits.train))
    assert numbers(splits.train, seed=5) == numbers(splits.train, seed=5) != numbers(splits.train, seed=6)


def test_its_own_validation_items_validate(tmp_path: Path) -> None:
    make = 'def make(split):\n    return Boxes(*{"train": (0, 20), "test": (100, 6), "validation": (50, 4)}[split])'
    splits = opened(data_set(tmp_path, make=make), "own")
    assert numbers(splits.validation) == [50.0, 51.0, 52.0, 53.0]
    assert len(splits.train) + len(splits.calibration) == 20
    copied = opened(data_set(tmp_path, make=make.replace("(50, 4)", "(19, 4)")), "own")
    assert numbers(copied.validation) == [19.0, 20.0, 21.0, 22.0]
    assert max(numbers(copied.train) + numbers(copied.calibration)) == 18.0  # what validates is not trained on


def test_without_test_items_some_are_set_aside(tmp_path: Path) -> None:
    splits = opened(
        data_set(tmp_path, make='def make(split):\n    return Boxes(0, 20) if split == "train" else None'), "own"
    )
    assert sorted(n for name in NAMES for n in numbers(getattr(splits, name))) == [float(n) for n in range(20)]
    assert len(splits.test) == 4


def test_the_record_gives_the_same_splits(tmp_path: Path) -> None:
    source = data_set(tmp_path)
    splits = opened(source, "own")
    again = opened(source, "own", record=splits.record)
    for name in NAMES:
        assert numbers(getattr(again, name)) == numbers(getattr(splits, name))


def test_what_it_draws_at_random_is_that_of_the_seed(tmp_path: Path) -> None:
    code = """
    class Noisy(Boxes):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image + torch.rand(1) + np.random.rand() + random.random(), target
    """
    splits = opened(data_set(tmp_path, code, MAKE.replace("Boxes", "Noisy")), "own")
    state = torch.get_rng_state()
    assert numbers(splits.test) == numbers(splits.test)
    assert numbers(splits.train, seed=1) == numbers(splits.train, seed=1)
    assert sorted(numbers(splits.train, seed=1)) != sorted(numbers(splits.train, seed=2))
    assert torch.equal(state, torch.get_rng_state())


def test_workers_give_the_same_batches(tmp_path: Path) -> None:
    train = opened(data_set(tmp_path), "own").train.take(9)
    assert numbers(train, seed=3, workers=2) == numbers(train, seed=3)
    halves = [numbers(train, seed=3, part=lambda size, h=half: slice(h, size, 2)) for half in range(2)]
    assert sorted(halves[0] + halves[1]) == sorted(numbers(train, seed=3))


def test_a_batch_of_one(tmp_path: Path) -> None:
    test = opened(data_set(tmp_path), "own").test
    assert [len(images) for images, _ in test.batches(1)] == [1] * 6
    assert [tuple(targets["box"].shape) for _, targets in test.batches(1, seed=0)] == [(1, 2)] * 6


def test_it_augments_its_items_itself(tmp_path: Path) -> None:
    train = opened(data_set(tmp_path), "own").train
    with refused(RecipeError, "tune", "randaugment"):
        next(train.batches(2, seed=0, stronger=Stronger(erasing=0.5)))


# What is wrong


@pytest.mark.parametrize("source", ["digits", "csv:all.csv", "npz:all.npz", "photos", "coco:a.json"])
def test_a_task_that_needs_such_a_data_set_takes_no_other(source: str) -> None:
    with refused(RecipeError, "data.source", source):
        opened(source, "own")


@pytest.mark.parametrize("asked", [{"test": "more"}, {"calibration": "digits"}, {"crop_pct": 0.9}])
def test_what_the_data_set_says_itself_is_not_asked_for(tmp_path: Path, asked: dict[str, Any]) -> None:
    with refused(RecipeError, *(f"data.{name}" for name in asked)):
        opened(data_set(tmp_path), "own", **asked)


@pytest.mark.parametrize("kind", ["class", "mask", "values"])
def test_it_serves_any_task(tmp_path: Path, kind: Any) -> None:
    assert numbers(opened(data_set(tmp_path), kind).test) == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        ("def make(split):\n    return None", ["train"]),
        ("def make(split):\n    return Boxes(0, 0)", ["train"]),
        ("def make(split):\n    return 5", ["train", "int"]),
        ("def make(split):\n    raise OSError('the disk is gone')", ["OSError", "the disk is gone"]),
        ("def make():\n    return Boxes(0, 20)", ["TypeError"]),
        ("def other(split):\n    return Boxes(0, 20)", ["make"]),
        ("def make(split):\n    return Boxes(0, 20)", ["test", "validation"]),  # the same items
    ],
)
def test_a_data_set_that_cannot_be_made_is_refused(tmp_path: Path, make: str, facts: list[object]) -> None:
    with refused(DataError, *facts):
        opened(data_set(tmp_path, make=make), "own")


@pytest.mark.parametrize(
    ("item", "facts"),
    [
        ("raise KeyError('box')", ["KeyError", "box"]),
        ("return image", ["Tensor"]),
        ("return image, target, 1", ["tuple"]),
        ("return 5, target", ["int"]),
        ("return image[:, :8], target", ["(3, 8, 16)", "(3, 16, 16)"]),
        ("return image.byte(), target", ["torch.uint8"]),
        ("return image / 0, target", ["NaN"]),
        ("return image, {**target, 'name': 'cat'}", ["tensor"]),
        ("return image, {'box': target['box']}", ["0", "kind"]),
        ("return image, {**target, 'box': torch.zeros(3, 2)}", ["(3, 2)", "(2,)"]),
        ("return image, {**target, 'kind': 0.5}", ["float32", "int64"]),
    ],
)
def test_a_wrong_item_is_refused_when_the_data_are_opened(tmp_path: Path, item: str, facts: list[object]) -> None:
    code = f"""
    class Wrong(Boxes):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            if self.start + index == 7:
                {item}
            return image, target
    """
    source = data_set(tmp_path, code, MAKE.replace("Boxes", "Wrong"))
    with refused(DataError, f"{source}, item 7 of train", *facts):
        opened(source, "own")


COUNTING = """
class Counting(Boxes):
    '''Its items are others each time.'''

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        self.reads = getattr(self, "reads", 0) + 1
        return (image + self.reads, target) if WHAT == "input" else (image, {**target, "kind": self.reads})
"""


@pytest.mark.parametrize("what", ["input", "target"])
def test_items_that_differ_the_second_time_are_refused(tmp_path: Path, what: str) -> None:
    source = data_set(tmp_path, f"WHAT = {what!r}\n{COUNTING}", MAKE.replace("Boxes", "Counting"))
    with refused(DataError, f"{source}, item 0 of train"):
        opened(source, "own")


FROM_A_FILE = """
class Stored(Boxes):
    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image + float((HERE / "offset.txt").read_text()), target
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_items_that_change_while_they_are_used_are_refused(tmp_path: Path, workers: int) -> None:
    (tmp_path / "offset.txt").write_text("0")
    source = data_set(tmp_path, FROM_A_FILE, MAKE.replace("Boxes", "Stored"))
    splits = opened(source, "own")
    assert numbers(splits.test)[0] == 100.0
    (tmp_path / "offset.txt").write_text("1")
    with refused(DataError, f"{source}, item 0 of test"):
        numbers(splits.test, workers=workers)
    with refused(DataError, f"{source}, item 0 of train"):
        opened(source, "own", record=splits.record)
    (tmp_path / "offset.txt").unlink()
    with refused(DataError, "FileNotFoundError"):
        numbers(splits.train, seed=0, workers=workers)


def test_a_data_set_of_another_length_is_refused_when_a_run_goes_on(tmp_path: Path) -> None:
    splits = opened(data_set(tmp_path), "own")
    longer = data_set(tmp_path, make=MAKE.replace("20", "21"))
    with refused(DataError, 21, 20, longer):
        opened(longer, "own", record=splits.record)


def test_targets_that_fit_at_first_and_cannot_be_put_together_later_are_refused(tmp_path: Path) -> None:
    code = """
    class Growing(Boxes):
        '''Random numbers say how many boxes there are: with the seed of the look at it always one.'''

        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            drawn = torch.initial_seed() and int(torch.randint(1, 5, ()))
            return image, {"box": torch.zeros(1 if torch.initial_seed() == 0 else drawn, 2)}
    """
    train = opened(data_set(tmp_path, code, MAKE.replace("Boxes", "Growing")), "own").train
    with refused(DataError, "train", "data.source"):
        list(train.batches(8, seed=1))


def test_a_worker_that_dies_in_the_data_set_is_told(tmp_path: Path) -> None:
    code = f"""
    class Dying(Boxes):
        def __getitem__(self, index):
            if os.getpid() != {os.getpid()} and self.start + index < 100:
                os._exit(1)
            return super().__getitem__(index)
    """
    train = opened(data_set(tmp_path, code, MAKE.replace("Boxes", "Dying")), "own").train
    with refused(DataError, "tune.workers", "--resume"):
        numbers(train, seed=0, workers=1)


def test_an_error_in_a_worker_is_the_items(tmp_path: Path) -> None:
    code = f"""
    class Failing(Boxes):
        def __getitem__(self, index):
            if os.getpid() != {os.getpid()}:
                raise RuntimeError("DataLoader worker, or no such thing")
            return super().__getitem__(index)
    """
    source = data_set(tmp_path, code, MAKE.replace("Boxes", "Failing"))
    test = opened(source, "own").test
    with refused(DataError, f"{source}, item 0 of test", "RuntimeError"):
        numbers(test, workers=1)


def test_arrays_are_taken_for_tensors(tmp_path: Path) -> None:
    code = """
    class Arrays(Boxes):
        def __getitem__(self, index):
            image, target = super().__getitem__(index)
            return image.numpy().astype(np.float64), (np.float32(index), np.arange(2))
    """
    test = opened(data_set(tmp_path, code, MAKE.replace("Boxes", "Arrays")), "own").test
    images, (first, second) = next(test.batches(2))
    assert images.dtype == torch.float32
    assert first.tolist() == [0.0, 1.0]
    assert np.array_equal(second.numpy(), [[0, 1], [0, 1]])
