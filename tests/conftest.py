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
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _names_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests name as models is not what their user has named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
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
