"""Fixtures of the runners: the Python one and the native one of this machine, and two models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from two_runners import (
    LINEAR,
    OWN_ABI,
    RELU,
    Runner,
    bundle_or_skip,
    written,
)

from edgeprune.devices.runners import runner_script


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def native(cache: Path) -> Runner:
    if sys.platform != "linux":
        pytest.skip("the native runner is for Linux")
    bundle = bundle_or_skip(OWN_ABI, cache)
    folder = bundle.files[bundle.library].parent
    words = (str(folder) if w == "." else str(folder / w[2:]) if w.startswith("./") else w for w in bundle.command)
    library = {
        "path": str(bundle.files[bundle.library]),
        "version": bundle.version,
        "sha256": bundle.library_sha256,
    }
    return Runner("native", tuple(words), {"library": library})


@pytest.fixture(scope="session")
def python() -> Runner:
    return Runner("python", (sys.executable, "-u", str(runner_script())), {})


@pytest.fixture(params=["python", "native"])
def runner(request: pytest.FixtureRequest) -> Runner:
    found: Runner = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    return written(RELU, tmp_path / "relu.tflite")


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return written(LINEAR, tmp_path / "linear.tflite")
