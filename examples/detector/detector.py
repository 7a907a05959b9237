"""A small single-shot detector: its net, the shapes it looks for, and its task, which tells EdgePrune what its answers
mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgeprune.recipe import Section
from edgeprune.tasks.task import Metric, Task

SIDE = 48
CLASSES = ("disc", "square", "triangle")
MOST = 4  # objects in an image: targets are padded to so many
STRIDES = (8, 16)  # of the two scales
SMALL = 16  # pixels: a longer side of an object is for the coarse scale
Floats = npt.NDArray[np.float64]


# The data ------------------------------------------------------------------------------------------------------------


class Shapes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Shapes on noise. An item: the image (3, SIDE, SIDE), and a dict of `boxes` (MOST, 4), left, top, right, bottom in
    pixels, and `classes` (MOST,), -1 where there is no object."""

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._items = [draw(random) for _ in range(count)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self._items[index]


def draw(random: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """One item."""
    image = random.integers(40, 110, (SIDE, SIDE, 3))
    boxes, classes = np.zeros((MOST, 4), np.float32), np.full(MOST, -1)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    free = np.ones((SIDE, SIDE), bool)
    for place in range(int(random.integers(1, MOST + 1))):
        kind, half = int(random.integers(len(CLASSES))), int(random.integers(5, 12))
        top, left = random.integers(half, SIDE - half, 2)
        down, right = rows - top, columns - left
        inside = [
            down**2 + right**2 < half**2,
            (abs(down) < half) & (abs(right) < half),
            (abs(down) < half) & (2 * abs(right) < half + down),
        ][kind]
        if not free[inside].all():
            continue  # objects do not hide each other
        free &= ~((abs(down) <= half) & (abs(right) <= half))
        image[inside] = random.integers(120, 220, 3) + random.integers(-20, 20, (int(inside.sum()), 3))
        seen_rows, seen_columns = np.nonzero(inside)
        boxes[place] = seen_columns.min(), seen_rows.min(), seen_columns.max() + 1, seen_rows.max() + 1
        classes[place] = kind
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 255
    return pixels, {"boxes": torch.from_numpy(boxes), "classes": torch.from_numpy(classes)}


def shapes(split: str) -> Shapes | None:
    """What EdgePrune asks for "train", "validation" and "test"; None: validation is taken out of training."""
    if split == "validation":
        return None
    return Shapes(500, seed=1) if split == "train" else Shapes(150, seed=2)


# The net -------------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What the net answers, each as a list of the two scales.

    Args:
        logits: of each class at each cell, (N, classes, rows, columns).
        sides: how far the sides of the box are from the cell's middle, before a softplus, in strides: (N, 4, rows,
            columns), left, top, right, bottom.
    """

    logits: list[Tensor]
    sides: list[Tensor]


def layer(width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Detector(nn.Module):
    """Images (N, 3, H, W), H and W multiples of 16, to `Found`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, width, 2), layer(width, 2 * width, 2), layer(2 * width, 2 * width))
        self.fine = nn.Sequential(layer(2 * width, 3 * width, 2), layer(3 * width, 3 * width))
        self.coarse = nn.Sequential(layer(3 * width, 4 * width, 2), layer(4 * width, 4 * width))
        self.logits = nn.ModuleList(nn.Conv2d(k * width, len(CLASSES), 3, padding=1) for k in (3, 4))
        self.sides = nn.ModuleList(nn.Conv2d(k * width, 4, 3, padding=1) for k in (3, 4))
        for head in self.logits:
            assert isinstance(head, nn.Conv2d)
            assert head.bias is not None
            nn.init.constant_(head.bias, -3.0)  # objects are rare

    def forward(self, images: Tensor) -> Found:
        fine = self.fine(self.stem(images))
        scales = (fine, self.coarse(fine))
        logits = [head(x) for head, x in zip(self.logits, scales, strict=True)]
        return Found(logits, [head(x) for head, x in zip(self.sides, scales, strict=True)])


def detector(width: int = 16) -> Detector:
    return Detector(width)


# The task ------------------------------------------------------------------------------------------------------------


