"""A device at the other end of a shell: files, programs and conditions over adb or ssh alike."""

from __future__ import annotations

import io
import os
import re
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from uuid import uuid4

from edgeprune.checksum import file_sha256
from edgeprune.devices.base import LITTLE, Completed, Device, DeviceFacts, RunnerKind
from edgeprune.devices.child import last_lines
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.failures import ended_by_us, understood
from edgeprune.devices.lease import Lease
from edgeprune.devices.reading import CONDITIONS_SCRIPT, facts_script, read_conditions, read_facts
from edgeprune.devices.scripts import QUICK, SHA256, add, digests, escaped, instructions, made, touched
from edgeprune.devices.shell import Answer, Shell
from edgeprune.errors import DeviceError, DeviceLost

LARGE = 1 << 20  # bytes; larger files go over alone, and go on where they were broken off
SLOWEST = 100_000  # bytes a second; slower than this a transfer is given up
SAFE = re.compile(r"[A-Za-z0-9._/=+-]+")
DAMAGED = 21  # exit code of our own for files that did not arrive as they were sent
PULL_S = 900.0
FORGET_DAYS = 30  # what was put there longer ago is removed; test images after a day
LONG_S = 300.0  # for what a slow disk may take
MAKE_ROOM = "make room on the device (`edgeprune devices clean` removes what edgeprune keeps there)"


