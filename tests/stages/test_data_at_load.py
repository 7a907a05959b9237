"""What the load stage notices of a task's data: numbers of classes that the model has not, and files that changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from PIL import Image

from edgeprune.data.record import RECORD, read_record
from edgeprune.errors import DataError, ModelError
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.recipe import Recipe
from edgeprune.stages.context import Context

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from small_data import SIDE, csv_file, save_images
from small_jobs import Hearer, recipe

COUNT = 40
NET = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))
"""


OWN = """
import torch
from torch import nn
from torch.utils.data import Dataset


class Colours(Dataset):
    '''Red, green and blue, and a shade of its own for each image.'''

    def __init__(self, start, count):
        self.start, self.count = start, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.full((3, 16, 16), (self.start + index) / 1000)
        image[index % 3] += 1
        return image, index % 3


def make(split):
    return {"train": Colours(0, 30), "test": Colours(100, 12)}.get(split)


def net(turn=0):
    '''Names the colour, or the next one.'''
    conv = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3).roll(turn, 0)[:, :, None, None])
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def masked(root: Path, *, start: int = 0) -> list[Path]:
    """Images and masks of three classes."""
    (root / "masks").mkdir(parents=True)
    files = [root / "masks" / image.name for image in save_images(root / "images", COUNT, start=start)]
    for number, file in enumerate(files):
        save_mask(file, np.random.default_rng(number).integers(0, 3, (SIDE, SIDE)))
    return files


def save_mask(file: Path, numbers: np.ndarray[Any, Any]) -> None:
    Image.fromarray(numbers.astype(np.uint8)).save(file)


def asked(root: Path, source: str, **task: Any) -> Recipe:
    (root / "segmenter.py").write_text(NET)
    return recipe(
        model={"factory": f"{root / 'segmenter.py'}:net", "input_size": (3, SIDE, SIDE), "untrained": True},
        data={"source": source, "validation_images": 4, "calibration_images": 4},
        task={"name": "segmentation", **task},
    )


def load(given: Recipe, folder: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    run = prepare_run(given, folder, resume=True)
    do_stage(Context(run, Hearer(said)), "load")
    return run.folder / "load", said


@pytest.mark.parametrize("place", [3, COUNT - 4])
def test_a_number_beyond_the_classes_in_any_mask_is_refused(tmp_path: Path, place: int) -> None:
    files = masked(tmp_path / "data")
    numbers = np.zeros((SIDE, SIDE))
    numbers[9, 9] = 200
    save_mask(files[place], numbers)
    source = str(tmp_path / "data")
    with refused(DataError, 200, 3, str(files[place])):
        load(asked(tmp_path, source), tmp_path / "run")
    load(asked(tmp_path, source, ignore=200), tmp_path / "ignoring")
    numbers[9, 9] = 255
    save_mask(files[place], numbers)
    load(asked(tmp_path, source), tmp_path / "other")


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_part_is_looked_at(tmp_path: Path, part: str) -> None:
    files = {one: masked(tmp_path / "data" / one, start=start) for one, start in (("train", 0), ("test", COUNT))}
    save_mask(files[part][-3], np.full((SIDE, SIDE), 3))
    with refused(DataError, 3, str(files[part][-3])):
        load(asked(tmp_path, str(tmp_path / "data")), tmp_path / "run")


def test_a_changed_table_of_masks_is_loaded_again(tmp_path: Path) -> None:
    files = masked(tmp_path / "data")
    rows: list[dict[str, object]] = [{"image": f"images/{file.name}", "mask": f"masks/{file.name}"} for file in files]
    given = asked(tmp_path, csv_file(tmp_path / "data" / "all.csv", rows))
    loaded, _ = load(given, tmp_path / "run")
    before = read_record(loaded / RECORD)
    assert len(before.images) == COUNT
    assert json.loads((loaded / "spec.json").read_text())["source"].endswith("segmenter.py:net")
    assert read_record(load(given, tmp_path / "run")[0] / RECORD) == before
    csv_file(tmp_path / "data" / "all.csv", rows[:-1])
    again, said = load(given, tmp_path / "run")
    assert len(read_record(again / RECORD).images) == COUNT - 1
    assert any("all.csv" in one for one in said)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_classifier_is_measured_on_a_data_set_of_the_users_own(tmp_path: Path, turn: int) -> None:
    file = tmp_path / "colours.py"
    file.write_text(OWN)
    model = {"factory": f"{file}:net", "input_size": (3, SIDE, SIDE), "arguments": {"turn": turn}, "untrained": False}
    given = recipe(model=model, data={"source": f"{file}:make"})
    if turn:  # never right
        with refused(ModelError, "task"):
            load(given, tmp_path / "run")
        return
    folder, _ = load(given, tmp_path / "run")
    knows = json.loads((folder / "stage.json").read_text())["result"]["knows"]
    assert (knows["value"], knows["images"]) == (1.0, 12)
