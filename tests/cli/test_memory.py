"""Freed memory is used again, so that tensors cost no page faults; settings of the user's own stand."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from edgeprune.memory import keep_freed_memory

# 20 tensors of 40 MB, one after the other, and how many pages the kernel had to bring
COUNTED = """
import resource, sys
from edgeprune.memory import keep_freed_memory
if sys.argv[1:] == ["kept"]:
    assert keep_freed_memory()
import torch
torch.set_num_threads(1)
def once():
    return float(torch.ones(10_000_000).sum())
for _ in range(10):  # the heap grows to what is needed
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def faults(*arguments: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *arguments], capture_output=True, text=True, check=True, env=clean
    )
    return int(done.stdout)


@glibc
def test_freed_memory_is_used_again() -> None:
    assert 10 * faults("kept") < faults()


@pytest.mark.parametrize("name", ["MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_user_set_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "65536")
    assert not keep_freed_memory()
