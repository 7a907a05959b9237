from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _cheap(warm_toolkits: None, short_measuring: None) -> None: ...
