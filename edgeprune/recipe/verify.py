"""[verify]: what is checked, and the limits of the verdict."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgeprune.recipe.section import (
    MOST_IMAGES,
    Drop,
    Off,
    Section,
    Share,
)


class VerdictLimits(Section):
    """[verify.gates], the limits of the verdict; one set to `false` is reported but cannot fail. Agreements and drops
    are shares: 0.01 is one point."""

    sqnr_fp32_db: float | Off = 100.0
    sqnr_fp16_db: float | Off = 45.0
    int8_agreement: Share | Off = 0.97
    int8_accuracy_drop: Drop | Off = 0.005
    accuracy_drop: Drop | Off = False
    host_agreement: Share | Off = 0.995  # of an attached device with this machine
    host_accuracy_drop: Annotated[float, Field(ge=0, lt=1)] | Off = 0.003  # either way
    latency_tolerance: Annotated[float, Field(ge=0)] | Off = 0.03
    size_bytes: Annotated[float, Field(gt=0)] | Off = False
    peak_memory_bytes: Annotated[float, Field(gt=0)] | Off = False


class VerifySection(Section):
    """What is checked on the device; `pictures`: test images that the report shows, with what is answered to them."""

    images: int | None = Field(default=None, ge=1, le=MOST_IMAGES)
    pictures: int = Field(default=4, ge=0, le=64)
    gates: VerdictLimits = VerdictLimits()
