"""To read a Core ML package imports no toolkit and says nothing; coremltools can be imported before it and after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("coremltools")

ALONE = """
import sys
from edgeprune.verify.mil.messages import messages
messages("Model_pb2").Model()
print(*sys.modules)
"""
BOTH = """
import sys
if sys.argv[1] == "before":
    import coremltools
from edgeprune.verify.mil.messages import messages
mine = messages("Model_pb2").Model()
mine.specificationVersion = 8
import coremltools
theirs = coremltools.proto.Model_pb2.Model.FromString(mine.SerializeToString())
assert theirs.specificationVersion == 8
assert messages("Model_pb2").Model.FromString(theirs.SerializeToString()) == mine
"""


def test_a_package_is_read_without_any_toolkit_and_silently() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"coremltools", "torchao", "executorch", "sklearn"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_coremltools_itself_may_be_there_too(when: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BOTH, when], cwd=tmp_path, timeout=240, check=True)
