from __future__ import annotations

import sys
from pathlib import Path

import pytest
from toy_training import make_split

from edgeprune.data.split import Split

sys.path.append(str(Path(__file__).parents[1] / "search"))  # nets that the tests of searches prune, too


@pytest.fixture
def train() -> Split:
    return make_split(200, 1)


@pytest.fixture
def validation() -> Split:
    return make_split(120, 2)
