"""Reading a Core ML package says nothing of torchao's kernels; a toolkit's other words stay."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from edgeprune.chatter import KNOWN, without_known_chatter

READ = "from edgeprune.verify.mil.package import _model_message; _model_message(); import sys; print(*sys.modules)"


def test_reading_a_package_is_silent_on_the_real_stderr() -> None:
    pytest.importorskip("coremltools")
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    if "torchao" in done.stdout.split():
        loud = "import coremltools"
        heard = subprocess.run([sys.executable, "-c", loud], capture_output=True, text=True, timeout=120, check=True)
        assert any(word in heard.stderr for word in ("Failed to load", "register_constant")), "nothing to silence"


@pytest.mark.parametrize(
    ("logger", "said", "kept"),
    [
        ("torchao", "Failed to load /x/torchao/_C_cutlass_90a.abi3.so: Could not load this library: /x.so", False),
        ("torchao", "Failed to quantize the model", True),
        ("torchao", "the kernel is wrong: Failed to load /x.so: no", True),
        ("torchao.quantization", "Failed to load /x/weights.so: corrupt", True),
        ("executorch", "Failed to load /x/libs.so: no such file", True),
        (
            "torch.utils._pytree",
            "<enum 'KernelPreference'> is an Enum subclass and is now natively supported by torch.compile as an opaque "
            "value type. Calling register_constant() on Enum subclasses is deprecated and will be an error in a future "
            "release.",
            False,
        ),
        ("torch.utils._pytree", "register_constant() failed", True),
    ],
)
def test_exactly_the_known_words_are_kept_back(
    caplog: pytest.LogCaptureFixture, logger: str, said: str, kept: bool
) -> None:
    with without_known_chatter():
        logging.getLogger(logger).warning(said)
    assert (said in caplog.messages) is kept
    caplog.clear()
    logging.getLogger(logger).warning(said)
    assert said in caplog.messages  # and only while something is imported


def test_an_error_while_importing_leaves_no_filter_behind() -> None:
    with pytest.raises(ImportError), without_known_chatter():
        raise ImportError("half of it")
    assert not any(logging.getLogger(name).filters for name in KNOWN)
