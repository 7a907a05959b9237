"""merge: fold what can be folded (conv + batch norm), and prove that the result answers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.errors import EdgePruneError
from edgeprune.models.checkpoint import save_state
from edgeprune.models.spec import Model
from edgeprune.reparam.merge import merge, prove_merge
from edgeprune.report.data import MergeFacts
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context


def merge_stage(context: Context, folder: Path) -> dict[str, Any]:
    merged, facts = folded(context.model("tune"), seed=context.recipe.seed)
    write_atomic(folder / "merge.json", facts.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", merged.module)
    context.keep_model("merge", merged)
    parameters = sum(p.numel() for p in merged.module.parameters())
    return {"folded": len(facts.merged), "max_error": facts.largest_difference, "parameters": parameters}


def folded(model: Model, *, seed: int) -> tuple[Model, MergeFacts]:
    """The model with its batch norms folded, and the proof that it answers the same.

    Raises:
        EdgePruneError: it does not.
    """
    example = model.example_input(batch=2, seed=seed)
    merged = merge(model.module, example)
    proof = prove_merge(model.module, example)
    report = proof.report
    facts = MergeFacts(
        merged=report.folded,
        skipped=dict(report.kept),
        largest_difference=report.max_error,
        limit=proof.limit,
        passed=report.max_error <= proof.limit,
        checked_on=f"{len(example)} random inputs, {proof.kind}",
    )
    if not facts.passed:
        raise EdgePruneError(
            f"merging changed the model's answers by {report.max_error:.3g} (limit {proof.limit:g})",
            where=", ".join(report.folded[:5]),
            hint="this is a defect of EdgePrune: please report the model",
        )
    return model.with_module(merged), facts
