"""The recipe: one typed, frozen, versioned tree. An unknown key is an error that names the nearest one."""

from __future__ import annotations

from edgeprune.recipe.data import DataSection
from edgeprune.recipe.device import DeviceSection
from edgeprune.recipe.files import ExportSection, QuantizeSection
from edgeprune.recipe.model import ModelSection
from edgeprune.recipe.prune import MOVED, PruneSection
from edgeprune.recipe.section import (
    AUTO,
    DROPPING,
    MOST_EPOCHS,
    MOST_IMAGES,
    MOST_MINUTES,
    MOST_WIDTH,
    AllocatorName,
    Computing,
    Format,
    InputShape,
    InputSize,
    Method,
    Precision,
    Runtime,
    Section,
    Side,
    SparseLayers,
    TargetUnit,
    input_size_fault,
    inputs_fault,
)
from edgeprune.recipe.sparse import SparseSection
from edgeprune.recipe.target import Target, TargetFile
from edgeprune.recipe.task import CLASSIFICATION, TargetKind, TaskSection
from edgeprune.recipe.tree import Recipe
from edgeprune.recipe.tune import Augment, TuneSection
from edgeprune.recipe.verify import VerdictLimits, VerifySection

__all__ = [
    "AUTO",
    "CLASSIFICATION",
    "DROPPING",
    "MOST_EPOCHS",
    "MOST_IMAGES",
    "MOST_MINUTES",
    "MOST_WIDTH",
    "MOVED",
    "AllocatorName",
    "Augment",
    "Computing",
    "DataSection",
    "DeviceSection",
    "ExportSection",
    "Format",
    "InputShape",
    "InputSize",
    "Method",
    "ModelSection",
    "Precision",
    "PruneSection",
    "QuantizeSection",
    "Recipe",
    "Runtime",
    "Section",
    "Side",
    "SparseLayers",
    "SparseSection",
    "Target",
    "TargetFile",
    "TargetKind",
    "TargetUnit",
    "TaskSection",
    "TuneSection",
    "VerdictLimits",
    "VerifySection",
    "input_size_fault",
    "inputs_fault",
]
