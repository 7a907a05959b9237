"""glibc keeps what a program frees, where the program is ours: tensors of some MB cost page faults no more.

By default glibc takes every block beyond 32 MB from the kernel by itself and gives it back when it is freed. The next
one is then new memory, which the kernel fills with zeros page by page: for a network at 224 pixels that is half of all
the time. PyTorch's tuning guide ("Performance Tuning Guide", allocators) recommends another allocator, for which a
process has to be started anew; glibc can be told (mallopt(3)).
"""

from __future__ import annotations

import ctypes
import os
import platform

# mallopt(3). The numbers are those of malloc.h, which stay as they are in every version.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST_KEPT = 2**31 - 1  # bytes at the end of the heap; the greatest that there is (an int)
_USERS_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_freed_memory() -> bool:
    """Let this process use again what it frees, whatever its size; False where nothing was changed: on another C
    library, or where the user chose an allocator or its settings.

    What it frees stays its own, so its resident memory stays near the most that it needed. The command calls this; a
    program that imports edgeprune is its user's own, who may call it before the first tensor.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in _USERS_OWN):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
