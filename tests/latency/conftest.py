from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.devices.local import LocalDevice


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(tmp_path / "device")
