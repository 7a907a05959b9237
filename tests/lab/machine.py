"""A virtual ARM64 Linux machine with the genuine adbd and sshd: built once, cached, booted under QEMU.

By hand: ``python tests/lab/machine.py boot`` prints the ssh and adb commands to type and runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build.sh"
PINS = HERE.parents[1] / "constraints.txt"
PINNED = ("numpy", "ai-edge-litert")
PARTS = ("vmlinuz", "initrd.gz", "root.ext4", "key", "host_key.pub")
TO_BUILD = ("mmdebstrap", "cpio", "gzip", "xz", "mke2fs", "ssh-keygen")
TO_RUN = ("qemu-system-aarch64", "setpriv", "ssh", "adb")
# Run once in a new image: a board that pip has installed on has its bytecode compiled, and an image that is kept boots.
WARM_UP = (
    "python3 -c 'import ai_edge_litert.interpreter, argparse, base64, hashlib, json, logging, numpy, platform, shutil,"
    " statistics, subprocess, tempfile, threading, traceback' && sync && echo warm && echo u > /proc/sysrq-trigger"
    " && sleep 1 && busybox poweroff -f"
)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class LabMissing(Exception):
    """The lab cannot be had here, and why: a program is missing, or the image could not be built."""


# --------------------------------------------------------------------------------------------------------- the image


@dataclass(frozen=True)
class Image:
    """What build.sh made: kernel, initrd, disk, the key that logs in, and the machine's own host key."""

    folder: Path

    def __getitem__(self, part: str) -> Path:
        return self.folder / part


def _tool_path() -> str:
    """PATH with sbin in it: mke2fs is there, and Debian leaves it out for ordinary users."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def need(programs: tuple[str, ...]) -> None:
    missing = [program for program in programs if shutil.which(program, path=_tool_path()) is None]
    if missing:
        raise LabMissing(f"not installed: {', '.join(missing)} (see tests/lab/README.md)")


def image_key() -> str:
    """What the image is made of: the script, the versions it installs, what is run in it."""
    pins = [line for line in PINS.read_text().splitlines() if line.partition("==")[0] in PINNED]
    return hashlib.sha256(BUILD.read_bytes() + "\n".join([*pins, WARM_UP]).encode()).hexdigest()[:16]


def default_cache() -> Path:
    if own := os.environ.get("EDGEPRUNE_LAB_CACHE"):
        return Path(own)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgeprune")) / "lab"


def built_image(cache: Path | None = None) -> Image:
    """The image, from the cache or built now. Two processes do not build it twice; half an image is never seen."""
    cache = cache or default_cache()
    image = Image(cache / image_key())
    if image.folder.is_dir():
        return image
    need(TO_BUILD + TO_RUN)
    if not KEYRING.exists():
        raise LabMissing(f"not there: {KEYRING} (package debian-archive-keyring)")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image.folder.is_dir():
            return image
        with tempfile.TemporaryDirectory(prefix="building-", dir=cache) as scratch:
            folder = Path(scratch) / "image"
            env = {**os.environ, "PATH": _tool_path(), "PYTHON": sys.executable}
            done = subprocess.run(
                ["bash", str(BUILD), str(folder)],
                env=env,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode:
                raise LabMissing(f"the image could not be built: build.sh ended with {done.returncode}\n{done.stderr}")
            _warm_up(Image(folder), Path(scratch) / "machine")
            folder.rename(image.folder)
    return image


def _warm_up(image: Image, folder: Path) -> None:
    machine = Machine(image, folder, icount=False, persistent=True)
    image["root.ext4"].rename(machine.disk)
    try:
        with machine:
            command = ["ssh", "-F", str(machine.write_ssh_files(folder)), "labarm", WARM_UP]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
            if done.stdout != b"warm\n":
                raise LabMissing(f"the image boots, but not as it should:\n{done.stderr.decode(errors='replace')}")
            machine.wait(30)
    except (RuntimeError, subprocess.TimeoutExpired) as failed:
        raise LabMissing(f"the image was built, but it does not work: {failed}") from failed
    machine.disk.rename(image["root.ext4"])


# --------------------------------------------------------------------------------------------------------- processes


def free_port() -> int:
    """A free port below the range that outgoing connections are given: it stays free while a machine restarts.

    And above 5585: adb takes 5554-5585 for emulators.
    """
    for _ in range(200):
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabMissing("found no free port on 127.0.0.1")


def tied(command: list[str]) -> list[str]:
    """The command, killed by the kernel when the thread that starts it ends, however that happens."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


