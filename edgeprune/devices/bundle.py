"""The native runner as files to push: built from the C sources in apps/runner/native, beside LiteRT's library.

For aarch64 the bundle brings glibc's loader and libraries too, so that it needs nothing from the device (Android has no
glibc); an x86_64 machine has its own. Built once and kept in the user's cache folder.

EDGEPRUNE_LITERT_WHEEL_AARCH64 (or _X86_64) names a wheel of ai-edge-litert to take the library from, instead of pip's
index; EDGEPRUNE_SYSROOT_AARCH64 names a folder with the loader and the libraries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from platformdirs import user_cache_dir

from edgeprune.checksum import file_sha256
from edgeprune.devices.facts import abi_of
from edgeprune.errors import ToolkitMissing

RUNNER = "edgeprune-runner"
LIBRARY = "libLiteRt.so"
PACKAGE = "ai-edge-litert"
MANIFEST = "manifest.json"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-s")
LINKED = ("-ldl", "-lm")
WHEEL_PYTHON = "3.11"  # the library is the same in the wheels for every Python
TIMEOUT_S = 600


@dataclass(frozen=True)
class Bundle:
    """The native runner and all it needs, as files to push side by side into one folder.

    `command` is what comes before the job's path, relative to that folder; a word of it that begins with "./" is one of
    the files, which have to be executable.
    """

    abi: str  # "aarch64" | "x86_64"
    files: Mapping[str, Path]  # name in the folder -> file here
    command: tuple[str, ...]
    library: str  # name of LiteRT's library in the folder
    version: str  # of ai-edge-litert
    library_sha256: str

    @cached_property
    def key(self) -> str:
        """A hash of all names and contents: names the folder on the device."""
        lines = (f"{file_sha256(path)} {name}\n" for name, path in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    @property
    def size_bytes(self) -> int:
        """What goes over to the device."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class _Target:
    """How the runner for one kind of processor is built and started."""

    abi: str
    machine: int  # e_machine of its ELF files
    loader: str = ""  # of glibc, where the bundle brings it

    @property
    def triple(self) -> str:
        return f"{self.abi}-linux-gnu"

    def setting(self, name: str) -> str:
        """The value of EDGEPRUNE_<name>_<ABI>, empty where it is not set."""
        return os.environ.get(f"EDGEPRUNE_{name}_{self.abi.upper()}", "")

    @property
    def command(self) -> tuple[str, ...]:
        if not self.loader:
            return (f"./{RUNNER}",)
        return (f"./{self.loader}", "--inhibit-cache", "--library-path", ".", f"./{RUNNER}")


TARGETS = {
    "aarch64": _Target("aarch64", 183, loader="ld-linux-aarch64.so.1"),
    "x86_64": _Target("x86_64", 62),
}


def native_bundle(abi: str, *, cache: Path | None = None) -> Bundle:
    """The bundle for a kind of processor, built where it is not in the cache (a second, and a download of 14 MB).

    Args:
        abi: "aarch64" or "x86_64".
        cache: the folder to keep bundles in; edgeprune's own in the user's cache folder by default.

    Raises:
        ToolkitMissing: there is no compiler, library or wheel for it here; the hint says how to get it.
    """
    if abi not in TARGETS:
        raise ToolkitMissing(f"there is no native runner for {abi!r}", hint=f"known: {', '.join(sorted(TARGETS))}")
    target = TARGETS[abi]
    compilers = list(_compilers(target))
    if not compilers:
        raise ToolkitMissing(f"no compiler for {abi} is here to build the native runner", hint=_compiler_hint(target))
    version = _litert_version()
    cache = cache or Path(user_cache_dir("edgeprune")) / "bundles"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{abi}-{_recipe(target, compilers, version)}"
    if (found := _kept(target, folder)) is not None:
        return found
    with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as scratch:
        built = Path(scratch) / "bundle"
        built.mkdir()
        _build(target, compilers, version, built, cache)
        _publish(built, folder)
    if (found := _kept(target, folder)) is None:
        raise ToolkitMissing("the native runner was built and is not there", where=str(folder), hint="try again")
    return found


def sources() -> list[Path]:
    """The C files of the native runner, with their headers."""
    spec = importlib.util.find_spec("apps.runner")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in (Path(folder) / "native").glob("*.[ch]"))
    if not found:
        raise ToolkitMissing("the native runner's sources are not installed", hint="install edgeprune with its `apps`")
    return found


