"""Finding exporters by entry point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.artifacts.plugins import (
    ProbeBuilder,
    exporter_for,
    find_exporter,
    find_exporters,
    int8_scheme,
    missing_packages,
    require_toolkit,
)
from edgeprune.errors import ToolkitMissing, UsageError


def test_ours_are_found_with_what_they_write() -> None:
    found = find_exporters()
    assert {name: e.precisions for name, e in found.items() if name in ("tflite", "pte", "coreml", "onnx")} == {
        "tflite": ("fp32", "int8"),
        "pte": ("fp32", "int8"),
        "coreml": ("fp16", "int8"),
        "onnx": ("fp32",),
    }
    assert all(found[name].name == name for name in found)
    assert isinstance(found["pte"], ProbeBuilder)
    schemes = {name: int8_scheme(e) for name, e in found.items() if "int8" in e.precisions}
    assert {name: words.split()[0] for name, words in schemes.items()} == {
        "tflite": "ai-edge-quantizer",
        "pte": "PT2E",
        "coreml": "linear",
    }
    assert exporter_for("litert").name == "tflite"
    assert exporter_for("executorch").name == "pte"


def test_finding_exporters_imports_no_toolkit() -> None:
    code = (
        "import sys; from edgeprune.artifacts.plugins import find_exporters, missing_packages\n"
        "for e in find_exporters().values(): missing_packages(e)\n"
        "print([m for m in ('litert_torch','executorch.exir','coremltools','onnx','torchao') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_others_plugins_are_found_beside_ours(strange_exporters: Path) -> None:
    assert {"aborting", "tflite"} <= find_exporters().keys()
    assert missing_packages(find_exporter("missing")) == ("no_such_toolkit",)
    with pytest.raises(ToolkitMissing, match=r"edgeprune\[nothing\]"):
        require_toolkit(find_exporter("missing"))


def test_a_broken_plugin_is_named_and_hurts_only_those_who_ask_for_it(strange_exporters: Path) -> None:
    entries = strange_exporters / "strange-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "broken = strange_exporters:NotThere\n")
    assert find_exporter("chatty").name == "chatty"
    with pytest.raises(UsageError, match="strange"):
        find_exporter("broken")


def test_two_plugins_for_one_format_are_refused(strange_exporters: Path) -> None:
    entries = strange_exporters / "strange-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "tflite = strange_exporters:Chatty\n")
    for ask in (lambda: find_exporter("tflite"), lambda: exporter_for("litert"), find_exporters):
        with pytest.raises(UsageError, match="'tflite'") as caught:
            ask()
        assert "edgeprune (exporters.tflite:TFLiteExporter)" in caught.value.what
        assert "strange (strange_exporters:Chatty)" in caught.value.what


def test_a_plugin_that_calls_itself_by_another_name_is_refused(strange_exporters: Path) -> None:
    entries = strange_exporters / "strange-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "quiet = strange_exporters:Chatty\n")
    with pytest.raises(UsageError, match="'quiet'") as caught:
        find_exporter("quiet")
    assert caught.value.where == "strange"
    assert "'chatty'" in caught.value.what


def test_a_runtime_nobody_writes_for() -> None:
    with pytest.raises(UsageError, match="abacus") as caught:
        exporter_for("abacus")
    assert caught.value.hint is not None
    assert all(word in caught.value.hint for word in ("litert (edgeprune)", "executorch (edgeprune)"))
    assert "onnxruntime" not in caught.value.hint  # nothing probes it: no model is pruned for it


def test_a_broken_plugin_hides_no_runtime(strange_exporters: Path) -> None:
    entries = strange_exporters / "strange-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + "broken = strange_exporters:NotThere\n")
    assert exporter_for("executorch").name == "pte"
    with pytest.raises(UsageError, match="abacus"):
        exporter_for("abacus")


def test_looking_for_a_runtime_imports_no_torch() -> None:
    code = (
        "import sys; from edgeprune.installed import require_runtime; require_runtime('executorch')\n"
        "from edgeprune.artifacts.plugins import find_exporters; find_exporters()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
