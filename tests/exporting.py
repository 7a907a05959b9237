"""Export for tests that want all of it, or the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import export_each
from edgeprune.artifacts.manifest import Manifest
from edgeprune.models.spec import Model


def export(model: Model, folder: Path, *, formats: Sequence[str], int8: bool, **more: Any) -> list[Manifest]:
    """The manifests of all files; the first failure is raised, after the other files were written."""
    done = export_each(model, folder, formats=formats, int8=formats if int8 else (), **more)
    if done.not_written:
        raise done.not_written[0].error
    return list(done.manifests)
