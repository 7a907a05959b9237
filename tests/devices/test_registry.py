from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeprune.cli import app
from edgeprune.devices.registry import AddedDevice, add_device, added_devices, registry_file, remove_device
from edgeprune.errors import DeviceError, UsageError


def test_what_is_added_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "devices.toml"
    first = AddedDevice(name="shelf-3", host="pi@raspberrypi.local", python='/odd "path"\\python', runner="native")
    second = AddedDevice(name="mini", host="mini.local", kind="mac")
    add_device(first, file)
    add_device(second, file)
    assert added_devices(file) == (first, second)
    assert [device.id for device in added_devices(file)] == ["ssh:shelf-3", "apple:mini"]
    add_device(first.model_copy(update={"host": "other"}), file)
    assert {device.id: device.host for device in added_devices(file)} == {
        "ssh:shelf-3": "other",
        "apple:mini": "mini.local",
    }
    remove_device("apple:mini", file)
    assert [device.id for device in added_devices(file)] == ["ssh:shelf-3"]
    with pytest.raises(UsageError, match=r"no device 'apple:mini' was added\n.*ssh:shelf-3"):
        remove_device("apple:mini", file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[device]]\nname = 'a'\n", "host"),
        ("[[device]]\nname = 'a b'\nhost = 'x'\n", "name"),
        ("[[device]]\nname = 'a'\nhost = 'x'\ncolour = 'red'\n", "colour"),
        ("[[device]]\nname = 'a'\nhost = 'x'\n[[device]]\nname = 'a'\nhost = 'y'\n", "two devices are called ssh:a"),
        ("not toml", "devices.toml"),
    ],
)
def test_a_file_that_is_not_valid_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as refused:
        added_devices(file)
    assert str(file) in str(refused.value)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client is installed")
def test_a_machine_that_cannot_be_reached_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = tmp_path / "ssh_config"
    config.write_text(f"Host nowhere\n HostName 127.0.0.1\n Port 1\n UserKnownHostsFile {tmp_path}/known\n")
    done = CliRunner().invoke(app, ["devices", "add", "ssh", "nowhere", "--ssh-config", str(config)])
    assert isinstance(done.exception, DeviceError)
    assert "ssh:nowhere" in str(done.exception)
    assert "refused" in str(done.exception)
    assert not registry_file().exists() or added_devices() == ()
    done = CliRunner().invoke(app, ["devices", "add", "ssh", "x@evil;$(reboot)"])
    assert isinstance(done.exception, UsageError)
    assert "--name" in str(done.exception)
