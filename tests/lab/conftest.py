"""Fixtures of the lab: a real ARM64 machine reached through the genuine adbd and sshd. See tests/lab/README.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import TO_RUN, AdbServer, Image, LabMissing, Machine, built_image, need


@pytest.fixture(scope="session")
def lab_image() -> Image:
    """The image. Without the programs it takes, tests are skipped; with EDGEPRUNE_REQUIRE_LAB=1 they fail."""
    try:
        need(TO_RUN)
        return built_image()
    except LabMissing as missing:
        if os.environ.get("EDGEPRUNE_REQUIRE_LAB") == "1":
            pytest.fail(f"the lab is required here: {missing}", pytrace=False)
        pytest.skip(f"no lab: {missing}")


@pytest.fixture(scope="session")
def arm(lab_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine that tests share: cortex-a76, times that repeat. Leave it running and its disk nearly empty."""
    with Machine(lab_image, tmp_path_factory.mktemp("arm")) as machine:
        yield machine


@pytest.fixture(scope="session")
def adb_server(arm: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """A private adb server, connected to ``arm``."""
    with AdbServer(tmp_path_factory.mktemp("adb")) as server:
        server.connect(arm.adb_serial)
        yield server


@pytest.fixture(scope="session")
def ssh_config(arm: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For ``ssh -F``: the host ``labarm`` is ``arm``."""
    return arm.write_ssh_files(tmp_path_factory.mktemp("ssh"))


@pytest.fixture
def fresh_machine(lab_image: Image, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Boots a machine for one test, to break as it likes; takes what Machine takes. Without icount: it is faster."""
    machines: list[Machine] = []

    def boot(**settings: Any) -> Machine:
        machine = Machine(lab_image, tmp_path / f"machine.{len(machines)}", **{"icount": False, **settings})
        machines.append(machine)
        machine.start()
        return machine

    yield boot
    for machine in machines:
        machine.kill()


@pytest.fixture
def lab_environment(adb_server: AdbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, adb talks to the private server."""
    settings = {"ANDROID_ADB_SERVER_PORT": str(adb_server.port), "ADB_USB": "0", "ADB_EMU": "0", "ADB_MDNS": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
