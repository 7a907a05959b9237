"""Every kind of image file is read rightly, or refused by name; what was turned, taken or skipped is told."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from facts import refused
from photos import Said, contents, opened, photos, picture, spec
from PIL import Image

from edgeprune.data.decode import decode
from edgeprune.data.open import open_data
from edgeprune.errors import DataError
from edgeprune.recipe import DataSection

GREY = np.random.default_rng(1).integers(0, 256, (24, 20), np.uint8)


def read(path: Path) -> np.ndarray:
    return np.asarray(decode(path.read_bytes()).image)


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, suffix: str, factor: int) -> None:
    wide = GREY.astype(np.uint16) * factor
    file = tmp_path / f"a.{suffix}"
    if suffix == "pgm":
        file.write_bytes(b"P5 20 24 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(file)
    assert np.array_equal(read(file), GREY)
    assert decode(file.read_bytes()).notes == ("16 bit",)


def test_16_bit_big_endian_tiff(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    Image.frombytes("I;16B", (20, 24), (GREY.astype(np.uint16) * 256).astype(">u2").tobytes()).save(file)
    assert np.array_equal(read(file), GREY)


@pytest.mark.parametrize("array", [GREY.astype(np.float32) / 255, GREY.astype(np.int32) * 1000])
def test_floats_and_32_bits_have_no_white(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "a.tiff")
    with pytest.raises(DataError):
        decode((tmp_path / "a.tiff").read_bytes())
    photos(tmp_path / "d", {"cat": 6, "dog": 6})
    bad = tmp_path / "d" / "dog" / "deep.tiff"
    Image.fromarray(array).save(bad)
    for scheme in ("", "timm:"):
        with pytest.raises(DataError) as caught:
            opened(f"{scheme}{tmp_path / 'd'}", 2)
        assert caught.value.where == str(bad)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_done(tmp_path: Path, turn: int, suffix: str) -> None:
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[16:, 8:] = (0, 0, 255)
    undo = {2: [np.fliplr], 3: [np.flipud, np.fliplr], 4: [np.flipud], 5: [_transposed], 6: [_left], 7: [_both, _left]}
    undo |= {1: [], 7: [_transposed, np.flipud, np.fliplr], 8: [_right]}
    lying = upright
    for step in undo[turn]:
        lying = step(lying)
    exif = Image.Exif()
    exif[0x0112] = turn
    file = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(np.ascontiguousarray(lying)).save(file, exif=exif, **options)
    got = read(file)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() < 12
    assert decode(file.read_bytes()).notes == (("turned",) if turn > 1 else ())


def _transposed(image: np.ndarray) -> np.ndarray:
    return image.transpose(1, 0, 2)


def _left(image: np.ndarray) -> np.ndarray:
    return np.rot90(image, 1)


def _right(image: np.ndarray) -> np.ndarray:
    return np.rot90(image, -1)


def _both(image: np.ndarray) -> np.ndarray:
    return image[::-1, ::-1]


def test_exif_that_cannot_be_read_leaves_the_image_as_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    picture(1).save(file, exif=b"Exif\x00\x00" + b"nonsense" * 3)
    assert decode(file.read_bytes()).image.size == (20, 24)


def test_modes_that_are_no_rgb(tmp_path: Path) -> None:
    rgb = picture(2)
    opaque, clear = rgb.copy(), rgb.copy()
    opaque.putalpha(255)
    clear.putalpha(Image.fromarray(GREY))
    for name, image in {"opaque": opaque, "clear": clear}.items():
        image.save(tmp_path / f"{name}.png")
        assert np.array_equal(read(tmp_path / f"{name}.png"), np.asarray(rgb))
    assert decode((tmp_path / "opaque.png").read_bytes()).notes == ()
    assert decode((tmp_path / "clear.png").read_bytes()).notes == ("transparent",)
    few = rgb.quantize(8)
    few.save(tmp_path / "palette.png")
    assert np.array_equal(read(tmp_path / "palette.png"), np.asarray(few.convert("RGB")))
    few.save(tmp_path / "hole.png", transparency=3)
    assert decode((tmp_path / "hole.png").read_bytes()).notes == ("transparent",)
    assert np.array_equal(read(tmp_path / "hole.png"), np.asarray(few.convert("RGB")))
    bits = Image.fromarray(GREY > 127)
    bits.save(tmp_path / "bits.png")
    assert np.array_equal(read(tmp_path / "bits.png"), np.where(GREY > 127, 255, 0))
    rgb.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert np.abs(read(tmp_path / "print.jpg").astype(int) - np.asarray(rgb)).mean() < 8
    assert decode((tmp_path / "print.jpg").read_bytes()).notes == ("cmyk",)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp", "png"])
def test_the_first_of_several_frames_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (20, 24), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert read(tmp_path / f"a.{suffix}")[5, 5].tolist() == [255, 0, 0]
    assert decode((tmp_path / f"a.{suffix}").read_bytes()).notes == ("frames",)


@pytest.mark.parametrize("name", ["a.JFIF", "a.jpe", "a.MPO", "a.Jpg", "a.avif", "a.webp", "a.TIF", "a.bmp"])
def test_suffixes_that_are_read(tmp_path: Path, name: str) -> None:
    photos(tmp_path, {"cat": 5, "dog": 6})
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".jpg": "JPEG", ".mpo": "MPO", ".tif": "TIFF"}
    suffix = Path(name).suffix.lower()
    picture(99).save(tmp_path / "cat" / name, format=kinds.get(suffix, suffix[1:].upper()))
    splits, said = opened(tmp_path, 2)
    assert splits.record is not None
    assert f"train/cat/{name}" in splits.record.images
    assert "skipped" not in said.text


def test_what_is_skipped_is_counted_and_told(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    cat = tmp_path / "cat"
    for copies in (cat / ".ipynb_checkpoints", cat / "__MACOSX", tmp_path / ".ipynb_checkpoints"):
        copies.mkdir()
        picture(0).save(copies / "0-checkpoint.png")
    picture(0).save(cat / "._0.png")
    (cat / "Thumbs.db").write_bytes(b"?")
    (cat / "new.HEIC").write_bytes(b"?")
    (cat / "other.heic").write_bytes(b"?")
    (cat / "notes.txt").write_text("?")
    photos(tmp_path / "elsewhere" / "more", {"x": 2}, start=50)
    (cat / "linked").symlink_to(tmp_path / "elsewhere" / "more" / "x")
    (cat / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "elsewhere").rename(tmp_path / ".elsewhere")
    picture(77).save(tmp_path / "loose.png")
    splits, said = opened(tmp_path, 2)
    assert splits.record is not None
    assert len(splits.record.images) == 12
    for words in ("4 hidden or left behind", "2 .heic", "1 .txt", "1 images beside the class folders"):
        assert words in said.text
    (cat / "linked").unlink()
    (cat / "linked").symlink_to(photos(tmp_path / ".real", {"y": 2}, start=70) / "y")
    assert "1 links to folders" in opened(tmp_path, 2)[1].text


def test_a_class_of_what_cannot_be_read_is_refused_by_what_it_has(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    for file in (tmp_path / "dog").iterdir():
        file.rename(file.with_suffix(".heic"))
    with refused(DataError, 6, ".heic"):
        opened(tmp_path, 2)


def test_what_was_turned_is_told(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        picture(100 + number, 24, 20).save(tmp_path / "cat" / f"phone{number}.jpg", exif=exif)
    for scheme in ("", "timm:"):
        _, said = opened(f"{scheme}{tmp_path}", 2)
        assert "2 images turned" in said.text


def cut_short(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def zeros_at_the_end(data: bytes) -> bytes:
    return cut_short(data) + bytes(len(data) - len(cut_short(data)))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((suffix, cut_short) for suffix in ("jpg", "png", "webp", "bmp", "tif", "gif")),
        *((suffix, zeros_at_the_end) for suffix in ("jpg", "png")),
    ],
)
def test_bodies_cut_short_are_found_at_load(tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    broken = [tmp_path / "dog" / f"{name}.{suffix}" for name in ("x", "y")]
    for number, file in enumerate(broken):
        picture(200 + number, 120, 90).save(file)
        file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError) as caught:
        opened(tmp_path, 2, memory_limit=0)  # streamed images are looked at, too
    assert caught.value.where == str(broken[0])
    assert str(broken[1]) in caught.value.what
    assert "2 of 14" in caught.value.what


def test_a_photo_with_a_film_behind_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "motion.jpg"
    picture(1).save(file)
    data = file.read_bytes()
    assert decode(data + b"ftypmp42 \xff\xda" + bytes(99)).image.size == (20, 24)


def test_images_too_large_flat_or_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    odd = tmp_path / "cat" / "odd.png"
    Image.new("L", (1, 60_000)).save(odd)
    said = Said()
    with pytest.raises(DataError) as caught:
        open_data(DataSection(source=str(tmp_path)), spec(2, side=224), seed=0, progress=said)
    assert caught.value.where == str(odd)
    odd.unlink()
    flat = tmp_path / "cat" / "flat.bmp"
    picture(1).save(flat)
    data = bytearray(flat.read_bytes())
    data[22:26] = struct.pack("<i", 0)
    flat.write_bytes(data)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, 2)
    assert caught.value.where == str(flat)
    flat.unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("L", (50, 50)).save(tmp_path / "dog" / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png"):
        opened(tmp_path, 2)


def test_what_was_checked_is_not_checked_again_until_it_changes(tmp_path: Path) -> None:
    import os

    photos(tmp_path, {"cat": 6, "dog": 6})
    for file in tmp_path.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    first = opened(tmp_path, 2)[1].updates
    assert first[-1] == ("checking 12 images", 12, 12)
    assert len(contents(opened(tmp_path, 2)[0].test)) > 0
    changed = tmp_path / "cat" / "0.png"
    changed.write_bytes(changed.read_bytes()[:100])
    os.utime(changed, ns=(1, 1))
    with pytest.raises(DataError, match=r"cat/0\.png"):
        opened(tmp_path, 2)


def test_links_in_a_circle_are_skipped(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    (tmp_path / "cat" / "me.png").symlink_to("me.png")
    (tmp_path / "dog" / "up").symlink_to("..")
    text = opened(tmp_path, 2)[1].text
    assert "1 broken links" in text
    assert "1 links to folders" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (bytes(500), "nothing but zeros"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"hello", "in no format that is read"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        decode(content)


def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    picture(0).save(tmp_path / "a.eps")
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(DataError, match="PostScript"):
        decode((tmp_path / "a.eps").read_bytes())


@pytest.mark.parametrize(("factor", "dark"), [(1, True), (16, True), (256, False)])
def test_12_bits_in_16_are_told(tmp_path: Path, factor: int, dark: bool) -> None:
    photos(tmp_path, {"cat": 6, "dog": 6})
    Image.fromarray(GREY.astype(np.uint16) * factor).save(tmp_path / "cat" / "wide.png")
    assert ("WARNING: if they have 10 or 12 bits" in opened(tmp_path, 2)[1].text) == dark
