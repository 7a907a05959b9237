"""Measuring for real, but shortly: for tests that do not ask how precise it is.

    python tests/shortly.py run recipe.toml --out run      # as `edgeprune`, in a process of its own

Those that do ask have the machine to themselves (tests/latency), or one that counts instructions (tests/lab).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest


def measure_shortly(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, "quick" takes a tenth of its time, and the predictor a third of its variants."""
    from edgeprune.latency import compare, whole_models
    from edgeprune.latency.presets import PROTOCOLS

    quick = PROTOCOLS["quick"]
    timing = replace(quick.timing, rounds=3, warm_up_s=0.01, min_s=0.01, warm_up_most_s=0.05)
    pairs = replace(quick.pair_timing, rounds=8)
    short = replace(quick, timing=timing, pair_timing=pairs, least_processes=2, most_processes=2, pause_s=0.1)
    patch.setitem(PROTOCOLS, "quick", short)
    patch.setattr(whole_models, "VARIANTS", 2)
    patch.setattr(whole_models, "PROFILED_S", 0.1)
    patch.setattr(compare, "LOOK_S", 0.2)


if __name__ == "__main__":
    from edgeprune.cli import main

    measure_shortly(pytest.MonkeyPatch())
    sys.argv[0] = "edgeprune"
    sys.exit(main())
