"""How MIL's `pad_type` becomes a number of rows and columns."""

from __future__ import annotations

from edgeprune.verify.mil.registry import refuse


def resolve_padding(
    pad_type: str, custom: list[int], sizes: list[int], kernel: list[int], strides: list[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial dimension.

    `kernel` is the dilated kernel. For "same" the output has ceil(size / stride) elements, an odd one of padding goes
    after; for "same_lower" it goes before (coremltools, mil/ops/defs/_utils.py, aggregated_pad).

    Raises:
        UsageError: an unknown pad_type.
    """
    if pad_type == "valid":
        return [0] * len(sizes), [0] * len(sizes)
    if pad_type == "custom":
        return custom[0::2], custom[1::2]
    if pad_type not in ("same", "same_lower"):
        raise refuse("padding", f"pad_type {pad_type}")
    totals = [
        max(0, step * -(-size // step) - size + reach - step)
        for size, reach, step in zip(sizes, kernel, strides, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (small, large) if pad_type == "same" else (large, small)
