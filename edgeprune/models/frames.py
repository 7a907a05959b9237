"""Where in the user's own code an error came from: its last frame that is neither ours nor a library's."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import edgeprune

_OURS = Path(edgeprune.__file__).resolve().parent
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def own_frame(error: BaseException, source: str) -> str:
    """`net.py, line 12, in make`: the last frame of the user's own code, or the line that is no Python; empty where
    none of it was running.

    Args:
        source: the factory, as `package.module:function` or `path/file.py:function`: its package is the user's own,
            wherever it is installed.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename, source):
        return f"{_told(Path(error.filename))}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(frame.filename, source)]
    return f"{_told(Path(frames[-1].filename))}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else ""


def _is_own(filename: str, source: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    package = source.rpartition(":")[0].partition(".")[0]
    if package and package != "timm" and not source.rpartition(":")[0].endswith(".py") and package in path.parts:
        return True
    library = any(folder in path.parents for folder in _LIBRARIES) or not _INSTALLED.isdisjoint(path.parts)
    return not library and _OURS not in path.parents


def _told(path: Path) -> str:
    """The file as seen from where the user stands."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