class Machine:
    """A running machine: a context manager. It dies with this process; start it from a thread that stays."""

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        cpu: str = "cortex-a76",
        icount: bool = True,
        memory_mb: int = 1024,
        persistent: bool = False,
    ) -> None:
        """``icount``: time is a count of instructions and repeats to 0.1 %; without it the machine is faster.

        ``persistent``: what is written on the disk is still there after `restart` (as far as it was synced).
        """
        need(TO_RUN)
        self.image, self.folder, self.cpu, self.icount, self.memory_mb = image, folder, cpu, icount, memory_mb
        self.persistent = persistent
        folder.mkdir(parents=True, exist_ok=True)
        self.ssh_port, self.adb_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._boots = 0

    @property
    def adb_serial(self) -> str:
        return f"127.0.0.1:{self.adb_port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the machine is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def disk(self) -> Path:
        """A disk of its own, when it is persistent."""
        return self.folder / "root.ext4"

    def _drive(self) -> str:
        if not self.persistent:
            return f"file={self.image['root.ext4']},snapshot=on"
        if not self.disk.exists():
            copy = self.folder / "root.ext4.part"
            subprocess.run(["cp", "--sparse=always", self.image["root.ext4"], copy], check=True)
            copy.rename(self.disk)
        return f"file={self.disk}"

    def command(self, serial: Path) -> list[str]:
        forward = f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{self.adb_port}-:5555"
        return [
            "qemu-system-aarch64",
            *("-M", "virt", "-cpu", self.cpu, "-smp", "1", "-m", str(self.memory_mb)),
            *("-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{serial}"),
            *("-kernel", str(self.image["vmlinuz"]), "-initrd", str(self.image["initrd.gz"])),
            *("-append", "console=ttyAMA0 quiet loglevel=3 mitigations=off panic=-1 random.trust_bootloader=on"),
            *("-drive", f"if=none,id=d,format=raw,{self._drive()}", "-device", "virtio-blk-pci,drive=d"),
            *("-netdev", f"user,id=n,{forward}", "-device", "virtio-net-pci,netdev=n,romfile="),
            *(("-icount", "shift=2", "-accel", "tcg,thread=single") if self.icount else ()),
        ]

    def start(self, wait_s: float = 90) -> None:
        """Boot, and return when sshd and adbd listen."""
        if self.running:
            raise RuntimeError("the machine runs already")
        self._boots += 1
        serial, said = self.folder / f"serial.{self._boots}", self.folder / f"qemu.{self._boots}"
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                tied(self.command(serial)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for the machine
            )
        until = time.monotonic() + wait_s
        while not (serial.exists() and b"LAB-READY" in serial.read_bytes()):
            ended = self._process.poll()
            if ended is not None or time.monotonic() > until:
                self.kill()
                why = f"qemu ended with {ended}" if ended is not None else f"not up after {wait_s} s"
                console = serial.read_text(errors="replace")[-2000:] if serial.exists() else ""
                raise RuntimeError(f"the machine did not boot: {why}\n{said.read_text(errors='replace')}\n{console}")
            time.sleep(0.05)

    def kill(self) -> None:
        """The cable is pulled: connections break, nothing is flushed. Nothing happens when it is not running."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def wait(self, wait_s: float) -> None:
        """Until it has switched itself off."""
        if self._process is not None:
            self._process.wait(wait_s)
            self._process = None

    def restart(self, wait_s: float = 90) -> None:
        """Power off and on: the same ports; the disk is the image's again unless ``persistent``."""
        self.kill()
        self.start(wait_s)

    def freeze(self) -> None:
        """The device hangs: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def write_ssh_files(self, folder: Path, host: str = "labarm") -> Path:
        """An ssh configuration in which ``host`` is this machine, its host key known; for ``ssh -F``."""
        folder.mkdir(parents=True, exist_ok=True)
        key, known, config = folder / "key", folder / "known_hosts", folder / "ssh_config"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(self.image["key"].read_bytes())
        known.write_text(f"[127.0.0.1]:{self.ssh_port} {self.image['host_key.pub'].read_text()}")
        config.write_text(
            f"Host {host}\n"
            "  HostName 127.0.0.1\n"
            f"  Port {self.ssh_port}\n"
            "  User root\n"
            f'  IdentityFile "{key}"\n'
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f'  UserKnownHostsFile "{known}"\n'
            "  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n"
        )
        return config

    def __enter__(self) -> Machine:
        if not self.running:
            self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


class AdbServer:
    """A private adb server, with a port and a HOME of its own: the user's server and phones are never touched."""

    def __init__(self, folder: Path) -> None:
        need(("adb", "setpriv"))
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the adb server is not running")
        return self._process.pid

    def env(self) -> dict[str, str]:
        """The environment in which ``adb`` talks to this server."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ADB_", "ANDROID_"))}
        return {**env, "ANDROID_ADB_SERVER_PORT": str(self.port), "HOME": str(self.folder)}

    def start(self, wait_s: float = 20) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Its own devices only: no USB, no emulators on 5554-5585, no network discovery.
        env = {**self.env(), "ADB_USB": "0", "ADB_EMU": "0", "ADB_MDNS": "0"}
        log = self.folder / "adb_server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                tied(["adb", "-P", str(self.port), "nodaemon", "server"]),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until = time.monotonic() + wait_s
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the adb server did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """One adb command; its exit code and what it said."""
        return subprocess.run(
            ["adb", *arguments],
            env=self.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def connect(self, serial: str, wait_s: float = 30) -> None:
        """Connect, and return when the device is there. An old broken connection is dropped first."""
        until, state = time.monotonic() + wait_s, ""
        while time.monotonic() < until:
            state = self.run("connect", serial).stdout.strip()
            answer = self.run("-s", serial, "get-state")
            if answer.returncode == 0 and answer.stdout.strip() == "device":
                # An old connection to a machine that is gone says "device", too, until something is sent over it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if self.run("-s", serial, "shell", "true", timeout=10).returncode == 0:
                        return
            self.run("disconnect", serial)
            time.sleep(0.1)
        raise RuntimeError(f"adb did not connect to {serial}: {state}")

    def disconnect(self, serial: str) -> None:
        self.run("disconnect", serial)

    def kill(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None
        # A client that found no server has started one that outlives it.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            self.run("kill-server")

    def __enter__(self) -> AdbServer:
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


# ------------------------------------------------------------------------------------------------------------ by hand


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="lab-") as own:
            yield Path(own)


def _boot(arguments: argparse.Namespace) -> None:
    image = built_image()
    with (
        _folder(arguments.folder) as folder,
        Machine(
            image,
            folder / "machine",
            cpu=arguments.cpu,
            icount=arguments.icount,
            memory_mb=arguments.memory,
            persistent=arguments.persistent,
        ) as machine,
        AdbServer(folder / "adb") as server,
    ):
        server.connect(machine.adb_serial)
        config = machine.write_ssh_files(folder / "ssh")
        adb = (
            f"ANDROID_ADB_SERVER_PORT={server.port} HOME={shlex.quote(str(server.folder))} adb -s {machine.adb_serial}"
        )
        print(f"ssh -F {shlex.quote(str(config))} labarm\n{adb} shell\nCtrl-C ends the machine.", flush=True)
        while machine.running:
            time.sleep(0.2)
        print("The machine has gone.")


def main() -> None:
    parser = argparse.ArgumentParser(description="A virtual ARM64 Linux machine with adbd and sshd.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the image into the cache and print where it is")
    boot = commands.add_parser("boot", help="boot a machine, print how to reach it, run until Ctrl-C")
    boot.add_argument("--cpu", default="cortex-a76", help="cortex-a72 has no dot product (default: cortex-a76)")
    boot.add_argument("--no-icount", dest="icount", action="store_false", help="faster, but times do not repeat")
    boot.add_argument("--memory", type=int, default=1024, help="MB (default: 1024)")
    boot.add_argument("--persistent", action="store_true", help="keep the disk in --folder from boot to boot")
    boot.add_argument("--folder", type=Path, help="for the ssh and adb files (default: a temporary one)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
    try:
        if arguments.command == "build":
            print(built_image().folder)
        else:
            _boot(arguments)
    except LabMissing as missing:
        sys.exit(f"{parser.prog}: {missing}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
