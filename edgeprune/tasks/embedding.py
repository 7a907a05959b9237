"""Vectors in which images of one class (one person, one product) lie near each other."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgeprune.errors import DataError
from edgeprune.recipe import Section
from edgeprune.tasks.classification import told
from edgeprune.tasks.task import Metric, Outputs, Rows, Shares, Task, only_tensor, single

CHUNK = 1024  # rows whose neighbours are looked for at once


class EmbeddingSettings(Section):
    """`temperature` of the contrastive loss."""

    temperature: float = Field(default=0.1, gt=0, le=100)


class Embedding(Task):
    """Outputs: vectors (images, dimensions), of which only the direction counts. Targets: class numbers (images,); the
    classes need not be those of training.

    Loss: supervised contrastive (Khosla et al. 2020, arXiv 2004.11362, equation 2), over the images of the batch that
    have another of their class in it. Metric: recall at 1, the share of images whose nearest other image, by cosine, is
    of their class. Distillation: 1 - cosine with the teacher's vector.
    """

    name = "embedding"
    Settings = EmbeddingSettings
    metric = Metric("recall at 1")
    agreement_name = "cosine"
    target = "class"

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        vectors = F.normalize(single(only_tensor(outputs, self.name)), dim=1)
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        alike = (targets[:, None] == targets[None, :]) & ~itself
        near = vectors @ vectors.T / cast(EmbeddingSettings, self.settings).temperature
        shares = near - near.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
        counts = alike.sum(1)
        each = -(shares.masked_fill(~alike, 0.0)).sum(1) / counts.clamp_min(1)
        return each.sum() / (counts > 0).sum().clamp_min(1)

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:  # noqa: ARG002
        one, other = (single(only_tensor(each, self.name)) for each in (outputs, teacher))
        return (1 - F.cosine_similarity(one, other)).mean()

    def rows(self, outputs: Outputs, targets: Any) -> Rows:
        """The vector of each image, then its class."""
        vectors = F.normalize(only_tensor(outputs, self.name).detach().double(), dim=1)
        return torch.cat([vectors, targets[:, None].double()], 1).cpu().numpy()

    def finished(self, rows: Rows) -> Rows:
        """Whether the nearest other image is of the same class, and the share of others that are: (images, 2)."""
        vectors, classes = rows[:, :-1], rows[:, -1]
        nearest = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), CHUNK):
            near = vectors[start : start + CHUNK] @ vectors.T
            near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
            nearest[start : start + CHUNK] = near.argmax(axis=1)
        _, place, counts = np.unique(classes, return_inverse=True, return_counts=True)
        others = (counts[place] - 1) / max(1, len(rows) - 1)
        return np.stack([classes[nearest] == classes, others], axis=1).astype(np.float64)

    def measured(self, rows: Rows) -> float:
        return float(rows[:, 0].mean())

    def chance(self, rows: Rows) -> float | None:
        """Any other image taken for the nearest."""
        return float(rows[:, 1].mean())

    def best(self, rows: Rows) -> float | None:
        """Images without another of their class cannot be right."""
        return float((rows[:, 1] > 0).mean())

    def agreement(self, outputs: Outputs, reference: Outputs) -> Shares:
        one, other = (only_tensor(each, self.name).double() for each in (outputs, reference))
        return F.cosine_similarity(one, other).clamp(0, 1).cpu().numpy()

    def check(self, outputs: Outputs, targets: Any) -> None:
        vectors = only_tensor(outputs, self.name)
        if vectors.ndim != 2 or not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
            raise DataError(
                f"the task embedding reads vectors (images, dimensions) and a class number an image: the model answers "
                f"{tuple(vectors.shape)}, the data give {told(targets)}",
                where="task",
            )
