"""A few test images with what the unpruned and the final model answer, for the report: figures tell how often a model
is right, a look tells what it gets wrong."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from edgeprune.data.split import Split
from edgeprune.models.inputs import given_to
from edgeprune.tasks.objective import Objective, tensors
from edgeprune.training.accuracy import predict
from edgeprune.verify.looks import Answer, Shown

MOST_SIDE = 128  # pixels of a picture in the page

Pixels = npt.NDArray[np.uint8]


def shown_images(models: dict[str, nn.Module], test: Split, objective: Objective, count: int) -> tuple[Shown, ...]:
    """The first of `count` test images spread over the classes, and each model's answer; none where the task shows
    nothing, or no input is a picture. Of several inputs the first picture is shown."""
    if not count or not len(test):
        return ()
    chosen = test.take(count)
    images = torch.cat([given for given, _ in chosen.batches(count)])
    inputs = given_to(next(iter(models.values())), images)
    pictures = [one for one in inputs if one.ndim == 4 and (len(inputs) == 1 or one.shape[1] in (1, 3))]
    if not pictures:
        return ()
    pixels = (
        chosen.images.pixels(chosen.indices).transpose(0, 2, 3, 1) if chosen.has_pixels else _stretched(pictures[0])
    )
    answers = {word: predict(module, images) for word, module in models.items()}
    found = []
    for number in range(len(images)):
        told = {
            word: _answer(objective, [output[number : number + 1] for output in outputs], chosen.classes)
            for word, outputs in answers.items()
        }
        if any(one.picture or one.words for one in told.values()):
            found.append(Shown(image=_png(pixels[number]), answers=told))
    return tuple(found)


def _answer(objective: Objective, outputs: list[npt.NDArray[np.float32]], labels: tuple[str, ...]) -> Answer:
    read = objective.read(tensors(outputs))
    picture = objective.task.picture(read)
    words = objective.task.words(read, labels)
    return Answer(picture="" if picture is None else _png(picture, smooth=False), words=words)


def _stretched(images: torch.Tensor) -> Pixels:
    """Inputs (N, C, H, W) of a data set that prepares them itself, from their least to their greatest number."""
    values = images.numpy().transpose(0, 2, 3, 1)
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((values - low) / np.maximum(high - low, 1e-12) * 255).astype(np.uint8)


def _png(pixels: Pixels, *, smooth: bool = True) -> str:
    """A picture (H, W, 1 or 3) as a small PNG in base64; of other numbers of channels the first alone."""
    grey = pixels.ndim == 2 or pixels.shape[2] != 3
    image = Image.fromarray(np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0] if grey else pixels))
    scale = min(1.0, MOST_SIDE / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")
