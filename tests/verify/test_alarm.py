"""The alarm at load: what the unpruned model knows is told, and a setting that must be wrong is refused and named."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import COLOURS, pictures
from PIL import Image

from edgeprune.errors import ModelError, RecipeError
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe, resolve_paths
from edgeprune.stages.context import Context
from edgeprune.verify.alarm import claimed_accuracy, near_chance, surely_better

FACTORY = f"{Path(__file__).with_name('colours.py')}:net"


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def archive(folder: Path, per_class: int, *, grey: bool = False, of: int = 12) -> str:
    """An .npz source whose test images are others than those for training."""
    arrays: dict[str, Any] = {}
    for seed, part in enumerate(("train", "test")):
        images, labels = pictures(per_class, grey=grey, seed=seed)
        arrays |= {f"{part}_images": images[labels < of], f"{part}_labels": labels[labels < of]}
    np.savez(folder / "colours.npz", **arrays)
    return f"npz:{folder / 'colours.npz'}"


def class_folders(root: Path, names: list[str], per_class: int = 10) -> str:
    """`train` and `test` folders; the colours go to the names in this order."""
    for seed, part in enumerate(("train", "test")):
        images, labels = pictures(per_class, seed=seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            if label < len(names):
                folder = root / part / names[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{number}.png", compress_level=1)
    return str(root)


def load(folder: Path, source: str, said: Listener | None = None, grey: bool = False, **model: Any) -> dict[str, Any]:
    """The result of the load stage of a run; the model is this file's."""
    own = {"factory": FACTORY, "input_size": (1 if grey else 3, 8, 8)} if "name" not in model else {}
    recipe = parse_recipe({"model": {**own, **model}, "data": {"source": source}})
    run = prepare_run(resolve_paths(recipe, folder), folder / "run", resume=True)
    do_stage(Context(run, said or Silent()), "load")
    record = run.record("load")
    assert record is not None
    return record.result


def refused(folder: Path, source: str, **model: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, source, **model)
    assert caught.value.exit_code == 2
    assert not (folder / "run" / "load").exists(), "a refused model leaves no finished stage"
    return str(caught.value)


def recipe_lines(message: str) -> dict[str, Any]:
    """The `model.key = value` lines that a message says to write."""
    found: dict[str, Any] = {}
    for part in message.replace(" and model.", "\nmodel.").replace("give model.", "\nmodel.").splitlines():
        if part.startswith("model.") and " = " in part:
            line = part.removeprefix("model.").partition("]")
            found |= tomllib.loads(line[0] + line[1])
    return found


def test_what_the_model_knows_is_told_and_recorded_with_its_interval(tmp_path: Path) -> None:
    listener = Listener()
    result = load(tmp_path, archive(tmp_path, 10), listener)
    knows = result["knows"]
    assert (knows["right"], knows["images"], knows["share"]) == (120, 120, 1.0)
    assert 0.95 < knows["low"] < knows["high"] == 1.0
    assert any("120 of 120" in text and "interval" in text for text in listener.said)


def test_a_thousand_test_images_at_most_are_asked_each_class_alike(tmp_path: Path) -> None:
    knows = load(tmp_path, archive(tmp_path, 200))["knows"]
    assert knows["images"] == 1000


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ({"bgr": True}, "BGR"),
        ({"negative": True}, "bright"),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, "ImageNet"),
        ({"mean": [0.5], "std": [0.5]}, "-1 to 1"),
        ({"mean": [0.0], "std": [1 / 255]}, "255"),
    ],
    ids=["bgr", "negative", "imagenet", "inception", "unscaled"],
)
def test_another_preprocessing_is_found_and_named(tmp_path: Path, trained: dict[str, Any], words: str) -> None:
    source = archive(tmp_path, 10)
    message = refused(tmp_path, source, arguments=trained)
    assert words in message
    lines = recipe_lines(message)
    if "mean" in trained:
        assert load(tmp_path, source, arguments=trained, **lines)["knows"]["share"] == 1.0


