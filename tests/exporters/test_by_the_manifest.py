"""An app that knows the manifest alone prepares images as the verdict had them, and is as often right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import export
from PIL import Image, ImageOps
from real_runtimes import run
from torch import nn

from edgeprune.artifacts.manifest import Manifest, manifest_path
from edgeprune.artifacts.preparation import Preparation
from edgeprune.data.open import open_data, with_preprocessing
from edgeprune.devices.local import LocalDevice
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection
from edgeprune.tasks.objective import CLASSIFYING
from edgeprune.verify.mil import run_mlpackage
from edgeprune.verify.outputs import collect_outputs

DATA = {"train": "train", "test": "test", "validation_images": 4, "calibration_images": 12}


def photos(root: Path, *, grey: bool = False, most: int = 90) -> list[tuple[Path, int]]:
    """JPEG files of odd sizes, some of them turned by EXIF: bright at the left, the right, the top or the bottom."""
    random, found = np.random.default_rng(0), []
    for number in range(40):
        label = number % 4
        height, width = (int(n) for n in random.integers(20, most, 2))
        pixels = random.integers(0, 90, (height, width, 3))
        rows, columns = slice(None), slice(None)
        rows = slice(0, height // 3) if label == 2 else slice(-(height // 3), None) if label == 3 else rows
        columns = slice(0, width // 3) if label == 0 else slice(-(width // 3), None) if label == 1 else columns
        pixels[rows, columns] += np.array([130, 90, 150])
        image, exif = Image.fromarray(pixels.astype(np.uint8)).convert("L" if grey else "RGB"), Image.Exif()
        if number % 5 == 0:
            image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
        for part in ("train", "test"):
            place = root / part / "abcd"[label] / f"{number:02d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            if part == "train":
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place, quality=60)
            else:
                image.save(place, quality=92, exif=exif)
                found.append((place, label))
    return sorted(found)


def spec_of(channels: int, interpolation: str = "bicubic") -> ModelSpec:
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.4,), (0.3,))
    return ModelSpec(
        source="tests:net",
        input_size=(channels, 24, 32),
        num_classes=4,
        preprocessing=Preprocessing(mean=mean, std=std, interpolation=interpolation, crop_pct=0.9),
        labels=("a", "b", "c", "d"),
    )


def prepared(file: Path, told: dict[str, Any]) -> np.ndarray:
    """(C, H, W) float32, by what the manifest's `preprocessing` says and by nothing of EdgePrune."""
    decode, resize, crop = told["decode"], told["resize"], told["crop"]
    image = Image.open(file)
    if decode["exif_orientation"] == "applied":
        image = ImageOps.exif_transpose(image)
    if decode["colours"] == "grey" and image.mode == "RGB":
        red, green, blue = (np.asarray(band).astype(np.uint32) for band in image.split())
        image = Image.fromarray(((19595 * red + 38470 * green + 7471 * blue + 32768) // 65536).astype(np.uint8))
    elif decode["colours"] == "RGB" and image.mode == "L":
        image = Image.merge("RGB", (image,) * 3)
    (w, h), (height, width) = image.size, (resize["height"], resize["width"])
    if w * height <= h * width:
        size = (width, max(height, math.floor(width * h / w)))
    else:
        size = (max(width, math.floor(height * w / h)), height)
    if size != image.size:
        assert resize["antialias"] is (resize["filter"] != "nearest")
        image = image.resize(size, Image.Resampling[resize["filter"].upper()])
    left, top = round((size[0] - crop["width"]) / 2), round((size[1] - crop["height"]) / 2)
    values = np.asarray(image)[top : top + crop["height"], left : left + crop["width"]]
    values = values[..., None] if values.ndim == 2 else values
    real = (values * told["scale"] - np.array(told["mean"])) / np.array(told["std"])
    return real.transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "interpolation", "section", "most"),
    [
        (3, "bicubic", {}, 90),
        (3, "bilinear", {"crop_pct": 0.6}, 90),
        (3, "lanczos", {"resize": 41}, 90),
        (3, "nearest", {"resize": 31, "crop_pct": 0.5}, 90),
        (3, "bilinear", {"crop_pct": 1.0}, 22),  # smaller than the input
        (1, "bilinear", {"resize": 33}, 90),
        (1, "bicubic", {"crop_pct": 0.7}, 90),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_are_those_of_the_manifest(
    tmp_path: Path, channels: int, interpolation: str, section: dict[str, Any], most: int, grey: bool
) -> None:
    files = photos(tmp_path, grey=grey, most=most)
    data = DataSection.model_validate({"source": str(tmp_path), **DATA, **section})
    spec = with_preprocessing(spec_of(channels, interpolation), data)
    (images, labels), *_ = open_data(data, spec, seed=0).test.batches(100)
    told = json.loads(Preparation.of(spec).model_dump_json())
    for label in range(4):
        expected = np.stack([prepared(file, told) for file, of in files if of == label])
        np.testing.assert_allclose(images[labels == label].numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_every_file_is_as_often_right_by_its_manifest_alone(tmp_path: Path) -> None:
    files, folder = photos(tmp_path / "photos"), tmp_path / "export"
    data = DataSection.model_validate({"source": str(tmp_path / "photos"), **DATA, "resize": 40, "crop_pct": 0.5})
    spec = with_preprocessing(spec_of(3), data)
    splits = open_data(data, spec, seed=0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 12 * 16, 4)).eval()
    (test, _), *_ = splits.test.batches(100)
    (calibration, _), *_ = splits.calibration.batches(100)
    manifests = export(
        Model(spec, net),
        folder,
        formats=("tflite", "pte", "coreml", "onnx"),
        int8=True,
        calibration=calibration,
        reference_input=test[:4],
    )

    def floats(images: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return (net(torch.from_numpy(images)).numpy(),)

    verified = collect_outputs(
        manifests,
        folder,
        LocalDevice(tmp_path / "device"),
        floats,
        splits.test,
        CLASSIFYING,
        images=None,
        threads=1,
        progress=Silent(),
    )
    for one in manifests:
        told = json.loads(manifest_path(folder / one.file).read_text())
        images = np.stack([prepared(file, told["preprocessing"]) for file, _ in files])
        names = np.array([told["labels"].index(file.parent.name) for file, _ in files])
        if one.format == "coreml":  # no runtime of Apple is here: the package is executed on the manifest's pixels
            answers = run_mlpackage(folder / one.file, images).reshape(len(files), -1)
        else:
            answers = run(folder, Manifest.model_validate(told), torch.from_numpy(images)).numpy()
        verdict = CLASSIFYING.measured(verified.files[one.file].rows)
        assert (answers.argmax(1) == names).mean() == verdict, one.file
