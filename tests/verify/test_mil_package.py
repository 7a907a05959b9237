"""Damaged and unfit packages are refused with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given
from hypothesis import strategies as st
from small_nets import Convert, randomize
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.verify.mil import run_mlpackage
from edgeprune.verify.mil.blobs import BlobFile, packed_bytes, unpack_bits

INPUT = np.ones((1, 3, 8, 8), np.float32)


@pytest.fixture
def package(to_coreml: Convert) -> Path:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return to_coreml(randomize(net), torch.ones(1, 3, 8, 8))


def weights(package: Path) -> Path:
    return package / "Data/com.apple.CoreML/weights/weight.bin"


def test_every_cut_of_the_weights_is_noticed(package: Path) -> None:
    whole = weights(package).read_bytes()
    run_mlpackage(package, INPUT)
    for length in (0, 10, 63, 64, 100, 128, len(whole) // 2, len(whole) - 65):
        weights(package).write_bytes(whole[:length])
        with refused(UsageError, "weight.bin"):
            run_mlpackage(package, INPUT)


def test_a_wrong_size_or_type_is_noticed(package: Path) -> None:
    whole = bytearray(weights(package).read_bytes())
    for place, fact in ((64, "starts"), (68, "program"), (72, "bytes")):
        broken = bytearray(whole)
        broken[place] ^= 0x07
        weights(package).write_bytes(bytes(broken))
        with refused(UsageError, "weight.bin", fact):
            run_mlpackage(package, INPUT)


def test_missing_parts(package: Path, tmp_path: Path) -> None:
    with refused(UsageError, tmp_path / "nothing.mlpackage"):
        run_mlpackage(tmp_path / "nothing.mlpackage", INPUT)
    model = package / "Data/com.apple.CoreML/model.mlmodel"
    content = model.read_bytes()
    model.write_bytes(b"\xff\xff\xff not a protobuf")
    with refused(UsageError, "model.mlmodel"):
        run_mlpackage(package, INPUT)
    model.write_bytes(content)
    shutil.rmtree(weights(package).parent)
    with refused(UsageError, "weight.bin"):
        run_mlpackage(package, INPUT)


def test_a_package_cannot_reach_outside_itself(package: Path) -> None:
    manifest = package / "Manifest.json"
    content = json.loads(manifest.read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = "../../outside"
    manifest.write_text(json.dumps(content))
    with refused(UsageError, package, "../../outside"):
        run_mlpackage(package, INPUT)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.bin",
        "@model_path//etc/passwd",
        "@model_path/../../../../outside.bin",
        "@model_path/weights/../../../../outside.bin",
        "weights/weight.bin",
        "@model_path/weights/weight.bin\0",
        "",
    ],
)
def test_weights_are_read_from_the_package_alone(package: Path, name: str) -> None:
    rename_weights(package, name)
    shutil.copy(weights(package), package.parent / "outside.bin")
    with refused(UsageError, package, "outside"):
        run_mlpackage(package, INPUT)


@pytest.mark.parametrize("place", ["weights/weight.bin", "weights", "model.mlmodel"])
def test_a_link_out_of_the_package_is_not_followed(package: Path, place: str) -> None:
    inside = package / "Data/com.apple.CoreML" / place
    inside.rename(package.parent / "outside")
    inside.symlink_to(package.parent / "outside")
    with refused(UsageError, package, "link"):
        run_mlpackage(package, INPUT)


def rename_weights(package: Path, name: str) -> None:
    """Let every constant of the program be read from a file of this name."""
    from coremltools.proto import Model_pb2

    file = package / "Data/com.apple.CoreML/model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(file.read_bytes())
    for block in model.mlProgram.functions["main"].block_specializations.values():
        for operation in block.operations:
            for value in operation.attributes.values():
                if value.WhichOneof("value") == "blobFileValue":
                    value.blobFileValue.fileName = name
    file.write_bytes(model.SerializeToString())


def test_inputs_have_to_fit(package: Path) -> None:
    with refused(UsageError, (1, 3, 9, 8), (1, 3, 8, 8)):
        run_mlpackage(package, np.ones((1, 3, 9, 8), np.float32))
    with refused(UsageError, package, 0):
        run_mlpackage(package, np.ones((0, 3, 8, 8), np.float32))


def test_an_older_kind_of_model_is_refused(coremltools: Any, tmp_path: Path, package: Path) -> None:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.neuralNetwork.SetInParent()
    (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(model.SerializeToString())
    with refused(UsageError, "neuralNetwork"):
        run_mlpackage(package, INPUT)


def test_blobs_are_read_as_coremltools_reads_them(coremltools: Any, tmp_path: Path) -> None:
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    path = tmp_path / "weight.bin"
    writer = storage._BlobStorageWriter(str(path))
    generator = np.random.default_rng(0)
    values = {
        "FLOAT32": generator.standard_normal(7).astype(np.float32),
        "INT8": generator.integers(-128, 128, 9).astype(np.int8),
        "INT4": generator.integers(-8, 8, 5).astype(np.int8),
        "UINT3": generator.integers(0, 8, 11).astype(np.uint8),
        "UINT6": generator.integers(0, 64, 11).astype(np.uint8),
    }
    offsets = {
        "FLOAT32": writer.write_float_data(values["FLOAT32"]),
        "INT8": writer.write_int8_data(values["INT8"]),
        "INT4": writer.write_int4_data(values["INT4"]),
        "UINT3": writer.write_uint3_data(values["UINT3"]),
        "UINT6": writer.write_uint6_data(values["UINT6"]),
    }
    del writer
    blobs = BlobFile(path)
    for kind, expected in values.items():
        assert np.array_equal(blobs.read(offsets[kind], kind, expected.shape), expected), kind


@given(st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=40))))
def test_bits_unpack_from_the_least_significant_upwards(case: tuple[int, list[int]]) -> None:
    bits, values = case
    number = sum(value << (bits * place) for place, value in enumerate(values))
    packed = number.to_bytes((len(values) * bits + 7) // 8, "little")
    assert unpack_bits(np.frombuffer(packed, np.uint8), bits, len(values)).tolist() == values
    if f"UINT{bits}" in ("UINT1", "UINT2", "UINT3", "UINT4", "UINT6"):
        assert len(packed) == packed_bytes(f"UINT{bits}", len(values))
