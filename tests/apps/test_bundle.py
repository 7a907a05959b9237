"""The native runner's bundle: compiled without a warning, whole, built once, and what it lacks is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from facts import refused
from two_runners import (
    OWN_ABI,
    bundle_or_skip,
)

from edgeprune.devices.bundle import native_bundle, needed_libraries, sources
from edgeprune.errors import ToolkitMissing


def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    files = [str(path) for path in sources() if path.suffix == ".c"]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, "-o", str(tmp_path / "runner"), *files, "-ldl", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("abi", ["x86_64", "aarch64"])
def test_a_bundle_is_whole_small_and_built_once(cache: Path, abi: str) -> None:
    bundle = bundle_or_skip(abi, cache)
    assert all(path.is_file() and os.access(path, os.X_OK) for path in bundle.files.values())
    assert sum(path.stat().st_size for path in bundle.files.values()) <= 20e6
    assert bundle.library in bundle.files
    machines = {needed_libraries(path)[0] for path in bundle.files.values()}
    assert machines == {183 if abi == "aarch64" else 62}
    if abi == "aarch64":
        needed = {name for path in bundle.files.values() for name in needed_libraries(path)[1]}
        assert needed <= set(bundle.files)
        assert bundle.command[0] == "./ld-linux-aarch64.so.1"
    times = [path.stat().st_mtime_ns for path in bundle.files.values()]
    again = native_bundle(abi, cache=cache)
    assert (again, again.key) == (bundle, bundle.key)
    assert [path.stat().st_mtime_ns for path in again.files.values()] == times


def test_a_damaged_bundle_is_built_anew(cache: Path) -> None:
    bundle = bundle_or_skip(OWN_ABI, cache)
    key = bundle.key
    path = bundle.files["edgeprune-runner"]
    path.write_bytes(path.read_bytes()[:1000])
    again = native_bundle(OWN_ABI, cache=cache)
    assert again.key == key
    assert sorted(p.name for p in cache.iterdir() if p.name.startswith(".")) == []


def test_what_a_bundle_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolkitMissing, match="riscv64"):
        native_bundle("riscv64", cache=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("edgeprune.devices.bundle.importlib.util.find_spec", lambda name: None)
    with refused(ToolkitMissing, "gcc-aarch64-linux-gnu", "pip install ziglang"):
        native_bundle("aarch64", cache=tmp_path)


def test_a_wheel_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no compiler for aarch64 here")
    wheel = tmp_path / "ai_edge_litert-0.0.1-cp311-cp311-manylinux_2_27_aarch64.whl"
    wheel.write_bytes(b"no wheel")
    monkeypatch.setenv("EDGEPRUNE_LITERT_WHEEL_AARCH64", str(wheel))
    with refused(ToolkitMissing, wheel):
        native_bundle("aarch64", cache=tmp_path / "cache")
