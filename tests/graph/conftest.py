"""For the tests of recorded models: the nets that are pruned in `tests/space` are recorded here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "space"))
