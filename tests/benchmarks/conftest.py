from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...
