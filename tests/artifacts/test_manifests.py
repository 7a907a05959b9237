"""Manifests: there and back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.manifest import (
    Delegation,
    Manifest,
    TensorSpec,
    file_hash,
    file_size,
    manifest_path,
    read_manifest,
)
from edgeprune.errors import UsageError
from edgeprune.models.spec import Preprocessing
from edgeprune.stages.export import read_manifests


def manifest(file: Path, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "format": "tflite",
        "precision": "int8",
        "weights_precision": "int8",
        "file": file.name,
        "sha256": file_hash(file) if file.exists() else "0" * 64,
        "size_bytes": file_size(file) if file.exists() else 0,
        "input": TensorSpec(name="x", shape=(1, 8, 8, 3), dtype="int8", layout="NHWC", scale=0.1, zero_point=-3),
        "output": TensorSpec(name="y", shape=(1, 4), dtype="int8", layout="NC", scale=0.2, zero_point=5),
        "preprocessing": Preprocessing(mean=(0.5,), std=(0.25,)),
        "labels": ("cat", "dog"),
        "reference": "reference.safetensors",
        "delegation": Delegation(backend="xnnpack", delegated=9, outside=1, outside_operators={"PAD": 1}),
        "toolkit": {"torch": "2"},
        "seconds": 1.5,
    }
    return Manifest(**(fields | changes))


def put(file: Path, **changes: Any) -> Manifest:
    written = manifest(file, **changes)
    (file.parent / "reference.safetensors").write_bytes(b"")
    manifest_path(file).write_text(written.model_dump_json())
    return written


def tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_manifest_is_read_back_by_either_name(tmp_path: Path) -> None:
    file = tmp_path / "model_int8.tflite"
    file.write_bytes(b"weights")
    written = put(file)
    assert read_manifest(file) == written
    assert read_manifest(manifest_path(file)) == written
    assert manifest_path(file).name == "model_int8.tflite.json"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model_int8.tflite"
    file.write_bytes(b"weights")
    put(file)
    file.write_bytes(b"weighty")
    with refused(UsageError, file, "sha256"):
        read_manifest(file)


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_a_changed_folder_is_refused(tmp_path: Path, change: str) -> None:
    package = tree(tmp_path / "model_fp16.mlpackage", {"Manifest.json": b"{}", "Data/weights.bin": b"123"})
    put(package, format="coreml", precision="fp16")
    read_manifest(package)
    weights = package / "Data" / "weights.bin"
    if change == "content":
        weights.write_bytes(b"124")
    elif change == "name":
        weights.rename(package / "Data" / "weight.bin")
    elif change == "added":
        (package / "more").write_bytes(b"")
    else:
        weights.unlink()
    with refused(UsageError, package, "sha256"):
        read_manifest(package)


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model_int8.tflite"
    with refused(UsageError, manifest_path(file)):
        read_manifest(file)
    file.write_bytes(b"weights")
    put(file)
    (tmp_path / "reference.safetensors").unlink()
    with refused(UsageError, tmp_path / "reference.safetensors"):
        read_manifest(file)
    file.unlink()
    with refused(UsageError, file):
        read_manifest(manifest_path(file))


def test_a_broken_manifest_says_which_key(tmp_path: Path) -> None:
    file = tmp_path / "model_int8.tflite"
    file.write_bytes(b"weights")
    content = json.loads(put(file).model_dump_json())
    content["inputs"][0]["layout"] = "CHWN"
    manifest_path(file).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"inputs\.0\.layout"):
        read_manifest(file)


@given(
    scale=st.floats(1e-6, 1e6),
    zero_point=st.integers(-128, 127),
    labels=st.lists(st.text(), max_size=3),
    outside=st.dictionaries(st.text(), st.integers(0, 10**6), max_size=3),
)
def test_any_manifest_survives_its_json(
    scale: float, zero_point: int, labels: list[str], outside: dict[str, int]
) -> None:
    spec = TensorSpec(name="x", shape=(1, 2), dtype="int8", layout="NC", scale=scale, zero_point=zero_point)
    delegation = Delegation(backend="b", delegated=3, outside=sum(outside.values()), outside_operators=outside)
    written = manifest(Path("x.tflite"), input=spec, labels=tuple(labels), delegation=delegation)
    assert Manifest.model_validate_json(written.model_dump_json()) == written


def test_share_outside() -> None:
    assert Delegation(backend="b", delegated=3, outside=1).share_outside == 0.25
    assert Delegation(backend="b", delegated=0, outside=0).share_outside == 0.0


def test_sizes_and_hashes_of_folders_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    files = {"b/2": b"22", "a": b"1", "b/1": b""}
    one = tree(tmp_path / "one", files)
    two = tree(tmp_path / "two", dict(reversed(files.items())))
    assert file_size(one) == 3
    assert file_hash(one) == file_hash(two)


@pytest.mark.parametrize(
    "name", ["../model", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "a\0b", "x" * 5000, "é" * 200]
)
@pytest.mark.parametrize("field", ["file", "reference"])
def test_a_manifest_names_nothing_but_files_beside_it(tmp_path: Path, field: str, name: str) -> None:
    file = tmp_path / "model_int8.tflite"
    file.write_bytes(b"weights")
    put(file)
    tree = json.loads(manifest_path(file).read_text()) | {field: name}
    manifest_path(file).write_text(json.dumps(tree))
    with pytest.raises(UsageError, match=field):
        read_manifest(file)
    with pytest.raises(UsageError, match=field):
        read_manifests(tmp_path)


@pytest.mark.parametrize("linked", ["file", "reference", "within a package"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, linked: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "export"
    outside.write_bytes(b"secret")
    folder.mkdir()
    file = folder / "model_fp16.mlpackage"
    if linked == "file":
        file.symlink_to(outside)
    else:
        tree(file, {"Manifest.json": b"{}"})
    if linked == "within a package":
        (file / "weights.bin").symlink_to(outside)
    put(file, format="coreml", precision="fp16")
    if linked == "reference":
        (folder / "reference.safetensors").unlink()
        (folder / "reference.safetensors").symlink_to(outside)
    with pytest.raises(UsageError, match="link"):
        read_manifest(file)


def test_a_manifest_of_version_1_is_read_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    file = tmp_path / "model_int8.tflite"
    file.write_bytes(b"weights")
    put(file, version=1)
    read = read_manifest(file)
    assert read.preprocessing == Preprocessing(mean=(0.5,), std=(0.25,))
    assert "resize" in read.untold
