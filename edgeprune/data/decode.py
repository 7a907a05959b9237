"""One way from an image file's bytes to upright 8-bit pixels, whichever source the image is from.

Colours are those that timm and torchvision read (Pillow's conversion to RGB): transparent pixels have the colour that
is stored for them, colour profiles are not applied, and of several frames the first is taken. Two things they get wrong
are read rightly here: 16-bit grey is scaled to 8 bit, and what EXIF says of the orientation is done.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgeprune.errors import DataError

Note = Literal["turned", "orientation", "16 bit", "dark 16 bit", "transparent", "cmyk", "frames"]
_ORIENTATION = 0x0112
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
# What is read, whatever a file's name says: others start programs (EPS), or hold no photos.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
_DARKEST_16 = 1 << 12  # below it: values of 12 bits or less, stored in 16
_OTHERWISE = (
    (b"<", "it is a web page, or another text in tags"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the image that it stands for: git lfs pull"),
    (b"%!PS", "it is a PostScript file"),
    (b"%PDF", "it is a PDF file"),
    (b"PK", "it is an archive"),
)
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

_TOLD: dict[Note, str] = {
    "turned": "turned as their EXIF orientation says (the model has to be trained on upright images, too)",
    "orientation": "with EXIF data that cannot be read: taken as they lie",
    "16 bit": "of 16 bits a channel: scaled to 8",
    "dark 16 bit": "of 16 bits a channel, none of whose values reaches 4096 (WARNING: if they have 10 or 12 bits, "
    "they are nearly black as they are read: scale them to 16 bits)",
    "transparent": "with transparent pixels: taken in the colours stored there, on no background, as timm and "
    "torchvision read them",
    "cmyk": "in CMYK: converted without a colour profile",
    "frames": "with several frames or pages: the first is taken",
}


@dataclass(frozen=True)
class Decoded:
    """An upright image of mode L or RGB, and what was done to it or left out."""

    image: Image.Image
    notes: tuple[Note, ...]

    @property
    def pixels_digest(self) -> str:
        """Equal for images of equal size and RGB pixels, whatever files they are from."""
        return pixels_digest(np.asarray(self.image))


def pixels_digest(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """Of an image uint8 (H, W), (H, W, 1) or (H, W, 3), grey as RGB; 32 hexadecimal digits."""
    height, width = pixels.shape[:2]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    rgb = np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
    digest = hashlib.sha256(f"{width}x{height}:".encode())
    digest.update(rgb.data)
    return digest.hexdigest()[:32]


def decode(data: bytes) -> Decoded:
    """The image that a file's bytes hold, decoded to the end.

    Raises:
        DataError: it is no image, damaged or cut short, or above Pillow's limit of pixels; or its pixels have no one
            meaning in 8 bits (floats, 32-bit numbers).
    """
    with _told_as_ours(data), Image.open(io.BytesIO(data), formats=_formats()) as image:
        if image.format in ("JPEG", "MPO"):
            _check_jpeg_ends(data)
        elif image.format == "PNG":
            _check_png_whole(data)
        return _upright(image)


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """The formats that this machine's Pillow reads; it takes a name that it does not know for an error."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _what_else(data: bytes) -> str:
    begin = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return "the file holds nothing but zeros"
    return next((words for start, words in _OTHERWISE if begin.startswith(start)), "it is in no format that is read")


def upright(image: Image.Image) -> Decoded:
    """An opened image as 8-bit L or RGB pixels; see `decode`."""
    try:
        return _upright(image)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"the image cannot be read: {str(error) or type(error).__name__}") from error


def _upright(image: Image.Image) -> Decoded:
    notes: list[Note] = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("frames")
    turn = _orientation(image, notes)
    image.load()
    if min(image.size) < 1:
        raise DataError(f"the image has no pixels: it is {image.width}x{image.height}")
    if turn is not None:
        notes.append("turned")
        if image.format != "TIFF":  # Pillow turns these itself
            image = ImageOps.exif_transpose(image)
    return Decoded(_eight_bit(image, notes), tuple(notes))