def needed_libraries(path: Path) -> tuple[int, list[str]]:
    """(e_machine, DT_NEEDED names) of a 64-bit little-endian ELF file.

    Raises:
        ValueError: it is none.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no 64-bit ELF file")
    try:
        (machine,) = struct.unpack_from("<H", data, 18)
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
        loads = [(address, offset, length) for kind, _, offset, address, _, length in headers if kind == 1]
        entries = [
            struct.unpack_from("<qQ", data, offset + i)
            for kind, _, offset, _, _, length in headers
            if kind == 2
            for i in range(0, length, 16)
        ]
        strings = next((value for tag, value in entries if tag == 5), 0)
        text = next((strings - at + offset for at, offset, length in loads if at <= strings < at + length), 0)
        starts = [text + value for tag, value in entries if tag == 1]
        return machine, [data[start : data.index(b"\0", start)].decode() for start in starts]
    except struct.error as error:
        raise ValueError(f"{path} is cut off") from error


def _host_abi() -> str:
    """This machine's own kind, empty where it does not run Linux programs."""
    return abi_of(platform.machine()) if sys.platform == "linux" else ""


def _litert_version() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ToolkitMissing(f"{PACKAGE} is not installed", hint=f"pip install {PACKAGE}") from error


def _compilers(target: _Target) -> Iterator[tuple[str, ...]]:
    """Command lines that may build for a target, the best first."""
    own = ("cc", "gcc") if target.abi == _host_abi() else ()
    for name in (*own, f"{target.triple}-gcc"):
        if path := shutil.which(name):
            yield (path,)
            break
    if importlib.util.find_spec("ziglang") is not None:
        yield (sys.executable, "-m", "ziglang", "cc", "-target", f"{target.triple}.2.28")


def _compiler_hint(target: _Target) -> str:
    package = "gcc" if target.abi == _host_abi() else f"gcc-{target.triple.replace('_', '-')}"
    return f"`sudo apt-get install {package}` or `pip install ziglang`"


def _recipe(target: _Target, compilers: list[tuple[str, ...]], version: str) -> str:
    """A hash of all that a bundle is made from."""
    digest = hashlib.sha256()
    settings = [target.setting(name) for name in ("LITERT_WHEEL", "SYSROOT")]
    stats = [(s.st_size, s.st_mtime_ns) for s in (Path(name).stat() for name in settings if Path(name).exists())]
    parts = [compilers, FLAGS, LINKED, version, settings, stats, target.command]
    digest.update(json.dumps(parts).encode())
    for path in sources():
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _kept(target: _Target, folder: Path) -> Bundle | None:
    """The bundle in a folder, if it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: folder / name for name in manifest["files"]}
        if any(file_sha256(path) != manifest["files"][name] for name, path in files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sha256 = manifest["files"][LIBRARY]
    return Bundle(target.abi, files, target.command, LIBRARY, manifest["version"], sha256)


def _publish(built: Path, folder: Path) -> None:
    """Move a bundle to its place. Another process may have been faster; one that is damaged makes room."""
    try:
        built.rename(folder)
    except OSError:
        if _kept_whole(folder):
            return
        folder.rename(built.with_name("damaged"))  # is removed with the build folder
        built.rename(folder)


def _kept_whole(folder: Path) -> bool:
    return _kept(TARGETS[folder.name.partition("-")[0]], folder) is not None


def _build(target: _Target, compilers: list[tuple[str, ...]], version: str, built: Path, cache: Path) -> None:
    _compile(target, compilers, built / RUNNER)
    shutil.copyfile(_library(target, version, built, cache), built / LIBRARY)
    if target.loader:
        _add_system(target, built)
    files = sorted(built.iterdir())
    for path in files:
        path.chmod(0o755)
    manifest = {"version": version, "files": {path.name: file_sha256(path) for path in files}}
    (built / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _compile(target: _Target, compilers: list[tuple[str, ...]], runner: Path) -> None:
    """Build with the first compiler that can: one without its headers is no compiler."""
    files = [str(path) for path in sources() if path.suffix == ".c"]
    said = ""
    for compiler in compilers:
        good, lines = _said([*compiler, *FLAGS, "-o", str(runner), *files, *LINKED])
        if good:
            return
        said = said or next((line for line in lines if "error" in line), lines[-1])
    raise ToolkitMissing(
        f"the native runner for {target.abi} cannot be built: {said.strip()}", hint=_compiler_hint(target)
    )


def _library(target: _Target, version: str, scratch: Path, cache: Path) -> Path:
    """LiteRT's library for a target, of the version that is installed here."""
    if wheel := target.setting("LITERT_WHEEL"):
        return _unpacked(target, Path(wheel), version, scratch)
    if target.abi == _host_abi():
        spec = importlib.util.find_spec("ai_edge_litert")
        assert spec is not None  # its version was told
        assert spec.origin is not None
        return Path(spec.origin).with_name(LIBRARY)
    kept = cache / f"{LIBRARY}-{version}-{target.abi}"
    if not kept.is_file():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".wheel-") as folder:
            wheel_file = _downloaded(target, version, Path(folder))
            _unpacked(target, wheel_file, version, Path(folder)).replace(kept)
    return kept


