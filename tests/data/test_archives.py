"""An .npz file is looked at before it is unpacked; what is none is called what it is."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import opened

from edgeprune.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
LABELS = np.arange(30) % 3


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(f"npz:{path}", 3)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{"train_images": IMAGES, "train_labels": LABELS, **arrays})
    return path


def test_what_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", ".npy")
    (tmp_path / "b.npz").write_text("<!DOCTYPE html><html>not found</html>")
    refused(tmp_path / "b.npz", "web page")
    (tmp_path / "c.npz").write_bytes(b"")
    refused(tmp_path / "c.npz")
    whole = save(tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:-200])
    refused(tmp_path / "d.npz")
    (tmp_path / "e.npz").mkdir()
    refused(tmp_path / "e.npz")


@pytest.mark.parametrize("place", range(0, 1900, 61))
def test_bytes_that_were_changed(tmp_path: Path, place: int) -> None:
    data = bytearray(save(tmp_path / "d.npz", train_images=IMAGES[:, :4, :4, 0]).read_bytes())
    data[place % len(data)] ^= 0xFF
    (tmp_path / "d.npz").write_bytes(data)
    with contextlib.suppress(DataError):  # and nothing else
        opened(f"npz:{tmp_path / 'd.npz'}", 300)


def archive(path: Path, name: str, shape: tuple[int, ...], body: int = 0) -> Path:
    """An archive with an array whose head says that it has this shape, and a body of zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open(f"{name}.npy", "w") as stream:
        stream.write(head.getvalue())
        for _ in range(body // (1 << 20)):
            stream.write(bytes(1 << 20))
    return path


def test_heads_that_say_terabytes(tmp_path: Path) -> None:
    refused(archive(tmp_path / "lie.npz", "train_images", (1 << 30, 64, 64)), "damaged")
    refused(archive(tmp_path / "minus.npz", "train_images", (-1, 16, 16)), "damaged")


def test_arrays_larger_than_memory_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    file = archive(tmp_path / "bomb.npz", "train_images", (64, 1 << 10, 1 << 10), body=64 << 20)
    assert file.stat().st_size < 1 << 20
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=32 << 20))
    refused(file, "GB")


def test_other_arrays_are_left_alone(tmp_path: Path) -> None:
    save(tmp_path / "d.npz", notes=np.array([{"an": "object"}], object))
    assert len(opened(f"npz:{tmp_path / 'd.npz'}", 3)[0].test) == 6
    refused(save(tmp_path / "o.npz", train_images=np.array([{}] * 30, object)), "objects")
    refused(save(tmp_path / "l.npz", train_labels=np.array(LABELS, object)), "objects")


def test_labels_in_a_column_are_labels(tmp_path: Path) -> None:
    splits, _ = opened(f"npz:{save(tmp_path / 'd.npz', train_labels=LABELS[:, None])}", 3)
    flat, _ = opened(f"npz:{save(tmp_path / 'f.npz')}", 3)
    assert np.array_equal(splits.train.labels, flat.train.labels)
    big_endian, _ = opened(f"npz:{save(tmp_path / 'b.npz', train_labels=LABELS.astype('>i8'))}", 3)
    assert np.array_equal(big_endian.train.labels, flat.train.labels)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS + (1 << 40),
        LABELS.astype(np.uint64) + np.uint64(1 << 63),
        LABELS - 1,
        LABELS.astype(float),
        LABELS > 0,
        LABELS.astype("m8[s]"),
        LABELS.astype("M8[s]"),
        np.stack([LABELS, LABELS], 1),
        np.eye(3)[LABELS],
        LABELS[:-1],
        np.array(["cat", "dog", "hen"])[LABELS],
        np.array(3),
        np.zeros(30, int),
    ],
)
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray) -> None:
    refused(save(tmp_path / "d.npz", train_labels=labels))


@pytest.mark.parametrize(
    "shape", [(30, 0, 16, 3), (30, 16, 0), (0, 16, 16, 3), (30, 16, 16, 4), (30,), (30, 3, 16, 16), (2, 3, 4, 5, 6)]
)
def test_images_of_no_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused(save(tmp_path / "d.npz", train_images=np.zeros(shape, np.uint8)))


def test_long_thin_images(tmp_path: Path) -> None:
    refused(save(tmp_path / "d.npz", train_images=np.zeros((30, 1, 1_500_000), np.uint8)), "1500000x1")


def test_images_that_do_not_fit_into_memory_resized_are_resized_when_used(tmp_path: Path) -> None:
    file = save(tmp_path / "d.npz", train_images=IMAGES[:, :12])
    splits, _ = opened(f"npz:{file}", 3, memory_limit=0)
    kept, _ = opened(f"npz:{file}", 3)
    assert splits.test.images.streams
    one, two = (split.test.images.pixels(split.test.indices) for split in (splits, kept))
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"train_labels": LABELS + 1}, "number the classes from 0"),
        ({"train_labels": np.eye(3)[LABELS]}, "labels.argmax(1)"),
        ({"test_images": IMAGES[:6]}, "`test_labels` must be 6 whole numbers, it is missing"),
        ({"train_images": IMAGES.transpose(0, 3, 1, 2)}, "images.transpose(0, 2, 3, 1)"),
        ({"train_images": (IMAGES / 255).astype(np.float32)}, "(images * 255)"),
        ({"train_images": IMAGES.astype(np.uint16) * 257}, "(images >> 8)"),
    ],
)
def test_what_does_not_fit_is_told_how_it_would(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    refused(save(tmp_path / "d.npz", **arrays), words)