def test_grey_models_too(tmp_path: Path) -> None:
    source = archive(tmp_path, 12, grey=True)
    assert load(tmp_path, source, grey=True, arguments={"grey": True})["knows"]["share"] > 0.9
    again = tmp_path / "again"
    again.mkdir()
    assert "bright" in refused(again, source, grey=True, arguments={"grey": True, "negative": True})
    assert "-1 to 1" in refused(again, source, grey=True, arguments={"grey": True, "mean": [0.5], "std": [0.5]})
    assert "MNIST" in refused(again, source, grey=True, arguments={"grey": True, "mean": [0.1307], "std": [0.3081]})


TEXT = sorted(range(1, 13), key=str)  # 1, 10, 11, 12, 2, ...


@pytest.mark.parametrize("first", [0, 1], ids=["from 0", "from 1"])
@pytest.mark.parametrize("order", ["natural", "text"])
def test_the_other_order_of_classes_is_found(tmp_path: Path, first: int, order: str) -> None:
    """Whichever order the data is read in: the model has the other one, or the same and is taken."""
    names = [str(first + i) for i in range(12)]
    ranks = {name: place for place, name in enumerate(sorted(names))}
    classes = None if order == "natural" else [names.index(name) for name in sorted(ranks)]
    source = class_folders(tmp_path / "data", names)
    try:
        result = load(tmp_path, source, arguments={"order": classes} if classes else {})
    except ModelError as error:
        message = str(error)
        assert "model.labels" in message
        assert "100.0 %" in message
    else:
        assert result["knows"]["share"] == 1.0


def test_one_of_the_two_orders_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", [str(i + 1) for i in range(12)])
    outcomes = []
    for classes in (None, [number - 1 for number in TEXT]):
        try:
            outcomes.append(load(tmp_path, source, arguments={"order": classes} if classes else {})["knows"]["share"])
        except ModelError:
            outcomes.append(None)
    assert sorted(outcomes, key=str) == [1.0, None]


@pytest.mark.parametrize(
    "order",
    [[1, 0, *range(2, 12)], [3, 1, 2, 5, 4, 0, *range(6, 12)], [*range(11, -1, -1)], [-1, *range(12)]],
    ids=["two swapped", "some moved", "reversed", "a background class first"],
)
def test_any_other_order_is_found_though_most_are_right(tmp_path: Path, order: list[int]) -> None:
    message = refused(tmp_path, archive(tmp_path, 15), arguments={"order": order})
    assert "100.0 %" in message
    assert "model.labels" in message


def test_both_wrong_at_once(tmp_path: Path) -> None:
    trained = {"order": [*range(11, -1, -1)], "mean": [0.5], "std": [0.5]}
    message = refused(tmp_path, archive(tmp_path, 15), arguments=trained)
    assert "-1 to 1" in message
    assert "model.labels" in message


def test_a_model_that_knows_nothing_is_refused_unless_that_is_meant(tmp_path: Path) -> None:
    source = archive(tmp_path, 10)
    assert "untrained" in refused(tmp_path, source, arguments={"blind": True})
    assert load(tmp_path, source, arguments={"blind": True}, untrained=True)["knows"]["images"] == 100
    assert load(tmp_path, source, untrained=True)["knows"]["share"] == 1.0, "one that knows something is fine, too"


def test_random_weights_of_timm_have_to_be_meant(tmp_path: Path) -> None:
    small = {"name": "resnet10t", "num_classes": 12, "input_size": (3, 32, 32)}
    source = archive(tmp_path, 2)
    message = refused(tmp_path, source, **small)
    assert "pretrained" in message
    assert "untrained" in message
    assert load(tmp_path, source, **small, untrained=True)["knows"]["images"] == 24


def test_far_less_than_the_recipe_says_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path, 15)
    half_right = {"order": [0, 1, 2, 3, 4, 5, -1, -1, -1, -1, -1, -1]}
    assert load(tmp_path, source, arguments=half_right, accuracy=0.52)["knows"]["share"] == pytest.approx(0.5)
    again = tmp_path / "again"
    again.mkdir()
    assert "90.0 %" in refused(again, source, arguments=half_right, accuracy=0.9)


