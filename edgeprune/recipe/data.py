"""[data]: where images come from."""

from __future__ import annotations

from pydantic import Field

from edgeprune.recipe.section import (
    MOST_IMAGES,
    Section,
    Side,
)

PREFIXES = ("npz:", "csv:", "coco:", "timm:")  # of a source that is no folder and no code
_JSON_AT = ".json@"


def coco_parts(source: str) -> tuple[str, str | None]:
    """The file and the folder of images of `coco:FILE.json[@FOLDER]`."""
    rest = source.removeprefix("coco:")
    begin, at, folder = rest.rpartition(_JSON_AT)
    return (begin + _JSON_AT[:-1], folder) if at else (rest, None)


class DataSection(Section):
    """Where images come from. `digits` is embedded; a path is an ImageFolder; `timm:NAME` asks timm's factory;
    `csv:FILE` and `coco:FILE.json[@FOLDER]` list image files.

    `train`, `test` and `calibration` name either sub-folders of `root` or sources of their own. Without `train`
    only the calibration images are seen. Validation and calibration images are taken out of the training
    split (seeded), so accuracy is never computed on what was trained or calibrated on.
    """

    source: str
    train: str | None = None
    test: str | None = None
    calibration: str | None = None
    validation_images: int = Field(default=500, ge=0, le=MOST_IMAGES)
    calibration_images: int = Field(default=256, ge=1, le=MOST_IMAGES)
    resize: Side | None = None
    crop_pct: float | None = Field(default=None, ge=0.05, le=1)

    @property
    def sources(self) -> tuple[str, ...]:
        """All that images come from."""
        return tuple(one for one in (self.source, self.train, self.test, self.calibration) if one is not None)
