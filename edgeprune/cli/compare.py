"""`edgeprune compare`: is B slower than A? The regression gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, ThreadsOption, milliseconds, show_result

if TYPE_CHECKING:
    from edgeprune.latency.compare import Comparison, Look

EXIT_CODES = {"faster": 0, "no difference": 0, "slower": 1, "undecided": 4}


def compare(
    a: Annotated[Path, typer.Argument(help="The file to compare with: .tflite, .pte, .onnx.")],
    b: Annotated[Path, typer.Argument(help="The file that is faster or slower.")],
    device: DeviceOption = None,
    margin: Annotated[float, typer.Option(help="Percent; smaller differences do not count.")] = 1.0,
    budget: Annotated[float, typer.Option(help="Seconds of measuring at most.")] = 120.0,
    threads: ThreadsOption = 1,
    seed: Annotated[int, typer.Option(help="Of the random order of the visits.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Say whether file B is slower than file A.

    They are measured in turn until it is sure which is faster, or that it will not become sure.

    Exit code 0: B is faster, or there is no difference above the margin. 1: B is slower. 4: undecided.
    """
    from edgeprune.devices.discovery import open_device
    from edgeprune.latency import compare as latency

    opened = open_device("local" if device is None else device)
    found = latency.compare(
        opened,
        a,
        b,
        margin=margin / 100,
        budget_s=budget,
        threads=threads,
        seed=seed,
        on_look=None if as_json else _say,
    )
    show_result(found.model_dump(mode="json"), _shown(found, a, b), as_json=as_json)
    raise typer.Exit(EXIT_CODES[found.verdict])


def _say(look: Look, sure: tuple[float, float]) -> None:
    low, high = sure
    so_far = f"so far {low:.4f}-{high:.4f}" if low > 0 and high < 1e6 else "too few to tell"
    typer.echo(f"  B / A {look.ratio:.4f} of {look.pairs} pairs in {look.seconds:.1f} s; {so_far}", err=True)


def _shown(found: Comparison, a: Path, b: Path) -> str:
    sides = [
        f"{name}  {milliseconds(side.median_s, side.low_s, side.high_s, side.quality)}  {path}"
        for name, side, path in (("A", found.a, a), ("B", found.b, b))
    ]
    ratio = f"B / A {found.ratio:.4f} ({found.low:.4f}-{found.high:.4f}, 95 % bootstrap)"
    pairs = sum(look.pairs for look in found.looks)
    effort = f"{pairs} pairs in {len(found.looks)} processes, {found.seconds:.0f} s"
    sure = f"{found.why} (sure at {1 - found.alpha:.0%}, whenever one looks)"
    return "\n".join([*sides, f"{ratio}; {effort}", sure, f"conditions {found.quality}: {found.evidence}"])
