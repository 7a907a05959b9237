"""Boards and Macs through OpenSSH's own client: the user's config, agent, jump hosts and known_hosts apply."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import weakref
from contextlib import suppress
from pathlib import Path

from edgeprune.devices.base import RunnerKind
from edgeprune.devices.child import last_lines
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.shell import WHAT_TO_CHECK, Shell
from edgeprune.errors import DeviceError, DeviceLost, ToolkitMissing

WORK_FOLDER = "$HOME/.cache/edgeprune/device"
CONNECT_S = 10
ALIVE_S, ALIVE_MISSES = 5, 4  # a connection that is silent for their product is dead
_NUMBERS = itertools.count()
PERSIST_S = 60  # the shared connection ends by itself so long after its last use


def open_ssh(
    host: str,
    *,
    id: str | None = None,
    config: Path | None = None,
    python: str = "",
    runner: RunnerKind | None = None,
    kind: str = "ssh",
) -> RemoteDevice:
    """A machine by its name in the user's ssh config, or as [user@]host.

    Raises:
        ToolkitMissing: there is no ssh client.
        DeviceError: the name is not one.
    """
    shell = SshShell(host, id=id or f"ssh:{host}", config=config)
    return RemoteDevice(shell, kind=kind, folder=WORK_FOLDER, python=python or "python3", runner=runner)


class SshShell(Shell):
    """The shell of a machine that sshd runs on. All commands share one connection."""

    def __init__(self, host: str, *, id: str, config: Path | None = None) -> None:
        super().__init__(id)
        if not host or host.startswith("-") or not host.isprintable() or any(c.isspace() for c in host):
            raise DeviceError(f"{host!r} is no host", where=id, hint="write it as for ssh: [user@]host")
        self._client = shutil.which("ssh")
        if self._client is None:
            raise ToolkitMissing("the ssh client is not installed", hint="sudo apt-get install openssh-client")
        self._host, self._config = host, config
        # A connection of its own for each: closing one must not end what another process runs.
        self._socket = _socket_folder() / f"{os.getpid():x}-{next(_NUMBERS):x}"
        weakref.finalize(self, _hang_up, self._base(), host)

    def argv(self, script: str) -> list[str]:
        """The ssh client; the login shell there sees one quoted word, whichever shell it is."""
        return [*self._base(), "-T", "--", self._host, f"exec sh -c {shlex.quote(script)}"]

    def lost(self, step: str, said: str) -> DeviceError:
        """Why the client gave up."""
        low, last = said.lower(), last_lines(said)
        if "remote host identification has changed" in low:
            return DeviceError(
                f"{step}: the host key of {self._host} has changed: this is another machine, or somebody is between",
                where=self.device_id,
                hint=f"if the machine was set up anew: ssh-keygen -R {shlex.quote(self._hostname())}, then connect once"
                " by hand and compare the fingerprint",
            )
        if re.search(r"^host key verification failed\.", low, re.MULTILINE):
            return DeviceError(
                f"{step}: the host key of {self._host} is not known",
                where=self.device_id,
                hint=f"connect once by hand (`ssh {self._host}`) and compare the fingerprint",
            )
        if re.search(r"^\S+: permission denied \(", low, re.MULTILINE):  # ssh's own, not a program's there
            return DeviceError(
                f"{step}: {self._host} does not let us in ({last})",
                where=self.device_id,
                hint="set up a key (`ssh-copy-id`) or start your agent: edgeprune never asks for a password",
            )
        why = f"the connection broke off ({last})" if last else "the connection broke off"
        return DeviceLost(f"{step}: {why}", where=self.device_id, hint=WHAT_TO_CHECK)

    def reconnect(self) -> None:
        """Drop the shared connection, which may be dead; the next command opens a new one."""
        super().reconnect()
        _hang_up(self._base(), self._host)

    def close(self) -> None:
        """End the shared connection."""
        super().close()
        _hang_up(self._base(), self._host)

    def _base(self) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": str(ALIVE_S),
            "ServerAliveCountMax": str(ALIVE_MISSES),
            "ControlMaster": "auto",
            "ControlPersist": str(PERSIST_S),
            "ControlPath": str(self._socket),
            "ForwardX11": "no",
            "ForwardAgent": "no",
        }
        assert self._client is not None
        config = ["-F", str(self._config)] if self._config else []
        return [self._client, *config, *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]

    def _hostname(self) -> str:
        """As known_hosts names it, for the hint."""
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(
                [*self._base(), "-G", "--", self._host], capture_output=True, text=True, timeout=5, check=True
            ).stdout
            found = dict(line.split(None, 1) for line in said.splitlines() if " " in line)
            port = found.get("port", "22")
            return found["hostname"] if port == "22" else f"[{found['hostname']}]:{port}"
        return self._host


def _hang_up(base: list[str], host: str) -> None:
    """End the shared connection, if there is one."""
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [*base, "-O", "exit", "--", host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )


def _socket_folder() -> Path:
    """A folder of this user's alone with a short path: a socket's path has about a hundred letters at most."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime) / "edgeprune" if runtime else Path("/tmp") / f"edgeprune-{os.getuid()}"  # short, on a Mac too
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        owner = place.lstat()
    except OSError as error:
        raise DeviceError(
            f"no folder for ssh's sockets: {error}", where=str(place), hint="set XDG_RUNTIME_DIR to a folder of yours"
        ) from error
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077 or place.is_symlink():
        raise DeviceError(f"the folder for ssh's sockets is not ours alone: {place}", hint=f"remove {place}")
    return place
