"""Small structures and nets that the tests of searches prune, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "search"))
