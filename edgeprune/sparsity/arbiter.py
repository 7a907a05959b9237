"""Sparse or dense: the rules say whether a sparse file can be faster on a device, its clock whether it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.inference import run_inference
from edgeprune.errors import UsageError
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.pairs import measure_ratio
from edgeprune.latency.profile import profile
from edgeprune.records import Record
from edgeprune.sparsity.graph import Graph
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import SparseCheck, check_sparse

KERNEL = "SPMM"  # in the name that the runtime's profiler gives XNNPACK's sparse matrix products
PROFILE_RUNS = 40
IMAGES = 2  # random ones, on which both files are compared
MOST_DIFFERENCE = 1e-3  # of their answers, as a share of the largest: sums are taken in another order


class SparseVerdict(Record):
    """Which of two files that compute the same is to be kept for a device, and on what grounds.

    `ratio` is the latency of the sparse file over that of the dense one, measured in turns; None where nothing was
    measured because a rule says that the sparse one would run dense. `sparse_kernels`: how many the runtime's profiler
    saw; None where it was not asked or does not tell.
    """

    kept: Literal["sparse", "dense"]
    why: str
    check: SparseCheck
    bytes_dense: int
    bytes_sparse: int
    ratio: Ratio | None
    sparse_kernels: int | None


def choose_encoding(
    device: Device, dense: Path, sparse: Path, *, threads: int = 1, protocol: str = "quick"
) -> SparseVerdict:
    """Write `sparse` from the float file `dense`, and say which of them is the one to keep on a device.

    Sparse is kept where all rules hold, both answer alike on the device, and sparse is faster beyond the measurement's
    interval. A file that breaks a rule is never kept: at best XNNPACK runs it dense, at worst (seen with LiteRT 2.3.0
    where values leave the cluster) it computes something else.

    Raises:
        UsageError: the file is no .tflite file that can be rewritten, or cannot be run on the device.
        DeviceError: the device is in use or was lost.
    """
    rewritten = write_sparse(dense, sparse)
    check = check_sparse(sparse)
    why = check.why_not or _device_against(device)
    ratio, kernels = None, None
    if not why:
        why = _answers_against(device, dense, sparse, threads)
    if not why:
        ratio = measure_ratio(device, sparse, dense, runtime="litert", threads=threads, protocol=protocol)
        kernels = _sparse_kernels(device, sparse, threads)
    kept: Literal["sparse", "dense"] = "sparse" if ratio is not None and ratio.high < 1 else "dense"
    if ratio is not None:
        why = f"measured {ratio.ratio:.3f} of the dense file's latency ({ratio.low:.3f} to {ratio.high:.3f})"
        if kernels is not None:
            why += f"; {kernels} of {check.layers} layers ran as sparse kernels"
    return SparseVerdict(
        kept=kept,
        why=why,
        check=check,
        bytes_dense=rewritten.bytes_before,
        bytes_sparse=rewritten.bytes_after,
        ratio=ratio,
        sparse_kernels=kernels,
    )


def check_zeros_can_save(device: Device, dense: Path, folder: Path) -> None:
    """Check, before there are any zeros, that a file could run with sparse kernels on a device if it had them.

    Args:
        folder: where a file may lie for a moment.

    Raises:
        UsageError: it could not; names the rules that are broken, and by which operators.
    """
    sparse = folder / f".part-{dense.name}"
    try:
        write_sparse(dense, sparse)
        why = check_sparse(sparse).broken(but=("stored", "zeros")) or _device_against(device)
    finally:
        sparse.unlink(missing_ok=True)
    if why:
        raise UsageError(
            f"zeros save no time here: {why}",
            where=device.id,
            hint="leave sparse.target out and prune channels (prune.target); `edgeprune show sparse FILE.tflite` and "
            "docs/methods/sparse.md say what XNNPACK's sparse kernels take",
        )


def _answers_against(device: Device, dense: Path, sparse: Path, threads: int) -> str:
    """How the sparse file's answers differ from the dense one's on the device; empty if they do not."""
    graph = Graph(dense)
    shape = graph.shape(graph.inputs[0])
    images = np.random.default_rng(0).standard_normal((IMAGES, *shape[1:])).astype(np.float32)
    right, found = (
        run_inference(device, file, images, runtime="litert", threads=threads).outputs[0].astype(np.float64)
        for file in (dense, sparse)
    )
    difference = float(np.abs(found - right).max() / max(np.abs(right).max(), np.finfo(np.float32).tiny))
    if not difference <= MOST_DIFFERENCE:  # NaN is none either
        return f"the answers differ by {difference:.2g} of the largest on {device.id}"
    return ""


def _device_against(device: Device) -> str:
    """Why XNNPACK runs dense on this device whatever the file is; empty if it does not."""
    facts = device.facts()
    if facts.abi == "x86_64" and any(feature.startswith("avx") for feature in facts.cpu_features):
        return f"{device.id} is an x86 processor with AVX, where XNNPACK always runs dense"
    return ""


def _sparse_kernels(device: Device, file: Path, threads: int) -> int | None:
    try:
        found = profile(device, file, threads=threads, runs=PROFILE_RUNS)
    except UsageError:  # it runs, as its latency shows; its runtime's profiler does not tell
        return None
    return sum(KERNEL in kernel.name for kernel in found.kernels)
