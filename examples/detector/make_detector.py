"""Train the detector on shapes that are drawn as they are needed.

python examples/detector/make_detector.py        writes detector.safetensors beside this file
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from detector import Detection, DetectionSettings, detector, shapes
from safetensors.torch import save_file
from torch.utils.data import default_collate


def train(epochs: int) -> torch.nn.Module:
    """A detector trained with the task's own loss."""
    torch.manual_seed(0)
    model, task, data = detector(), Detection(DetectionSettings()), shapes("train")
    assert data is not None
    images, targets = default_collate([data[index] for index in range(len(data))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    steps = epochs * -(-len(data) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(data)).split(32):
            loss = task.loss(model(images[batch]), {name: values[batch] for name, values in targets.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the detector on drawn shapes.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, help="folder for the weights")
    parser.add_argument("--epochs", type=int, default=16)
    given = parser.parse_args()
    save_file(train(given.epochs).state_dict(), given.into / "detector.safetensors")


if __name__ == "__main__":
    main()
