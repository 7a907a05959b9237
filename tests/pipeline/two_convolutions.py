"""The smallest thing that can be pruned, as a user's file has it."""

from torch import nn


def net(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


def plain(classes: int = 10) -> nn.Module:
    """The same without a batch norm."""
    return nn.Sequential(*(part for part in net(classes) if not isinstance(part, nn.BatchNorm2d)))
