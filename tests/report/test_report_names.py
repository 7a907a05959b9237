"""What a report tells of a recipe: names, and no secrets."""

from __future__ import annotations

import json

import pytest
from sample_report import sample

from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.recipe_file import parse_recipe
from edgeprune.report.data import ReportData
from edgeprune.report.names import UNTOLD, published, published_recipe, published_spec, without_address


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/photos", "photos"),
        ("/home/me/photos/", "photos"),
        ("/photos", "photos"),
        ("npz:/home/me/my photos/all.npz", "npz:all.npz"),
        ("timm:folder@/home/me/photos", "timm:folder@photos"),
        ("/home/me/net.py:make", "net.py:make"),
        ("timm:local-dir:/home/me/model", "timm:local-dir:model"),
        ("C:\\Users\\me\\weights.pt", "weights.pt"),
        ("~/weights.pt", "weights.pt"),
        ("--weights /home/me/weights.pt", "--weights weights.pt"),
        ("https://me:token@host.org/a/weights.pt?sig=1", "https://host.org/weights.pt"),
        ("hf-hub:timm/resnet18", "hf-hub:timm/resnet18"),
        ("train/photos", "train/photos"),
        ("digits", "digits"),
        ("0.5x", "0.5x"),
    ],
)
def test_paths_are_cut_to_names(text: str, told: str) -> None:
    assert published(text) == told


def test_secrets_are_left_out_wherever_they_stand() -> None:
    given = {
        "hub": {"hf_token": "hf_123", "api-key": "k", "password": 4},
        "width": 32,
        "files": ["/a/b", {"c": "/d/e"}],
    }
    told = published(given)
    assert told == {
        "hub": {"hf_token": UNTOLD, "api-key": UNTOLD, "password": UNTOLD},
        "width": 32,
        "files": ["b", {"c": "e"}],
    }


def test_a_recipe_and_a_spec() -> None:
    tree = {
        "model": {"factory": "/home/me/net.py:make", "arguments": {"token": "hf_123", "weights": "/home/me/w.pt"}},
        "data": {"source": "/home/me/photos", "test": "npz:/home/me/t.npz"},
    }
    told = published_recipe(parse_recipe(tree))
    assert "/home" not in told
    assert "hf_123" not in told
    assert json.loads(told)["data"] == {"source": "photos", "test": "npz:t.npz"}
    spec = ModelSpec(
        source="/home/me/net.py:make",
        arguments={"weights": "/home/me/w.pt", "secret": "s"},
        input_size=(3, 8, 8),
        num_classes=2,
        preprocessing=Preprocessing(mean=(0.0,), std=(1.0,)),
    )
    assert (published_spec(spec).source, published_spec(spec).arguments) == (
        "net.py:make",
        {"weights": "w.pt", "secret": UNTOLD},
    )


def test_a_report_of_before_is_read_without_its_command() -> None:
    tree = {**sample().model_dump(mode="json"), "command": "edgeprune run /home/me/recipe.toml --token hf_s3cret"}
    assert "s3cret" not in ReportData.model_validate_json(json.dumps(tree, allow_nan=True)).model_dump_json()


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("ssh:me@pi.example.org", f"ssh:{UNTOLD}"),
        ("ssh:pi.example.org", f"ssh:{UNTOLD}"),
        ("adb:10.0.0.7:5555", f"adb:{UNTOLD}"),
        ("ssh:shelf-3", "ssh:shelf-3"),
        ("adb:R5CT123", "adb:R5CT123"),
        ("local", "local"),
    ],
)
def test_addresses_of_devices_are_left_out(device: str, told: str) -> None:
    data = sample(title=f"net to 0.5x on {device}", recipe=json.dumps({"device": {"id": device}}))
    shown = without_address(data, device)
    assert shown.title == f"net to 0.5x on {told}"
    assert json.loads(shown.recipe) == {"device": {"id": told}}
    assert (device in shown.model_dump_json()) == (device == told)
