"""Test images that an earlier job has not seen."""

from __future__ import annotations

import numpy as np

from edgeprune.data.record import LEFT_OUT, DataRecord
from edgeprune.data.split import Split, Splits


def unseen(splits: Splits, before: DataRecord) -> Split:
    """The test images without those that another job trained, validated or calibrated on, pixel for pixel.

    Args:
        splits: as `open_data` gives them, with their record.
        before: of the other job, whose data may lie elsewhere and be divided otherwise.
    """
    assert splits.record is not None  # `open_data` makes one
    seen = {one.pixels for one in before.images.values() if one.split not in ("test", LEFT_OUT)}
    names = [name for name, one in splits.record.images.items() if one.split == "test"]
    part = f"{names[0].partition('/')[0]}/" if names else ""
    pixels = [one.pixels for name, one in splits.record.images.items() if name.startswith(part)]
    fresh = [place for place, image in enumerate(splits.test.indices.tolist()) if pixels[image] not in seen]
    return splits.test if len(fresh) == len(splits.test) else splits.test.select(np.array(fresh, np.int64))