def said_of(notes: Iterable[Note]) -> list[str]:
    """How many images were decoded in a way worth telling, in words."""
    counts = Counter(notes)
    return [f"{counts[note]} {_images(counts[note])} {text}" for note, text in _TOLD.items() if counts[note]]


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _orientation(image: Image.Image, notes: list[Note]) -> int | None:
    """What EXIF says of how to turn the image, where that is something else than upright."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error):
        notes.append("orientation")
        return None
    return turn if isinstance(turn, int) and turn in range(2, 9) else None


def _eight_bit(image: Image.Image, notes: list[Note]) -> Image.Image:
    if image.mode in ("L", "RGB"):
        if "transparency" in image.info:
            notes.append("transparent")
        return image
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format in ("PNG", "PPM")):
        wide = np.asarray(image).astype(np.uint32)
        notes.append("dark 16 bit" if 0 < wide.max() < _DARKEST_16 else "16 bit")
        return Image.fromarray((wide >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit numbers" if image.mode == "I" else "floats"
        raise DataError(f"its pixels are {kind}, and nothing says which of them is white")
    if image.mode in ("RGBA", "LA", "RGBa", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append("transparent")
        return image.convert("RGB") if image.mode not in ("RGBa", "La") else rgba.convert("RGB")
    if image.mode == "CMYK":
        notes.append("cmyk")
    return image.convert("L" if image.mode == "1" else "RGB")


def _check_png_whole(data: bytes) -> None:
    """Pillow looks at no sum of the pixels' chunks, and takes what is missing for black."""
    place = 8
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + length
        if kind == b"IDAT" and zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise OSError("the PNG image is damaged: the sum of its pixels is not what it says")
        if kind == b"IEND":
            return
        place = end + 4
    raise OSError("the PNG image is cut short: its end is missing")


def _check_jpeg_ends(data: bytes) -> None:
    """A decoder takes what is missing at the end for grey, where zeros stand in its place."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place : place + 2]
        if marker[1] == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _JPEG_SCAN:
            if data.find(_JPEG_END, place) < 0:
                raise OSError("the JPEG image is cut short: its end is missing")
            return
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


@contextmanager
def _told_as_ours(data: bytes) -> Iterator[None]:
    """What Pillow raises while an image is read, as a DataError. Its warnings are kept still: large images up to its
    limit are decoded, and odd metadata is no matter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"the image cannot be read: {_what_else(data)}") from error
    except Exception as error:  # a decoder raises anything on a damaged file
        raise DataError(f"the image cannot be read: {str(error) or type(error).__name__}") from error


def raw_numbers(data: bytes) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint16]], int]:
    """The numbers that an image's pixels hold, as they are stored: a palette's places, not its colours. Returns them,
    uint16 (height, width) or (height, width, 3), and the greatest that its bits can hold (255 or 65535).

    Raises:
        DataError: it is no image, damaged, or its numbers are not of 8 or 16 bits.
    """
    with _told_as_ours(data), Image.open(io.BytesIO(data), formats=_formats()) as image:
        if image.format == "PNG":
            _check_png_whole(data)
        image.load()
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("L", "P", "RGB"):
            return np.asarray(turned).astype(np.uint16), 255
        if turned.mode == "1":
            return np.asarray(turned).astype(np.uint16), 1
        if turned.mode in _SIXTEEN_BIT or turned.mode == "I":
            wide = np.asarray(turned).astype(np.int64)
            if wide.min() < 0 or wide.max() > 0xFFFF:
                raise DataError("its numbers are not of 16 bits")
            return wide.astype(np.uint16), 0xFFFF
        raise DataError(
            f"its pixels are of the kind {turned.mode}, which are no numbers of 8 or 16 bits",
            hint="save it grey, with a palette, or as RGB without transparency",
        )
