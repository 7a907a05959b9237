"""Typical tables: a plan is predicted without the device, what is lacking is said, and nothing runs on a profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import refused

import edgeprune
from edgeprune import api
from edgeprune.devices.discovery import open_device
from edgeprune.errors import UsageError
from edgeprune.latency.typical import is_typical, open_typical

ROOT = Path(__file__).resolve().parents[2]
LAB = "profile:lab-cortex-a76"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for profiles; and a cache of our own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "config" / "edgeprune" / "device_profiles"
    folder.mkdir(parents=True)
    return folder


def resnet20() -> edgeprune.Model:
    return edgeprune.load(f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20", input_size=(3, 32, 32))


def own(folder: Path, tables: str) -> None:
    """A profile of the user's own, with other tables than the lab's."""
    text = (ROOT / "device_profiles" / "profiles" / "lab-cortex-a76.toml").read_text()
    (folder / "mine.toml").write_text(text.partition("[[tables]]")[0] + tables)


@pytest.mark.slow
def test_a_model_is_predicted_as_it_was_measured_there() -> None:
    found = api.predict(resnet20(), device=LAB)
    results = json.loads((ROOT / "benchmarks" / "results" / "latency_predict_lab.json").read_text())
    assert found.seconds == pytest.approx(results["models"]["resnet20"]["original_s"], rel=0.002)
    assert found.low_s is not None
    assert found.low_s < found.seconds
    assert found.extrapolates == ()
    assert "a typical table of ARM64 lab, cortex-a76, never measured on yours" in found.basis
    assert api.predict(resnet20(), device=LAB) == found  # from the cache by now


def test_a_model_that_was_not_measured_is_refused_with_those_that_were() -> None:
    with refused(UsageError, "litert", 1, "resnet20"):
        api.predict(edgeprune.load("resnet18"), device=LAB)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"runtime": "executorch"}, ("executorch", 1)),
        ({"threads": 2}, ("litert", 2)),
        ({"precision": "int8"}, ("int8", "fp32")),
    ],
)
def test_another_runtime_or_number_of_threads_is_refused(options: dict[str, object], facts: tuple[object, ...]) -> None:
    with refused(UsageError, *facts):
        api.predict(resnet20(), device=LAB, **options)  # type: ignore[arg-type]


def test_a_profile_without_tables_says_which_have_some() -> None:
    with refused(UsageError, "typical table", "lab-cortex-a76"):
        open_typical("profile:raspberry-pi-5")


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with refused(UsageError, "'no-such'", "generic", "raspberry-pi-5"):
        open_typical("profile:no-such")


def test_a_table_that_is_missing_or_damaged_is_said(config: Path) -> None:
    own(config, '[[tables]]\nfile = "rows.json.xz"\nmodels = ["mine"]\nsource = "made up"\n')
    with refused(UsageError, "cortex-a76", config / "rows.json.xz"):
        open_typical("profile:mine")
    (config / "rows.json.xz").write_bytes(b"no such thing")
    with refused(UsageError, config / "rows.json.xz", "unpacked"):
        open_typical("profile:mine")
    shipped = ROOT / "device_profiles" / "tables" / "lab-cortex-a76.json.xz"
    (config / "rows.json.xz").write_bytes(shipped.read_bytes())
    assert len(open_typical("profile:mine").table.settings()) == 1


def test_two_tables_are_one(config: Path) -> None:
    shipped = ROOT / "device_profiles" / "tables"
    lines = "".join(
        f'[[tables]]\nfile = "{file}"\nmodels = ["resnet20"]\nsource = "the lab"\n'
        for file in sorted(shipped.glob("*.json.xz"))
    )
    own(config, lines)
    both = open_typical("profile:mine").table
    assert len({setting.device for setting in both.settings()}) == len(list(shipped.glob("*.json.xz"))) >= 2


def test_nothing_runs_on_a_profile() -> None:
    assert is_typical(LAB)
    assert not is_typical("local")
    with refused(UsageError, LAB):
        open_device(LAB)