def _downloaded(target: _Target, version: str, folder: Path) -> Path:
    platforms = [f"manylinux_{tag}_{target.abi}" for tag in ("2_27", "2_28", "2_17")] + [f"manylinux2014_{target.abi}"]
    good, lines = _said(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--python-version", WHEEL_PYTHON, "--implementation", "cp"),
            *(part for name in platforms for part in ("--platform", name)),
            *("--dest", str(folder), f"{PACKAGE}=={version}"),
        ]
    )
    wheels = list(folder.glob("*.whl"))
    if not good or not wheels:
        raise ToolkitMissing(
            f"the wheel of {PACKAGE} {version} for {target.abi} cannot be had: {lines[-1]}",
            hint=f"name a wheel file in EDGEPRUNE_LITERT_WHEEL_{target.abi.upper()}",
        )
    return wheels[0]


def _unpacked(target: _Target, wheel: Path, version: str, folder: Path) -> Path:
    """The library out of a wheel, looked at: the right version, for the right machine."""
    hint = f"it has to be the one of {PACKAGE} {version} for {target.abi}"
    place = folder / LIBRARY
    try:
        with zipfile.ZipFile(wheel) as archive:
            about = f"{PACKAGE.replace('-', '_')}-{version}.dist-info/METADATA"
            if about not in archive.namelist():
                raise ToolkitMissing("the wheel is of another version", where=str(wheel), hint=hint)
            with archive.open(f"ai_edge_litert/{LIBRARY}") as read, place.open("wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
        machine, _ = needed_libraries(place)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ToolkitMissing(f"the wheel cannot be used: {error}", where=str(wheel), hint=hint) from error
    if machine != target.machine:
        raise ToolkitMissing("the wheel is for another kind of processor", where=str(wheel), hint=hint)
    return place


def _said(command: list[str]) -> tuple[bool, list[str]]:
    """Whether a command went well, and the lines it wrote (at least one)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, [str(error)]
    return done.returncode == 0, (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()


def _add_system(target: _Target, built: Path) -> None:
    """glibc's loader, and the libraries that the runner and LiteRT's library need, and those that they need."""
    folders = _system_folders(target)
    wanted = [target.loader, *needed_libraries(built / RUNNER)[1], *needed_libraries(built / LIBRARY)[1]]
    while wanted:
        name = wanted.pop()
        place = built / name
        if place.exists():
            continue
        shutil.copyfile(_system_file(target, name, folders), place)
        wanted += needed_libraries(place)[1]


def _system_folders(target: _Target) -> list[Path]:
    if sysroot := target.setting("SYSROOT"):
        root = Path(sysroot)
        names = ("", "lib", "lib64", "usr/lib", "usr/lib64", f"lib/{target.triple}", f"usr/lib/{target.triple}")
        return [root / name for name in names]
    folders = [Path("/usr") / target.triple / "lib"]
    if target.abi == _host_abi():
        own = (f"/lib/{target.triple}", f"/usr/lib/{target.triple}", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
        folders += [Path(name) for name in own]
    return folders


def _system_file(target: _Target, name: str, folders: list[Path]) -> Path:
    for folder in folders:
        path = folder / name
        try:
            if needed_libraries(path)[0] == target.machine:
                return path
        except (OSError, ValueError):
            continue
    looked = ", ".join(str(folder) for folder in folders)
    raise ToolkitMissing(
        f"{name} for {target.abi} is not in {looked}",
        hint=f"`sudo apt-get install gcc-{target.triple} libstdc++6-arm64-cross`, or name a folder with it in "
        f"EDGEPRUNE_SYSROOT_{target.abi.upper()}",
    )
