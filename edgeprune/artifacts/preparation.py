"""What is done to an image before a file takes it, in the words of its manifest: all that an app has to do alike."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.data.images import Geometry
from edgeprune.errors import DataError
from edgeprune.models.spec import ModelSpec, Preprocessing

COVERS = (
    "the whole image keeps its shape and just covers height x width: "
    "where image_width * height <= image_height * width it becomes "
    "width x max(height, floor(width * image_height / image_width)), else "
    "max(width, floor(height * image_width / image_height)) x height (width x height); an image of that size stays"
)
CENTRE = "from left = round((resized_width - width) / 2) and top alike; a half goes to the even number"
DECODED = (
    "8 bits a channel, the first frame; 16-bit grey is divided by 256, rounded down; no colour profile is applied; "
    "transparent pixels have the colour stored for them"
)
GREY = "grey images have the same value in all three channels"
TO_GREY = "colours become grey by (19595 R + 38470 G + 7471 B + 32768) // 65536"


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Decoding(_Step):
    """How a file becomes pixels."""

    values: str = DECODED
    exif_orientation: Literal["applied"] = "applied"
    colours: Literal["RGB", "grey"]  # the order of the channels
    conversion: str


class Resizing(_Step):
    """To which size, before the crop. Antialiased: each new pixel is taken from all those it stands for (Pillow's
    `resize`); `nearest` takes one."""

    height: int
    width: int
    rule: str = COVERS
    filter: str
    antialias: bool
    result: str = "rounded to whole numbers from 0 to 255"


class Cropping(_Step):
    """What is cut out after resizing: the model's input."""

    height: int
    width: int
    rule: str = CENTRE


class Preparation(_Step):
    """From an image file to the numbers of the input tensor: decode, resize, crop, then (value * scale - mean) / std.

    A quantized input then takes clip(round(number / its scale) + its zero point), halves to even.
    """

    decode: Decoding
    resize: Resizing
    crop: Cropping
    scale: float = 1 / 255
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> Preparation:
        """The preparation of a model's images, as `data.images.Geometry` does it.

        Raises:
            DataError: images cannot have so many channels, or the filter is unknown.
        """
        own = spec.preprocessing
        geometry = Geometry.of(
            spec.input_size, interpolation=own.interpolation, crop_pct=own.crop_pct, resize=own.resize
        )
        grey = geometry.channels == 1
        return cls(
            decode=Decoding(colours="grey" if grey else "RGB", conversion=TO_GREY if grey else GREY),
            resize=Resizing(
                height=geometry.cover_height,
                width=geometry.cover_width,
                filter=own.interpolation,
                antialias=own.interpolation != "nearest",
            ),
            crop=Cropping(height=geometry.height, width=geometry.width),
            mean=own.mean,
            std=own.std,
        )

    def given_to(self, spec: ModelSpec) -> ModelSpec:
        """The spec with the settings whose images are prepared like this.

        Raises:
            DataError: none of ours are: this is another's preparation.
        """
        cover, cut = (self.resize.height, self.resize.width), (self.crop.height, self.crop.width)
        plain = Preprocessing(mean=self.mean, std=self.std, interpolation=self.resize.filter)
        ways = [plain.model_copy(update={"resize": min(cover)})]  # one gives the size to the pixel where none is square
        ways += [
            plain.model_copy(update={"crop_pct": part / whole}) for part, whole in zip(cut, cover, strict=True) if whole
        ]
        for way in ways if min(*cover, *cut) > 0 else ():
            found = spec.model_copy(update={"preprocessing": way})
            if Preparation.of(found) == self:
                return found
        raise DataError(
            "images cannot be prepared as the manifest says",
            where="preprocessing",
            hint="it is not one that EdgePrune wrote: prepare them as it says, and test the file with your own code",
        )
