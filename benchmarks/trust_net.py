"""What the cases of trust_cases.py share: drawn images, a net that knows them, and how a case is written down.

An image's class (0 to 11) is in which of four columns its block stands, and whether that is red, green or blue. A
small net learns that to 100 % in seconds. So whatever a case does to classes, colours, pixels or weights shows in its
accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomlkit
import torch
from PIL import Image
from safetensors.torch import save_file

CLASSES = 12
SIDE = 32
NAMES = tuple(f"c{number:02d}" for number in range(CLASSES))
NUMBERED = tuple(str(number + 1) for number in range(CLASSES))
COLOURS = ((230, 130, 130), (130, 230, 130), (130, 130, 230))
NET = '''\
"""The net of the cases."""

import torch
from torch import nn


def block(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Net(nn.Module):
    def __init__(self, classes=12, width=24):
        super().__init__()
        self.body = nn.Sequential(
            block(3, width, 2), block(width, width, 1), block(width, 2 * width, 2), block(2 * width, 2 * width, 1)
        )
        self.head = nn.Linear(2 * width * 16, classes)

    def features(self, x):
        return nn.functional.adaptive_avg_pool2d(self.body(x), 4).flatten(1)

    def forward(self, x):
        return self.head(self.features(x))


def net(classes=12, width=24):
    return Net(classes, width)
'''

PASS, FAIL, REFUSED, INTERNAL, UNDECIDED = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Case:
    """One thing that a user brings.

    `make` writes it into an empty folder and returns the arguments of `edgeprune`, which runs there. `ends` are the
    exit codes that are right. `accuracy`: the least that the exported files must have where it passes. `wrong` looks at
    what came out and returns what is wrong with it; empty if nothing is.
    """

    point: int
    name: str
    make: Callable[[Path], Sequence[object]]
    ends: tuple[int, ...]
    accuracy: float = 0.0
    wrong: Callable[[Path], str] | None = None


@dataclass(frozen=True)
class Base:
    """What was made once for all cases: the net's file and its weights."""

    net: Path
    weights: Path

    def recipe(self, folder: Path, **sections: Mapping[str, Any]) -> list[object]:
        """A recipe that takes seconds, with what is given put into its sections (None takes a key out)."""
        tree: dict[str, dict[str, Any]] = {
            "model": {"factory": f"{self.net}:net", "checkpoint": str(self.weights), "input_size": [3, SIDE, SIDE]},
            "data": {"source": "images", "validation_images": 40, "calibration_images": 40},
            "prune": {
                "target": "40kparams",
                "scoring_batches": 1,
                "tolerance": 0.2,
                "reconstruct": 64,
                "judging_images": 64,
            },
            "tune": {"epochs": 1, "batch_size": 32},
            "quantize": {"enabled": False},
            "export": {"formats": ["tflite"]},
            "verify.gates": {"latency_tolerance": 9.0},
        }
        for name, given in sections.items():
            section = tree.setdefault(name.replace("_gates", ".gates"), {})
            section.update(given)
            for key in [key for key, value in section.items() if value is None]:
                del section[key]
        (folder / "recipe.toml").write_text(tomlkit.dumps(nested(tree)))
        return ["run", "recipe.toml", "--out", "run"]


def nested(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sections by their names, as `verify.gates`, in one another."""
    whole: dict[str, Any] = {}
    for name, values in tree.items():
        section = whole
        for part in name.split("."):
            section = section.setdefault(part, {})
        section.update(values)
    return whole


def draw(label: int, random: np.random.Generator, height: int = SIDE, width: int = SIDE) -> npt.NDArray[np.uint8]:
    """An image of a class, uint8 (height, width, 3)."""
    image = random.integers(60, 120, (height, width, 3)).astype(np.uint8)
    colour, column = divmod(label, 4)
    tall, wide = height // 3, width // 4
    top, left = random.integers(0, height - tall), column * wide + random.integers(0, 2)
    image[top : top + tall, left : left + wide - 2] = np.array(COLOURS[colour]) + random.integers(-20, 20, 3)
    return image


def draw_folder(root: Path, names: Sequence[str], each: int, *, seed: int, **saved: Any) -> Path:
    """A folder of classes; class i of the net has the i-th name. `saved`: the options of Pillow's `save`."""
    random = np.random.default_rng(seed)
    suffix = saved.pop("suffix", "png")
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            Image.fromarray(draw(label, random)).save(root / name / f"{seed}_{number}.{suffix}", **saved)
    return root


def make_base(cache: Path) -> Base:
    """The net and its weights, trained once (seeded)."""
    base = Base(cache / "net.py", cache / "net.safetensors")
    cache.mkdir(parents=True, exist_ok=True)
    base.net.write_text(NET)
    if not base.weights.exists():
        save_file(_train(base), base.weights)
    return base


def _train(base: Base) -> dict[str, torch.Tensor]:
    space: dict[str, Any] = {}
    exec(base.net.read_text(), space)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, random = space["net"](), np.random.default_rng(1)
    labels = torch.arange(CLASSES).repeat(60)
    pixels = np.stack([draw(int(label), random) for label in labels])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            loss = torch.nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
