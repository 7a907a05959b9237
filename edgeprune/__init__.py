"""EdgePrune: prune vision models to a latency measured on the device, and prove the exported file there.

The public API is what is named here. It is imported when first used: `import edgeprune` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.api import (
        compare,
        explain,
        export,
        export_model,
        front,
        load,
        merge,
        predict,
        probe,
        prune,
        quantize,
        run,
        sensitivity,
        tune,
        verify,
        verify_file,
    )
    from edgeprune.artifacts.export import Exported
    from edgeprune.errors import EdgePruneError
    from edgeprune.file_check import FileCheck
    from edgeprune.latency.compare import Comparison
    from edgeprune.latency.model_probe import Probed
    from edgeprune.latency.predictor import Prediction
    from edgeprune.metric import Metric
    from edgeprune.models.spec import Model, ModelSpec
    from edgeprune.pipeline import Outcome
    from edgeprune.recipe import Recipe
    from edgeprune.recipe_file import read_recipe
    from edgeprune.runs import Run, open_run
    from edgeprune.sensitivities import Sensitivity
    from edgeprune.several_targets import FrontPoint
    from edgeprune.space.plan import Plan, read_plan
    from edgeprune.tasks.task import Task
    from edgeprune.verify.explain import Explanation
    from edgeprune.verify.verdict import Verdict

__version__ = "0.1.0"

_HOMES = {  # what is not in the front, or is light while the front is not
    "EdgePruneError": "errors",
    "Metric": "metric",
    "ModelSpec": "models.spec",
    "Plan": "space.plan",
    "Prediction": "latency.predictor",
    "Recipe": "recipe",
    "Run": "runs",
    "Task": "tasks.task",
    "open_run": "runs",
    "read_plan": "space.plan",
    "read_recipe": "recipe_file",
}

__all__ = [
    "Comparison",
    "EdgePruneError",
    "Explanation",
    "Exported",
    "FileCheck",
    "FrontPoint",
    "Metric",
    "Model",
    "ModelSpec",
    "Outcome",
    "Plan",
    "Prediction",
    "Probed",
    "Recipe",
    "Run",
    "Sensitivity",
    "Task",
    "Verdict",
    "compare",
    "explain",
    "export",
    "export_model",
    "front",
    "load",
    "merge",
    "open_run",
    "predict",
    "probe",
    "prune",
    "quantize",
    "read_plan",
    "read_recipe",
    "run",
    "sensitivity",
    "tune",
    "verify",
    "verify_file",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgeprune.{_HOMES.get(name, 'api')}"), name)
