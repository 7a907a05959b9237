from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from facts import refused
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgeprune.cli import app
from edgeprune.devices.registry import AddedDevice, add_device, added_devices, registry_file, remove_device
from edgeprune.errors import DeviceError, UsageError

WORDS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)


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
    with refused(UsageError, "'apple:mini'", "ssh:shelf-3"):
        remove_device("apple:mini", file)


HAND_WRITTEN = """\
# the shelf in the lab

[[device]]
name = "shelf-3"   # the fast one
host = 'pi@shelf'

# gone since May
[[device]]
name = "shelf-4"
host = "pi@other"
"""


def test_what_a_user_wrote_beside_stays(tmp_path: Path) -> None:
    """Comments and quotes were lost when a device was added."""
    file = tmp_path / "devices.toml"
    file.write_text(HAND_WRITTEN)
    add_device(AddedDevice(name="mini", host="mini.local", kind="mac"), file)
    assert file.read_text().startswith(HAND_WRITTEN)
    assert [device.id for device in added_devices(file)] == ["ssh:shelf-3", "ssh:shelf-4", "apple:mini"]
    remove_device("ssh:shelf-4", file)
    add_device(AddedDevice(name="mini", host="mini.net", kind="mac"), file)
    assert [(device.id, device.host) for device in added_devices(file)] == [
        ("ssh:shelf-3", "pi@shelf"),
        ("apple:mini", "mini.net"),
    ]
    assert "# the shelf in the lab\n" in file.read_text()
    assert 'name = "shelf-3"   # the fast one\n' in file.read_text()


def test_a_list_of_inline_tables_is_kept_up_too(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text("device = [{name = 'a', host = 'x'}, {name = 'b', host = 'y'}]  # two\n")
    add_device(AddedDevice(name="c", host="z", python="/opt/py thon"), file)
    remove_device("ssh:a", file)
    add_device(AddedDevice(name="b", host="other"), file)
    assert [(device.id, device.host) for device in added_devices(file)] == [("ssh:b", "other"), ("ssh:c", "z")]
    assert file.read_text().endswith("# two\n")


@given(st.lists(st.tuples(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True), WORDS, WORDS), max_size=4))
def test_any_text_comes_back(devices: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "devices.toml"
        wanted: dict[str, AddedDevice] = {}
        for name, host, python in devices:
            wanted[name] = AddedDevice(name=name, host=host, python=python)
            add_device(wanted[name], file)
        assert added_devices(file) == tuple(wanted.values())
        for name in wanted:
            remove_device(f"ssh:{name}", file)
        assert added_devices(file) == ()


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
