"""The file to ship: for each runtime the one that passes, is fastest and, among equally fast ones, smallest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from edgeprune.devices.runtimes import RUNTIME_OF
from edgeprune.latency.measurement import Ratio
from edgeprune.verify.verdict import NO_DEVICE, SIZE, FileVerdict, Shipping, Slower


def files_to_ship(files: Sequence[FileVerdict], *, first: str = "") -> tuple[Shipping, ...]:
    """One answer for each runtime: for the one that is to come first, then in the order in which the files come.

    Of the files that pass (`FileVerdict.passes`) those are left out that another one is surely faster than: where the
    interval of the ratio of their latencies (`ratio_of`) does not hold 1. Of the rest the smallest is named. So no file
    that passes is surely faster than the one that is named, and each that is smaller is surely slower than another.
    Files without a ratio to the original come after all that have one.
    """
    runtimes: dict[str, list[FileVerdict]] = {}
    for file in files:
        runtimes.setdefault(RUNTIME_OF.get(Path(file.file).suffix, file.format), []).append(file)
    ordered = sorted(runtimes, key=lambda runtime: runtime != first)
    return tuple(_shipping(runtime, runtimes[runtime]) for runtime in ordered)


def ratio_of(a: Ratio, b: Ratio) -> tuple[float, float, float]:
    """Latency of A over that of B, with its 95 % interval, from the ratios of both to the same original.

    Each of the two was measured in turns with the original, in processes of its own, so they are independent, and the
    original cancels out. Their intervals are put together on a logarithmic scale as MOVER does (Zou and Donner,
    Statistics in Medicine 27, 2008): each side of the difference's interval is the root of the sum of the squares of
    the sides that lead there. To measure all pairs against one another would be narrower, and take a session for each.
    """
    value = math.log(a.ratio) - math.log(b.ratio)
    down = math.hypot(math.log(a.ratio / a.low), math.log(b.high / b.ratio))
    up = math.hypot(math.log(a.high / a.ratio), math.log(b.ratio / b.low))
    return math.exp(value), math.exp(value - down), math.exp(value + up)


def _shipping(runtime: str, files: Sequence[FileVerdict]) -> Shipping:
    slower = tuple(
        one
        for file in files
        for other in files
        if file.precision == "int8" and other.precision != "int8" and file.format == other.format
        if (one := _slower(file, other)) is not None
    )
    passing = [file for file in files if file.passes]
    if not passing:
        return Shipping(runtime=runtime, file=None, why="; ".join(map(_why_not, files)), slower=slower)
    timed = [file for file in passing if file.against_original is not None]
    fast = [file for file in timed if not any(_surely_faster(other, file) for other in timed)] or passing
    chosen = min(fast, key=lambda file: (_size(file), _ratio(file), file.file))
    return Shipping(runtime=runtime, file=chosen.file, why=_why(chosen, fast, passing, files), slower=slower)


def _why(
    chosen: FileVerdict, fast: Sequence[FileVerdict], passing: Sequence[FileVerdict], files: Sequence[FileVerdict]
) -> str:
    """What speaks for a file, and what was left out before it came to that."""
    said = ["it passes every gate" + (" (no device ran it)" if NO_DEVICE in chosen.executed_on else "")]
    ratio, others = chosen.against_original, ", ".join(file.file for file in fast if file is not chosen)
    if len(files) == 1:
        said.append("it is the only file")
    elif len(passing) == 1:
        said.append("no other file does")
    elif not others:
        said.append("it is the fastest of those that do")
    elif ratio is not None:
        said.append(f"it is the smallest of those that are equally fast within noise ({others} is, too)")
    else:
        said.append("it is the smallest; none of them was timed in turns with the original")
    if ratio is not None:
        noisy = "" if ratio.quality == "stable" else f", {ratio.quality}"
        said.append(f"{ratio.ratio:.3f}x of the original's latency ({ratio.low:.3f}-{ratio.high:.3f}{noisy})")
    if left := [file for file in files if not file.passes]:
        said.append(f"left out: {', '.join(map(_why_not, left))}")
    return "; ".join(said)


def _why_not(file: FileVerdict) -> str:
    held = [f"{check.name} {check.outcome}" for check in file.checks if check.outcome in ("fail", "undecided")]
    return f"{file.file} ({', '.join(held) or 'no gate was held on it'})"


def _slower(file: FileVerdict, other: FileVerdict) -> Slower | None:
    a, b = file.against_original, other.against_original
    if a is None or b is None or not _surely_faster(other, file):
        return None
    ratio, low, high = ratio_of(a, b)
    return Slower(
        file=file.file,
        than=other.file,
        seconds=a.numerator.median_s,
        than_seconds=b.numerator.median_s,
        ratio=ratio,
        low=low,
        high=high,
    )


def _surely_faster(file: FileVerdict, other: FileVerdict) -> bool:
    a, b = file.against_original, other.against_original
    return a is not None and b is not None and ratio_of(a, b)[2] < 1


def _size(file: FileVerdict) -> float:
    """Bytes; a file whose size is not known comes last."""
    return next((check.value for check in file.checks if check.name == SIZE), math.inf)


def _ratio(file: FileVerdict) -> float:
    return file.against_original.ratio if file.against_original else math.inf