class RemoteDevice(Device):
    """A device behind a shell.

    Args:
        folder: its work folder there: absolute, or beginning with `$HOME/`.
        python: the interpreter there that is asked for runtimes; empty: none, as on phones.
        runner: which one to use where a runtime has both.
    """

    def __init__(
        self,
        shell: Shell,
        *,
        kind: str,
        folder: str,
        python: str = "python3",
        runner: RunnerKind | None = None,
    ) -> None:
        self._shell, self._kind, self._python, self._runner = shell, kind, python, runner
        self._wanted_folder, self._folder = folder, ""
        self._quick = ""  # see QUICK
        self._facts: DeviceFacts | None = None
        self._seen: dict[str, tuple[str, str]] = {}  # path there -> (its sha256, a file there that is younger)
        self._losses = 0  # of sessions, up to then
        self._lease = Lease.of(shell.device_id)
        self._swept = False

    @property
    def id(self) -> str:
        return self._shell.device_id

    @property
    def folder(self) -> str:
        """The work folder there, made when it is first asked for."""
        if not self._folder:
            home, _, rest = self._wanted_folder.partition("/")
            place = f'"$HOME"/{shlex.quote(rest)}' if home == "$HOME" else shlex.quote(self._wanted_folder)
            rooms = " ".join(f"{place}/{name}" for name in ("push", "seen", "run", "said"))
            answer = self._asked(
                f"mkdir -p {rooms} && cd {place} && pwd -P && {{ {QUICK}; }}", step="making the work folder"
            )
            with understood(self.id, "where its work folder lies"):
                folder, self._quick = answer.text.splitlines()
            if not SAFE.fullmatch(folder):
                raise DeviceError(
                    f"its work folder {folder!r} has letters that scripts cannot take",
                    where=self.id,
                    hint="log in there as a user with a plain home folder",
                )
            self._folder = folder
        return self._folder

    def facts(self) -> DeviceFacts:
        """What the device is; asked once."""
        if self._facts is None:
            text = self._asked(facts_script(self._python), step="reading the facts", check=False, timeout_s=LONG_S).text
            with understood(self.id, "what it says of itself"):
                self._facts = read_facts(text, id=self.id, kind=self._kind, prefer=self._runner, asked=self._python)
        return self._facts

    def conditions(self) -> Conditions:
        """What the device is like now."""
        text = self._asked(CONDITIONS_SCRIPT, step="reading the conditions", check=False).text
        with understood(self.id, "what it says of its conditions"):
            return read_conditions(text)

    def path(self, remote: str) -> str:
        """The absolute path there of a file in the work folder."""
        path = PurePosixPath(remote)
        if path.is_absolute() and self._folder:
            with suppress(ValueError):
                path = path.relative_to(self._folder)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise DeviceError(f"the path {remote!r} is not in the work folder", where=self.id)
        if not SAFE.fullmatch(str(path)):
            raise DeviceError(f"the path {remote!r} has letters that a file on a device may not have", where=self.id)
        return f"{self.folder}/{path}"

    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy files there, by their paths there; each is checked, and skipped when the same content is there.

        Large files go over alone and go on where an earlier try was broken off; small ones together; the least in the
        text of a script.
        """
        paths = {self.path(remote): local for remote, local in files.items()}
        try:
            wanted = {path: (file_sha256(local), local.stat().st_size) for path, local in paths.items()}
        except OSError as error:
            raise DeviceError(f"cannot read {error.filename}: {error.strerror}", where=self.id) from error
        unseen = self._unseen({path: digest for path, (digest, _) in wanted.items()})
        least = [path for path in unseen if wanted[path][1] <= LITTLE and not os.access(paths[path], os.X_OK)]
        if sum(wanted[path][1] for path in least) > LITTLE:
            least = []
        missing = self._differing([path for path in unseen if path not in least], wanted)
        needed = sum(wanted[path][1] for path in missing)
        if needed > LARGE:
            begun = self._sizes([f"{self.folder}/push/{wanted[path][0]}.part" for path in missing])
            self._ask_for_room(needed - sum(begun.values()))
        for path in [path for path in missing if wanted[path][1] > LARGE]:
            self._push_large(paths[path], path, *wanted[path])
        small = [path for path in missing if wanted[path][1] <= LARGE]
        if small:
            self._push_small({path: paths[path] for path in small}, wanted)
        if least:
            self._push_least({path: paths[path] for path in least}, wanted)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there; `local` is replaced in one step, once the checksums agree."""
        path, step = shlex.quote(self.path(remote)), f"pulling {remote}"
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_name(f".{local.name}.{os.getpid()}.partial")
        try:
            script = f"{SHA256}; cat {path} && echo && $S <{path}"
            answer = self._shell.receive(script, partial, step=step, timeout_s=PULL_S)
            if answer.exit_code:
                raise self._failed(answer, step)
            digest = _cut_digest(partial)
            if file_sha256(partial) != digest:
                raise DeviceLost(
                    f"{step}: what arrived is not what is there", where=self.id, hint="try again: it was cut off"
                )
            partial.replace(local)
        finally:
            partial.unlink(missing_ok=True)

    def remove(self, remote: str, *, wait: bool = True) -> None:
        """Remove a file or folder of the work folder, or all whose names begin so; nothing there is no error."""
        path = self.path(remote.removesuffix("*"))
        gone = f"{path}*" if remote.endswith("*") else path
        if wait:
            self._asked(f"rm -rf {gone}", step=f"removing {remote}", check=False, timeout_s=LONG_S)
        else:
            self._shell.post(f"{self._quick} rm -rf {gone}")
        self._seen = {known: seen for known, seen in self._seen.items() if not known.startswith(path)}

    def clean(self) -> None:
        """Remove the work folder; it is made anew when it is needed."""
        self._asked(f"rm -rf {shlex.quote(self.folder)}", step="cleaning", timeout_s=LONG_S)
        self._folder = ""
        self._seen.clear()

    def free_bytes(self) -> int:
        """What is left for files in the work folder."""
        place = shlex.quote(self.folder)  # which somebody may have removed
        text = self._asked(f"mkdir -p {place} && df -k {place}", step="asking for free space").text
        try:
            return int(text.strip().splitlines()[-1].split()[-3]) * 1024
        except (IndexError, ValueError) as error:
            raise DeviceError(f"cannot read its free space: {text[:200]!r}", where=self.id) from error

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> Completed:
        """Run a program in the work folder; each line of its stdout goes to `on_line` as it comes.

        It is ended, on the device, when the time is up, when `on_line` raises, or when the caller is interrupted;
        should the device not be reached for that, then before the next program is started.
        """
        name = PurePosixPath(argv[0]).name
        try:
            with ended_by_us(self.id, timeout_s):
                return self._shell.stream(
                    f"cd {self.folder} && exec {shlex.join(argv)}",
                    step=f"running {name}",
                    timeout_s=timeout_s,
                    on_line=on_line,
                    notes=self.folder,
                )
        except DeviceLost:
            self._swept = False
            raise
        except BaseException:
            self._swept = False
            with suppress(DeviceError):
                self._sweep()
            raise

    @contextmanager
    def lease(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the device; freed when the holder dies. What an earlier holder left running there is ended first.

        Raises:
            DeviceError: another job of this host holds it still after `wait_s` seconds, or it cannot be reached.
        """
        with self._lease.hold(wait_s=wait_s):
            if not self._swept:
                self._sweep()
            yield

    def _look_again(self) -> None:
        self._seen.clear()  # its disk may have been wiped
        self._folder, self._swept = "", False
        self._shell.reconnect()
        self._sweep()

    def close(self) -> None:
        """Let go of the connection."""
        self._shell.close()

    def _sweep(self) -> None:
        """End what was left running by a holder that died or lost the connection, and remove old files.

        A number is only believed where that process works in our folder: numbers are given again after a reboot.
        """
        folder = self.folder
        script = (
            f'cd {folder} && for f in run/*; do [ -s "$f" ] && read -r p <"$f" || continue; '
            'w=$(readlink /proc/"$p"/cwd 2>/dev/null || ps -o args= -p "$p"); '  # a Mac has no /proc
            f'case "$w" in *{folder}*) kill -9 "$p";; esac; done; rm -f run/* said/*; '
            f"find jobs push models native -mindepth 1 -maxdepth 1 -mtime +{FORGET_DAYS} -exec rm -rf {{}} + "
            "2>/dev/null; find inputs seen -type f -mtime +0 -exec rm -f {} + 2>/dev/null; true"
        )
        self._asked(script, step="ending what was left running", check=False, timeout_s=LONG_S)
        self._swept = True

    def _unseen(self, wanted: Mapping[str, str]) -> list[str]:
        """The paths there (by their sha256) that were not compared in this connection, or were touched since: costs no
        process there."""
        known = [path for path, digest in wanted.items() if path in self._seen and self._seen[path][0] == digest]
        if not known:
            return list(wanted)
        looks = (f"[ -f {path} ] && [ {self._seen[path][1]} -nt {path} ] || echo {path}" for path in known)
        changed = self._asked("; ".join(looks), step="looking what is there").text.split()
        if self._shell.losses != self._losses:  # it may have been off meanwhile
            self._losses = self._shell.losses
            self._seen.clear()
            return list(wanted)
        return [path for path in wanted if path not in known or path in changed]

    def _differing(self, paths: Sequence[str], wanted: Mapping[str, tuple[str, int]]) -> list[str]:
        """The paths there whose content is not the wanted one."""
        if not paths:
            return []
        younger = self._younger()
        sums = self._sums(paths, before=touched(younger))
        same = [path for path in paths if sums.get(path) == wanted[path][0]]
        self._seen |= {path: (wanted[path][0], younger) for path in same}
        return [path for path in paths if path not in same]

    def _younger(self) -> str:
        """A name for an empty file that will be younger than those that it stands for, unless they are touched."""
        return f"{self.folder}/seen/{uuid4().hex}"

    def _sizes(self, paths: Sequence[str]) -> dict[str, int]:
        """Sizes in bytes of those that are there."""
        lines = self._listed("xargs ls -ln 2>/dev/null", paths, step="looking what is there")
        rows = (line.split() for line in lines)
        with understood(self.id, "the sizes of its files"):
            return {row[-1]: int(row[4]) for row in rows if len(row) >= 8}

    def _sums(self, paths: Sequence[str], *, before: str = "true") -> dict[str, str]:
        """sha256 of those that are there, taken after a command."""
        return digests(self._listed(f"{before}; {SHA256}; xargs $S 2>/dev/null", paths, step="comparing checksums"))

    def _listed(self, script: str, paths: Sequence[str], *, step: str) -> list[str]:
        """Lines that a script answers to paths on its stdin (they hold no blanks: see SAFE)."""
        with tempfile.TemporaryFile() as stdin:
            stdin.write("".join(f"{path}\n" for path in paths).encode())
            stdin.seek(0)
            return self._shell.ask(f"{script}; true", step=step, stdin=stdin, timeout_s=300).text.splitlines()

    def _push_least(self, files: Mapping[str, Path], wanted: Mapping[str, tuple[str, int]]) -> None:
        """A few bytes in the text of a script, checked there, then moved into place. A job's own go into place at once:
        nobody else knows their names."""
        step, own = f"pushing {len(files)} files", f"{self.folder}/jobs/"
        places = {path: path if path.startswith(own) else f"{self.folder}/push/{uuid4().hex}" for path in files}
        folders = sorted({str(PurePosixPath(path).parent) for path in (*places, *places.values())})
        writes = [f"printf '{escaped(local.read_bytes())}' >{places[path]}" for path, local in files.items()]
        summed = f"{f'{self._quick} sha256sum' if self._quick else '$S'} {' '.join(places.values())}"
        script = f"{SHA256}; {made(folders)} && {' && '.join(writes)} && {summed}"
        answer = self._shell.ask(script, step=step)
        if answer.exit_code:
            self._full_or_failed(answer, step, sum(wanted[path][1] for path in files), " ".join(places.values()))
        arrived = digests(answer.text.splitlines())
        if any(arrived.get(place) != wanted[path][0] for path, place in places.items()):
            self._asked(f"rm -f {' '.join(places.values())}", step=step)
            raise self._damaged(step)
        if moved := {path: place for path, place in places.items() if path != place}:
            younger = self._younger()
            moves = " && ".join(f"mv -f {place} {path}" for path, place in moved.items())
            self._asked(f"{touched(younger)} && {moves}", step=step)
            self._seen |= {path: (wanted[path][0], younger) for path in moved}

    def _push_small(self, files: Mapping[str, Path], wanted: Mapping[str, tuple[str, int]]) -> None:
        """Many files as one stream into a folder of their own, checked there, then moved into place: in one go."""
        staging, step, younger = f"{self.folder}/push/{uuid4().hex}", f"pushing {len(files)} files", self._younger()
        with tempfile.TemporaryFile() as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for number, (path, local) in enumerate(files.items()):
                    with local.open("rb") as content:
                        add(tar, f"{number}/{PurePosixPath(path).name}", content, wanted[path][1])
                sums, moves = (text.encode() for text in instructions(list(files), wanted))
                add(tar, "sums", io.BytesIO(sums), len(sums))
                add(tar, "moves", io.BytesIO(moves), len(moves))
            size = stream.tell()
            stream.seek(0)
            script = (
                f"{SHA256}; mkdir -p {staging} && cd {staging} && tar -xf - && "
                f"{{ $S -c sums >/dev/null || exit {DAMAGED}; }} && {touched(younger)} && "
                f"sh moves && cd .. && rm -rf {staging}"
            )
            answer = self._shell.ask(f"( {script} )", step=step, stdin=stream, timeout_s=60 + size / SLOWEST)
        if answer.exit_code == DAMAGED:
            raise self._damaged(step)
        if answer.exit_code:
            self._full_or_failed(answer, step, size, staging)
        self._seen |= {path: (wanted[path][0], younger) for path in files}

    def _push_large(self, local: Path, path: str, digest: str, size: int) -> None:
        """One file, appended to what an earlier try brought over, checked, then moved into place."""
        partial, step = f"{self.folder}/push/{digest}.part", f"pushing {PurePosixPath(path).name}"
        for attempt in range(2):
            there = self._sizes([partial]).get(partial, 0)
            if there > size or attempt:
                self._asked(f"rm -f {partial}", step=step)
                there = 0
            with local.open("rb") as content:
                content.seek(there)
                os.lseek(content.fileno(), there, os.SEEK_SET)
                limit = 60 + (size - there) / SLOWEST
                answer = self._shell.ask(
                    f"mkdir -p {self.folder}/push && cat >>{partial}", step=step, stdin=content, timeout_s=limit
                )
            if answer.exit_code:
                self._full_or_failed(answer, step, size, partial)
            if self._sums([partial]).get(partial) == digest:
                folders, younger = [str(PurePosixPath(path).parent)], self._younger()
                moved = f"chmod 755 {partial} && {touched(younger)} && mv -f {partial} {path}"
                self._asked(f"{made(folders)} && {moved}", step=step)
                self._seen[path] = digest, younger
                return
        raise DeviceLost(f"{step}: it does not arrive as it was sent", where=self.id, hint="check the connection")

    def _damaged(self, step: str) -> DeviceLost:
        return DeviceLost(f"{step}: they did not arrive as they were sent", where=self.id, hint="try again")

    def _ask_for_room(self, needed: int) -> None:
        free = self.free_bytes()
        if needed > free:
            raise DeviceError(
                f"no room for {needed / 1e6:.1f} MB: {free / 1e6:.1f} MB are free in {self.folder}",
                where=self.id,
                hint=MAKE_ROOM,
            )

    def _full_or_failed(self, answer: Answer, step: str, size: int, rest: str) -> None:
        """Say why files could not be written, and leave no half of them."""
        with suppress(DeviceError):
            self._asked(f"rm -rf {rest}", step=step, check=False)
        said = last_lines(answer.stderr_tail)
        if "no space" in said.lower():
            raise DeviceError(
                f"{step} failed: the disk is full ({size / 1e6:.1f} MB were to be written)",
                where=self.id,
                hint=MAKE_ROOM,
            )
        raise DeviceError(
            f"{step} failed: {said or f'exit code {answer.exit_code}'}",
            where=self.id,
            hint=f"check the rights of {self.folder} there, and that it has `tar`, `sha256sum` and `cat`",
        )

    def _asked(self, script: str, *, step: str, check: bool = True, timeout_s: float | None = None) -> Answer:
        answer = self._shell.ask(script, step=step, timeout_s=timeout_s)
        if check and answer.exit_code:
            raise self._failed(answer, step)
        return answer

    def _failed(self, answer: Answer, step: str) -> DeviceError:
        said = last_lines(answer.stderr_tail) or f"exit code {answer.exit_code}"
        return DeviceError(f"{step} failed: {said}", where=self.id, hint="check the device's disk and rights")


def _cut_digest(file: Path) -> str:
    """Take the line with the checksum off a file's end; returns the checksum (empty where there is none)."""
    with file.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 80))
        body, _, line = stream.read().rstrip(b"\n").rpartition(b"\n")
        stream.truncate(max(0, size - 80) + len(body))
    return line.split()[0].decode(errors="replace") if line.split() else ""
