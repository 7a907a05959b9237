"""Mutated inputs for longer than the tests take: the same engine and the same tests, one seed after the other.

    python benchmarks/fuzz.py --minutes 30 [--first-seed 1000] [--only recipes]

Ends with the first seed that fails, and exit code 1. The tests are tests/fuzz; their seed is 22.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--only", default="", help="words of the tests' names, as pytest's -k takes them")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    seed = asked.first_seed
    while time.monotonic() < until:
        words = ["-q", "-x", "-p", "no:cacheprovider", str(TESTS), "-k", asked.only or "mutated or readers or runtime"]
        environment = os.environ | {"EDGEPRUNE_FUZZ_SEED": str(seed)}
        if subprocess.run([sys.executable, "-m", "pytest", *words], env=environment, check=False).returncode:
            print(f"seed {seed} fails", file=sys.stderr)
            return 1
        seed += 1
    print(f"seeds {asked.first_seed} to {seed - 1}: nothing but our own errors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
