"""For all tests: Ctrl-C works in the processes they start, and the iPhone app's framework-free part, built once.

A shell starts background jobs with SIGINT ignored, and children inherit that; where the tests run so, the tests of
Ctrl-C would wait for ever. A handler of our own is reset to the default when a child starts.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from shortly import measure_shortly
from xdist.scheduler import LoadScopeScheduling

from edgeprune.artifacts import toolkits
from edgeprune.artifacts.child import Child
from edgeprune.artifacts.toolkits import Toolkits

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
# Where several processes test, each takes whole files; what the files of these folders share is made once for all.
TOGETHER = ("lab", "cli", "exporters")
# What takes longest, longest first, so that no process has much to do when the others are done.
LONGEST = ("lab", "cli", "exporters", "pipeline", "search", "artifacts", "space", "docs", "stages", "models", "devices")


def folder_of(test: str, folders: tuple[str, ...]) -> str:
    """Which of these folders a test is in; empty if in none."""
    return next((name for name in folders if f"tests/{name}/" in test), "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate((*LONGEST, ""))}
    items.sort(key=lambda item: places[folder_of(item.nodeid, LONGEST)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by their number: LONGEST knows better
    return Spread(config, log)


class Spread(LoadScopeScheduling):
    """Files, and some folders, in the order in which they are collected."""

    def _split_scope(self, nodeid: str) -> str:
        return folder_of(nodeid, TOGETHER) or nodeid.partition("::")[0]


@pytest.fixture(scope="session", autouse=True)
def _folders_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests name as models is not what their user has named, and what they measure does not go into the user's
    table. Each process that tests has its own, so that none waits for another's turn on this machine. What takes
    minutes to make is kept where it is: the lab's image, and the native runner's bundles."""
    kept, cache = Path(platformdirs.user_cache_dir("edgeprune")), tmp_path_factory.mktemp("cache")
    (cache / "edgeprune").mkdir()
    for name in ("lab", "bundles"):
        (kept / name).mkdir(parents=True, exist_ok=True)
        (cache / "edgeprune" / name).symlink_to(kept / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


class KeptToolkits(Toolkits):
    """A child for each toolkit, as long as the tests of this process: to start one takes seconds of a core. A run ends
    its children when it has exported; these stay."""

    def end(self) -> None: ...

    def child(self, exporter: str, *, threads: int = 1) -> AbstractContextManager[Child]:
        return super().child(exporter, threads=1)


@pytest.fixture(scope="session")
def all_toolkits() -> Iterator[KeptToolkits]:
    ours = KeptToolkits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toolkits, "IDLE_S", 600.0)
        yield ours
    Toolkits.end(ours)


@pytest.fixture(scope="module")
def warm_toolkits(all_toolkits: Toolkits) -> Iterator[None]:
    """Whatever converts in a module's tests takes those children, as it takes those of a run that is going on."""
    before = toolkits._OPEN.set(all_toolkits)
    yield
    toolkits._OPEN.reset(before)


@pytest.fixture(scope="module")
def short_measuring() -> Iterator[None]:
    """What is measured for real in this process is measured shortly (shortly.py)."""
    with pytest.MonkeyPatch.context() as patch:
        measure_shortly(patch)
        yield


@pytest.fixture(scope="session")
def swift() -> list[str]:
    """What comes before a command of Swift, or one that Swift has built.

    EDGEPRUNE_SWIFT names it where Swift lies elsewhere than here (in a chroot, say). Debian has `swiftlang` since
    trixie: 540 MB to download, 2.5 GB on the disk, so that `make test` does not ask for it.
    """
    prefix = shlex.split(os.environ.get("EDGEPRUNE_SWIFT", ""))
    if not prefix and shutil.which("swiftc") is None:
        pytest.skip("no Swift compiler here (swiftlang, or EDGEPRUNE_SWIFT)")
    return prefix


@pytest.fixture(scope="session")
def swift_app(swift: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the iPhone app's framework-free part with toy models (apps/apple_stand_in)."""
    program = tmp_path_factory.mktemp("swift") / "runner"
    sources = [*(TESTS.parent / "apps/runner/apple/Core").glob("*.swift"), TESTS / "apps/apple_stand_in/main.swift"]
    command = ["swiftc", "-swift-version", "5", "-O", "-warnings-as-errors", "-o", str(program), *map(str, sources)]
    done = subprocess.run([*swift, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [*swift, str(program)]