class DetectionSettings(Section):
    """Keys of [task] beside `name`."""

    overlap: float = Field(default=0.5, gt=0, lt=1)  # intersection over union that makes a box right
    confidence: float = Field(default=0.3, gt=0, lt=1)  # of the objects that two models are compared by


class Detection(Task):
    """Finds objects. Metric: mean average precision at an IoU of `overlap`."""

    name = "detection"
    Settings = DetectionSettings
    agreement_name = "objects found alike"
    target = "own"
    settings: DetectionSettings

    def __init__(self, settings: DetectionSettings) -> None:
        super().__init__(settings)
        self.metric = Metric(f"mean AP at IoU {settings.overlap:g}")

    def loss(self, outputs: Found, targets: dict[str, Tensor]) -> Tensor:
        """Focal loss of each class at each cell, and how far boxes are from those of the objects, for each object."""
        there = (targets["classes"] >= 0).sum().clamp_min(1)
        summed = outputs.logits[0].new_zeros(())
        for scale, (logits, sides) in enumerate(zip(outputs.logits, outputs.sides, strict=True)):
            image, row, column, kind, box = _assigned(targets, scale, logits)
            wanted = torch.zeros_like(logits)
            wanted[image, kind, row, column] = 1
            summed = summed + _focal(logits, wanted)
            given = _boxes(sides, scale)[image, row, column]
            summed = summed + (1 - _iou(given, box)).sum() + F.smooth_l1_loss(given, box, reduction="sum") / 16
        return summed / there

    def distillation(self, outputs: Found, teacher: Found, temperature: float) -> Tensor:  # noqa: ARG002
        """The teacher's scores, and its boxes where it sees an object."""
        summed = outputs.logits[0].new_zeros(())
        seen = summed
        for scale, (logits, taught) in enumerate(zip(outputs.logits, teacher.logits, strict=True)):
            scores = taught.sigmoid()
            apart = F.binary_cross_entropy_with_logits(logits, scores, reduction="sum")
            summed = summed + apart - F.binary_cross_entropy_with_logits(taught, scores, reduction="sum")
            weight = scores.amax(1)
            given, other = (_boxes(each.sides[scale], scale) for each in (outputs, teacher))
            summed = summed + (weight * (1 - _iou(given, other))).sum()
            seen = seen + weight.sum()
        return summed / seen.clamp_min(1)

    def rows(self, outputs: Found, targets: dict[str, Tensor]) -> Floats:
        """Of each image: MOST * 2 boxes (class, or -1; score; 1 if it is right), and the objects of each class."""
        most, made = 2 * MOST, []
        for number, (boxes, kinds, scores) in enumerate(found(outputs)):
            row = np.zeros((most, 3))
            row[:, 0] = -1
            real = targets["classes"][number] >= 0
            truth, truth_kinds = targets["boxes"][number][real], targets["classes"][number][real]
            overlaps, taken = _iou(boxes[:, None], truth[None]), torch.zeros(len(truth), dtype=torch.bool)
            for place, (kind, score) in enumerate(zip(kinds[:most].tolist(), scores[:most].tolist(), strict=True)):
                free = torch.where((truth_kinds == kind) & ~taken, overlaps[place], torch.zeros(()))
                right = bool(len(free)) and float(free.max()) >= self.settings.overlap
                if right:
                    taken[free.argmax()] = True
                row[place] = kind, score, right
            there = torch.bincount(truth_kinds, minlength=len(CLASSES)).numpy()
            made.append(np.concatenate([row.flatten(), there]))
        return np.stack(made)

    def measured(self, rows: Floats) -> float:
        there = rows[:, -len(CLASSES) :].sum(axis=0)
        boxes = rows[:, : -len(CLASSES)].reshape(-1, 3)
        each = [_average_precision(boxes[boxes[:, 0] == k, 1:], there[k]) for k in range(len(CLASSES)) if there[k]]
        return float(np.mean(each)) if each else float("nan")

    def agreement(self, outputs: Found, reference: Found) -> Floats:
        """2 * objects that both find (one class, IoU of 0.5 and more) / (objects of one + objects of the other)."""
        shares = []
        for one, other in zip(found(outputs), found(reference), strict=True):
            (boxes, kinds, _), (others, other_kinds, _) = (self._confident(each) for each in (one, other))
            alike = (_iou(boxes[:, None], others[None]) >= 0.5) & (kinds[:, None] == other_kinds[None])
            both = min(int(alike.any(0).sum()), int(alike.any(1).sum()))
            total = len(kinds) + len(other_kinds)
            shares.append(2 * both / total if total else 1.0)
        return np.array(shares)

    def best(self, rows: Floats) -> float:  # noqa: ARG002
        return 1.0

    def words(self, outputs: Found, labels: Any) -> str:  # noqa: ARG002
        kinds = self._confident(found(outputs)[0])[1].tolist()
        return ", ".join(CLASSES[kind] for kind in kinds) or "nothing"

    def _confident(self, one: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        sure = one[2] >= self.settings.confidence
        return one[0][sure], one[1][sure], one[2][sure]


def found(outputs: Found) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes (n, 4), classes (n,) and scores (n,) of each image, best first, after non-maximum suppression."""
    scores = torch.cat([logits.flatten(2) for logits in outputs.logits], 2).detach().float().sigmoid().cpu()
    boxes = torch.cat([_boxes(sides, scale).flatten(1, 2) for scale, sides in enumerate(outputs.sides)], 1)
    boxes = boxes.detach().float().cpu()
    each = []
    for image in range(len(scores)):
        best, order = scores[image].flatten().sort(descending=True)
        order = order[best > 0.05][:32]
        cells, kinds = order % scores.shape[2], order // scores.shape[2]
        kept = _suppressed(boxes[image, cells], kinds)
        each.append((boxes[image, cells[kept]], kinds[kept], best[: len(order)][kept]))
    return each


def _suppressed(boxes: Tensor, kinds: Tensor) -> list[int]:
    """The places of boxes, best first, that no better one of their class covers by half."""
    covered = (_iou(boxes[:, None], boxes[None]) > 0.5) & (kinds[:, None] == kinds[None])
    kept: list[int] = []
    for place in range(len(boxes)):
        if not covered[place, kept].any():
            kept.append(place)
    return kept


def _boxes(sides: Tensor, scale: int) -> Tensor:
    """Boxes in pixels (N, rows, columns, 4) of what a head says of its sides (N, 4, rows, columns)."""
    rows, columns = sides.shape[2:]
    middles = [(torch.arange(count, device=sides.device) + 0.5) * STRIDES[scale] for count in (rows, columns)]
    down, right = torch.meshgrid(*middles, indexing="ij")
    left, top, far, bottom = (F.softplus(sides.float()) * STRIDES[scale]).unbind(1)
    return torch.stack([right - left, down - top, right + far, down + bottom], -1)


def _assigned(targets: dict[str, Tensor], scale: int, logits: Tensor) -> tuple[Tensor, ...]:
    """The cells that have to find an object: image, row, column, class (n,), and its box (n, 4)."""
    boxes, kinds = targets["boxes"], targets["classes"]
    longest = (boxes[..., 2:] - boxes[..., :2]).amax(-1)
    image, place = ((kinds >= 0) & ((longest > SMALL) == bool(scale))).nonzero(as_tuple=True)
    box = boxes[image, place]
    middle = ((box[:, :2] + box[:, 2:]) / 2 / STRIDES[scale]).long()
    column, row = middle[:, 0].clamp(0, logits.shape[3] - 1), middle[:, 1].clamp(0, logits.shape[2] - 1)
    return image, row, column, kinds[image, place], box


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """The focal loss (Lin et al. 2017, arXiv 1708.02002, gamma 2), summed."""
    wrong = (logits.sigmoid() - wanted).abs()
    return (wrong.square() * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4)."""
    shared = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp_min(0)
    areas = [(each[..., 2:] - each[..., :2]).clamp_min(0).prod(-1) for each in (one, other)]
    both = shared.prod(-1)
    return both / (areas[0] + areas[1] - both).clamp_min(1e-6)


def _average_precision(boxes: Floats, there: float) -> float:
    """The area under the precision-recall curve of boxes (n, 2), score and right, of so many objects."""
    right = boxes[np.argsort(-boxes[:, 0], kind="stable"), 1]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((right * envelope).sum() / there)
