"""The words of the scripts that files are sent with: POSIX, for Android's mksh, dash, bash and busybox alike."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO

CLOCKS_S = 3600  # that a device's clock may be behind ours; by more, what is there is compared more often
PRINTF = tuple(  # each byte as `printf` takes it, so that no shell sees more than a word in quotes, and no option
    {"%": "%%", "\\": "\\\\"}.get(chr(byte), chr(byte)) if 32 <= byte < 127 and byte not in b"'-" else f"\\{byte:03o}"
    for byte in range(256)
)
# A busybox that is there starts in a third of the time that other tools take to load their libraries.
QUICK = "busybox sha256sum </dev/null >/dev/null 2>&1 && busybox rm -f /nonexistent && echo busybox || echo"
SHA256 = "S=sha256sum; command -v $S >/dev/null || S='shasum -a 256'"  # macOS has the second


def add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o755, int(time.time() - CLOCKS_S)
    tar.addfile(entry, content)


def instructions(paths: Sequence[str], wanted: Mapping[str, tuple[str, int]]) -> tuple[str, str]:
    """(checksums as `sha256sum -c` reads them, a script that moves the files into place)."""
    sums = "".join(f"{wanted[path][0]}  {number}/{PurePosixPath(path).name}\n" for number, path in enumerate(paths))
    folders: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        folders.setdefault(str(PurePosixPath(path).parent), []).append(number)
    moves = "".join(
        f"mkdir -p {folder} && mv -f {' '.join(f'{number}/*' for number in numbers)} {folder}/ || exit 1\n"
        for folder, numbers in folders.items()
    )
    return sums, moves


def made(folders: Sequence[str]) -> str:
    """A script that makes folders, without a process where they are there."""
    there = " && ".join(f"[ -d {folder} ]" for folder in folders)
    return f"{{ {there} || mkdir -p {' '.join(folders)}; }}"


def touched(file: str) -> str:
    """A script that makes an empty file. (`:` would end the whole session where it cannot.)"""
    return f"{made([str(PurePosixPath(file).parent)])} && printf '' >{file}"


def escaped(content: bytes) -> str:
    """Bytes as the format of the shell's `printf`, in single quotes."""
    return "".join(PRINTF[byte] for byte in content)


def digests(lines: Sequence[str]) -> dict[str, str]:
    """sha256 by path, from what `sha256sum` prints."""
    rows = (line.split(None, 1) for line in lines)
    return {row[1].strip().removeprefix("*"): row[0] for row in rows if len(row) == 2}
