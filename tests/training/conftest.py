from __future__ import annotations

import pytest
from toy_training import make_split

from edgeprune.data.split import Split


@pytest.fixture
def train() -> Split:
    return make_split(200, 1)


@pytest.fixture
def validation() -> Split:
    return make_split(120, 2)
