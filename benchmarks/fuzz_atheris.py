"""Coverage-guided fuzzing of everything that reads a file of a user's: atheris mutates towards code not seen yet.

    python -m pip install atheris==3.0.0
    make demo
    python benchmarks/fuzz_atheris.py --seconds 120 --cache .cache/atheris

Each reader has a process of its own, its seeds are whole files, and anything but one of our own errors of exit code 2
ends it. What was found worth keeping stays in the cache, so that the next run goes on from there. Writes
benchmarks/results/fuzz_atheris.json. The tests in tests/fuzz mutate without looking at coverage, with fixed seeds.
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing of edgeprune is imported up here: atheris sees only what is imported once it looks.
ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "runs" / "quickstart"  # of `make demo`
Look = Callable[[bytes], object]
Reader = tuple[Look, list[bytes]]  # what reads bytes, and whole files to begin with


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="of each reader")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "atheris", help="what was found worth keeping")
    parser.add_argument("--reader", choices=READERS, help="this one alone, in this process; no result file is written")
    asked = parser.parse_args()
    if asked.reader:
        fuzz(asked.reader, asked.cache / asked.reader, asked.seconds)
    from common import write_result

    rows = [row_of(reader, asked.cache, asked.seconds) for reader in READERS]
    write_result("fuzz_atheris", {"seconds_each": asked.seconds, "readers": rows})
    return int(any(row["failure"] for row in rows))


def row_of(reader: str, cache: Path, seconds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--reader", reader, "--seconds", str(seconds), "--cache", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    units = re.search(r"number_of_executed_units:\s*(\d+)", said)
    covered = re.findall(r"cov: (\d+)", said)
    row = {
        "reader": reader,
        "inputs": int(units.group(1)) if units else 0,
        "edges_covered": int(covered[-1]) if covered else 0,
        "failure": "" if done.returncode == 0 else said[-3000:],
    }
    print(row["reader"], row["inputs"], "inputs", row["edges_covered"], "edges", row["failure"], flush=True)
    return row


def fuzz(reader: str, corpus: Path, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    atheris = importlib.import_module("atheris")  # not among the project's packages
    with atheris.instrument_imports(include=["edgeprune"]):
        sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
        look, seeds = READERS[reader]()
        from edgeprune.errors import EdgePruneError
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"whole-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            look(data)
        except EdgePruneError as error:
            if error.exit_code != 2 or len(str(error)) > 6000:
                raise

    limits = [
        f"-max_total_time={seconds}",
        "-max_len=65536",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    atheris.Fuzz()


def _of_file(read: Callable[[Path], object], suffix: str) -> Look:
    """A reader of bytes from a reader of files."""
    path = Path(tempfile.mkdtemp()) / f"x{suffix}"

    def look(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return look


def recipe() -> Reader:
    from mutations import toml  # type: ignore[import-not-found]
    from test_fuzz_recipes import FULL, light_parts_of_load  # type: ignore[import-not-found]

    from edgeprune.recipe_file import read_recipe

    return _of_file(lambda path: light_parts_of_load(read_recipe(path)), ".toml"), [toml(FULL).encode()]


def tflite() -> Reader:
    from test_fuzz_tflite import net  # type: ignore[import-not-found]

    from edgeprune.latency.tflite_reader import read_layers
    from edgeprune.sparsity.rules import check_sparse
    from edgeprune.verify.explain import read_cuttable

    whole = Path(tempfile.mkdtemp()) / "whole.tflite"
    net(whole)
    return (
        _of_file(lambda path: (read_layers(path), check_sparse(path), read_cuttable(path)), ".tflite"),
        [whole.read_bytes()],
    )


def manifest() -> Reader:
    from edgeprune.artifacts.manifest import read_manifest

    return _of_file(read_manifest, ".json"), [file.read_bytes() for file in RUN.glob("export/*.json")]


def plan() -> Reader:
    from edgeprune.space.plan import read_plan

    return _of_file(read_plan, ".json"), [(RUN / "prune" / "plan.json").read_bytes()]


def labels() -> Reader:
    from edgeprune.labels import read_labels

    return _of_file(read_labels, ".txt"), [b"cat\ndog\nbird\n", "\ufeffa\r\nb\r\n".encode()]


def checkpoint() -> Reader:
    import torch
    from safetensors.torch import save
    from torch import nn

    from edgeprune.models.checkpoint import load_state

    module, state = nn.ModuleDict({"a": nn.Linear(3, 4)}), {"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4)}
    whole = [save(state)]
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, stream, _use_new_zipfile_serialization=zipped)
        whole.append(stream.getvalue())
    return _of_file(lambda path: load_state(module, path), ".pth"), whole


def image() -> Reader:
    import numpy as np
    from PIL import Image

    from edgeprune.data.decode import decode

    whole = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, kind)
        whole.append(stream.getvalue())
    return decode, whole


READERS = {one.__name__: one for one in (recipe, tflite, manifest, plan, labels, checkpoint, image)}


if __name__ == "__main__":
    sys.exit(main())
