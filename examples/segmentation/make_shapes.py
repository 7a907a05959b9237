"""Draw shapes with their masks into folders, and train the U-Net on them: a model and data to try EdgePrune on.

python examples/segmentation/make_shapes.py        writes shapes/ and unet.safetensors beside this file
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from unet import unet

SIDE = 32
Pixels = npt.NDArray[np.uint8]


def draw(random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """An image (SIDE, SIDE, 3) and its mask (SIDE, SIDE): 0 background, 1 disc, 2 square, 3 triangle."""
    image = random.integers(40, 110, (SIDE, SIDE, 3))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for kind in random.permutation([1, 2, 3]):
        size, (top, left) = random.integers(4, 8), random.integers(6, SIDE - 6, 2)
        down, right = rows - top, columns - left
        inside = {
            1: down**2 + right**2 < size**2,
            2: (abs(down) < size) & (abs(right) < size),
            3: (abs(down) < size) & (2 * abs(right) < size + down),
        }[int(kind)]
        image[inside] = random.integers(120, 220, 3) + random.integers(-20, 20, (int(inside.sum()), 3))
        mask[inside] = kind
    return image.astype(np.uint8), mask


def write(folder: Path, count: int, seed: int) -> None:
    """Write folder/images/0.png, folder/masks/0.png, and so on."""
    random = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask = draw(random)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, SIDE, SIDE) from 0 to 1, and masks (N, SIDE, SIDE)."""
    files = sorted((folder / "images").glob("*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    masks = np.stack([np.asarray(Image.open(folder / "masks" / file.name)) for file in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(masks).long()


def train(folder: Path, epochs: int) -> torch.nn.Module:
    """A U-Net trained on a folder's images, as anybody trains one."""
    torch.manual_seed(0)
    model, (images, masks) = unet(), read(folder)
    steps = epochs * -(-len(images) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            loss = F.cross_entropy(model(images[batch]), masks[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw shapes with masks, and train a U-Net on them.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="folder for shapes/ and the weights")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    write(given.into / "shapes" / "train", 500, seed=0)
    write(given.into / "shapes" / "test", 150, seed=1)
    model = train(given.into / "shapes" / "train", given.epochs)
    save_file(model.state_dict(), given.into / "unet.safetensors")


if __name__ == "__main__":
    main()
