"""The messages of Core ML's model format, from coremltools' generated code alone.

To import coremltools takes many seconds: it imports torchao, ExecuTorch and scikit-learn where they are installed. To
read a package needs none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from edgeprune.errors import ToolkitMissing

_WHOLE, _ALONE = "coremltools.proto", "coremltools_proto"  # with all of coremltools, where that was imported; without


def messages(name: str) -> ModuleType:
    """`Model_pb2`, `MIL_pb2`, ...

    Raises:
        ToolkitMissing: coremltools is not installed.
    """
    if _WHOLE not in sys.modules and _ALONE not in sys.modules:
        package = ModuleType(_ALONE)
        package.__path__ = [str(_folder())]
        sys.modules[_ALONE] = package
    return importlib.import_module(f"{_ALONE if _ALONE in sys.modules else _WHOLE}.{name}")


def _folder() -> Path:
    try:
        found = importlib.util.find_spec("coremltools")
    except ImportError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise ToolkitMissing(
            "checking a .mlpackage needs coremltools", hint='install it: pip install "edgeprune[coreml]"'
        )
    return Path(found.submodule_search_locations[0]) / "proto"
