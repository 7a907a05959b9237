"""How long `edgeprune --help` takes beside `python -c "import typer, rich"`, in turns.

    python benchmarks/startup.py

Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import write_result

PAIRS = 20


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    ours = [str(Path(sys.executable).with_name("edgeprune")), "--help"]
    plain = [sys.executable, "-c", "import typer, rich"]
    pairs = [(seconds(ours), seconds(plain)) for _ in range(PAIRS + 1)][1:]  # the first one warms the disk's cache
    ratios = sorted(a / b for a, b in pairs)
    figures = {
        "help_s": statistics.median(a for a, _ in pairs),
        "imports_s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "quartiles": [ratios[PAIRS // 4], ratios[3 * PAIRS // 4]],
        "pairs": PAIRS,
    }
    print(write_result("startup", figures), figures, file=sys.stderr)


if __name__ == "__main__":
    main()
