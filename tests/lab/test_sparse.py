"""Sparse .tflite files on the ARM64 machine: the kernels that run there, and what they answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from lanes import open_lane
from machine import AdbServer, Machine

from edgeprune.devices.jobs import Array, Case, Job, run_job
from edgeprune.devices.remote import RemoteDevice
from edgeprune.sparsity.arbiter import KERNEL, choose_encoding
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse

sys.path.insert(0, str(Path(__file__).parents[1] / "sparsity"))
import sparse_nets
from sparse_nets import NETS, Net, head

pytestmark = pytest.mark.slow

# Refused although sparse kernels run: one computes something else, the other's axes are not known to be safe.
REFUSED_YET_SPARSE = {sparse_nets.last_image_is_an_output, sparse_nets.mean_over_channels}


@pytest.fixture
def device(arm: Machine, adb_server: AdbServer, ssh_config: Path, lab_environment: None) -> Iterator[RemoteDevice]:
    opened = open_lane("adb", arm, ssh_config)
    yield opened
    opened.clean()
    opened.close()


def answer_here(file: Path, image: Array) -> Array:
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def test_the_rules_tell_what_the_machine_does(device: RemoteDevice, tmp_path: Path) -> None:
    """Where all rules hold, every 1x1 convolution runs sparsely and the answers are the dense file's; where one is
    broken, none does."""
    files, images = {}, {}
    for build in NETS:
        dense, files[build] = tmp_path / f"{build.__name__}.tflite", tmp_path / f"{build.__name__}_sparse.tflite"
        build(dense)
        write_sparse(dense, files[build])
        shape = Interpreter(str(dense)).get_input_details()[0]["shape"]
        images[build] = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    profiled = run_job(device, Job("litert", tuple(Case(b.__name__, f) for b, f in files.items()), profile_runs=1))
    inferred = run_job(device, Job("litert", tuple(Case(b.__name__, f, (images[b],)) for b, f in files.items())))
    for build, file in files.items():
        found, kernels = check_sparse(file), profiled.cases[build.__name__].kernels
        assert kernels is not None, profiled.cases[build.__name__].failure
        sparse = sum(KERNEL in name for name in kernels.names)
        assert sparse == (found.layers if found.holds else 0) or build in REFUSED_YET_SPARSE, build.__name__
        if found.holds:
            right = answer_here(file, images[build])
            np.testing.assert_allclose(
                (inferred.cases[build.__name__].outputs or ())[0],
                right,
                atol=1e-4 * np.abs(right).max(),
                err_msg=build.__name__,
            )


def test_the_arbiter_keeps_the_faster_file(device: RemoteDevice, tmp_path: Path) -> None:
    net = Net(pixels=33)
    x = net.stem()
    for _ in range(3):
        x = net.depthwise(net.convolution(x, 128), same=True)
    head(net, x, tmp_path / "dense.tflite")
    verdict = choose_encoding(device, tmp_path / "dense.tflite", tmp_path / "sparse.tflite", protocol="probe")
    assert verdict.ratio is not None
    assert (verdict.kept, verdict.sparse_kernels) == ("sparse", verdict.check.layers)
    assert verdict.ratio.high < 1
    assert f"{verdict.check.layers} of {verdict.check.layers} layers ran as sparse kernels" in verdict.why


def test_the_arbiter_keeps_the_dense_file_where_sparse_kernels_are_slower(device: RemoteDevice, tmp_path: Path) -> None:
    """Few positions: the sparse kernels want 32 of them at a time."""
    net = Net(zeros=0.68, pixels=3)
    x = net.stem()
    for _ in range(3):
        x = net.convolution(x, 128)
    head(net, x, tmp_path / "dense.tflite")
    verdict = choose_encoding(device, tmp_path / "dense.tflite", tmp_path / "sparse.tflite", protocol="probe")
    assert verdict.ratio is not None
    assert verdict.kept == "dense"
    assert verdict.ratio.ratio > 1
    assert "of the dense file's latency" in verdict.why
