"""Draw pictures at two resolutions into an .npz file, and train the net on them.

python examples/superresolution/make_pictures.py        writes pictures.npz and upscaler.safetensors beside this file
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from upscaler import upscaler

SMALL = 24  # pixels a side
Numbers = npt.NDArray[np.float32]


def draw(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], Numbers]:
    """Small images (count, SMALL, SMALL, 3) of 0 to 255, and what the net has to make of them: (count, 3, 2 SMALL,
    2 SMALL) from 0 to 1."""
    random, side = np.random.default_rng(seed), 8 * SMALL
    rows, columns = np.mgrid[:side, :side]
    finest = np.empty((count, 3, side, side), np.float32)
    for picture in finest:
        picture[:] = (random.uniform(0, 1, (3, 1, 1)) + random.uniform(0, 1, (3, 1, 1)) * rows / side) / 2
        for _ in range(6):
            angle, (down, right) = random.uniform(0, np.pi), random.uniform(0, side, 2)
            along = np.cos(angle) * (rows - down) + np.sin(angle) * (columns - right)
            across = np.sin(angle) * (rows - down) - np.cos(angle) * (columns - right)
            picture[:, (abs(along) < random.uniform(8, 60)) & (abs(across) < random.uniform(8, 40))] = random.uniform(
                0, 1, (3, 1)
            )
    small, large = _averaged(finest, 8), _averaged(finest, 4)
    return (small.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8), large


def _averaged(images: Numbers, factor: int) -> Numbers:
    count, channels, height, width = images.shape
    blocks = images.reshape(count, channels, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(3, 5)))


def train(images: npt.NDArray[np.uint8], targets: Numbers, epochs: int) -> torch.nn.Module:
    """A net trained on small and large images."""
    torch.manual_seed(0)
    model, small, large = upscaler(), torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(targets)
    steps = epochs * -(-len(small) // 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(small)).split(4):
            loss = F.mse_loss(model(small[batch]), large[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.5f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw pictures at two resolutions, and train a net on them.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="folder for what is written")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    images, targets = draw(300, seed=0)
    tests, truths = draw(100, seed=1)
    arrays = {"train_images": images, "train_targets": targets, "test_images": tests, "test_targets": truths}
    np.savez_compressed(given.into / "pictures.npz", **arrays)
    save_file(train(images, targets, given.epochs).state_dict(), given.into / "upscaler.safetensors")


if __name__ == "__main__":
    main()
