"""`edgeprune predict`: the latency of a plan, from the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeprune.cli.console import DeviceOption, InputSizeOption, JsonOption, read_input_size, show_result


def predict(
    model: Annotated[str, typer.Argument(help="The unpruned model, as it was given to `edgeprune probe`.")],
    plan: Annotated[Path | None, typer.Option(help="A plan.json; without it the model as it is.")] = None,
    device: DeviceOption = None,
    runtime: Annotated[Literal["litert", "executorch"], typer.Option(help="The runtime it was probed in.")] = "litert",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict what MODEL takes when a plan has pruned it; nothing is built and nothing is measured."""
    from edgeprune import api
    from edgeprune.structure.plan import read_plan

    edits = read_plan(plan) if plan else None
    found = api.load(model, input_size=read_input_size(input_size)) if input_size else api.load(model)
    whole, pruned = (
        api.predict(found, chosen, device=device or "local", runtime=runtime, threads=threads)
        for chosen in (None, edits)
    )
    interval = "no interval: too few runs" if pruned.low_s is None else _range(pruned.low_s, pruned.high_s)
    lines = [
        f"{plan or model}: {pruned.seconds * 1e3:.3f} ms ({interval}), predicted, not measured",
        f"{pruned.seconds / whole.seconds:.3f}x of the unpruned model's {whole.seconds * 1e3:.3f} ms, predicted too",
        f"from {pruned.basis}",
    ]
    if pruned.extrapolates:
        lines.append(f"beyond what was measured: {', '.join(pruned.extrapolates)}")
    body = {**pruned.model_dump(), "of_unpruned": pruned.seconds / whole.seconds}
    show_result(body, "\n".join(lines), as_json=as_json)


def _range(low_s: float, high_s: float | None) -> str:
    return f"{low_s * 1e3:.3f}-{(high_s or low_s) * 1e3:.3f}"