def test_the_recipe_can_insist(tmp_path: Path) -> None:
    """Two classes named as each other are refused, and taken where the recipe expects just that accuracy."""
    swapped = {"order": [1, 0, *range(2, 12)]}
    source = archive(tmp_path, 15)
    refused(tmp_path, source, arguments=swapped)
    assert load(tmp_path, source, arguments=swapped, accuracy=0.83)["knows"]["share"] == pytest.approx(10 / 12)


def test_no_knowledge_and_a_known_accuracy_exclude_each_other() -> None:
    with pytest.raises(RecipeError):
        parse_recipe({"model": {"name": "resnet18", "untrained": True, "accuracy": 0.9}, "data": {"source": "digits"}})


def test_one_image_of_each_class_is_an_answer(tmp_path: Path) -> None:
    source = archive(tmp_path, 1)
    assert load(tmp_path, source)["knows"]["share"] == 1.0
    again = tmp_path / "again"
    again.mkdir()
    assert "100.0 % of 12" in refused(again, source, arguments={"negative": True})


def test_too_few_images_to_tell_are_said_to_be(tmp_path: Path) -> None:
    listener = Listener()
    source = archive(tmp_path, 2, of=2)
    load(tmp_path, source, listener, arguments={"order": [0, 1]})
    assert any("too few" in text for text in listener.said)


def test_an_answer_of_nan_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, archive(tmp_path, 2), arguments={"loud": True})
    assert "NaN" in message


@pytest.mark.parametrize(
    ("named", "labels", "nothing"),
    [
        ([0] * 90 + [0] * 10, [0] * 90 + [1] * 10, True),  # right on 90 %, as it says the same to all
        ([0] * 88 + [1] * 2 + [1] * 8 + [0] * 2, [0] * 90 + [1] * 10, False),
        ([0] * 40 + [2] * 30 + [3] * 30, [0] * 40 + [1] * 30 + [2] * 30, True),  # a class without a folder: all shifted
        ([0] * 17 + [1] * 3 + [0] * 14 + [1] * 6, [0] * 20 + [1] * 20, True),  # 23 of 40
    ],
)
def test_near_chance(named: list[int], labels: list[int], nothing: bool) -> None:
    assert near_chance(np.array(named), np.array(labels)) is nothing


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"best_acc1": 76.1}, 0.761),
        ({"acc": 0.93, "epoch": 7}, 0.93),
        ({"val_acc": 0.9, "best_acc": 0.91}, 0.91),
        ({"metric": 82.5}, 0.825),
        ({"metric": 0.4}, None),  # a loss as well as a share
        ({"Acc@1": 76.1}, 0.761),
        ({"accuracy": True}, None),
        ({"accuracy": 250.0}, None),
        ({"accuracy": float("nan")}, None),
        ({"loss": 0.1, "epoch": 90, "lr": 0.1, "acc5": 0.99}, None),
    ],
)
def test_only_clear_names_state_an_accuracy(facts: dict[str, Any], expected: float | None) -> None:
    assert claimed_accuracy(facts) == (None if expected is None else pytest.approx(expected))


def test_the_record_reads_as_json(tmp_path: Path) -> None:
    load(tmp_path, archive(tmp_path, 3))
    told = json.loads((tmp_path / "run" / "load" / "stage.json").read_text())
    assert told["result"]["knows"]["images"] == 3 * len(COLOURS)


@pytest.mark.parametrize(("gained", "lost", "better"), [(19, 0, True), (25, 6, True), (9, 0, False), (40, 30, False)])
def test_a_preprocessing_five_points_better_is_enough_where_it_is_sure(gained: int, lost: int, better: bool) -> None:
    """Of 200 images; 19 more is what an EfficientNet-Lite0 has that is read from 0 to 1."""
    before, after = np.ones(200, bool), np.ones(200, bool)
    before[:gained] = False
    after[gained : gained + lost] = False
    assert surely_better(before, after, "view") == better
