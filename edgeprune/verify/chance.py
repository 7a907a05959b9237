"""What chance alone could answer: whether a model knows anything of the images, and whether so few could tell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

LEVEL = 0.01  # what chance explains more often than this is no evidence
KNOWLEDGE = 0.1  # so far from guessing (0) to perfect (1) a model has to be, each class counted alike
SHUFFLES = 2000
SAMPLE = 2000  # answers that are shuffled, spread over all


def near_chance(named: Numbers, labels: Numbers) -> bool:
    """Whether answers (N,) say nothing of the labels (N,).

    They do where as many are right by chance (the labels shuffled) in more than a hundredth of all cases, or where the
    mean of the classes' shares of right answers is not a tenth of the way from guessing to perfect: one class that is
    named rightly because everything is named so is no knowledge.
    """
    present = np.unique(labels)
    recall = np.mean([(named[labels == one] == one).mean() for one in present])
    guessing = 1 / len(present)
    if (recall - guessing) / (1 - guessing) < KNOWLEDGE:
        return True
    return guesses(named, labels)


def guesses(named: Numbers, labels: Numbers) -> bool:
    """Whether chance does as well as these answers (N,), in more than a hundredth of all cases."""
    some = np.linspace(0, len(labels) - 1, min(len(labels), SAMPLE)).astype(np.int64)
    return _by_chance(named[some], labels[some]) > LEVEL


def _by_chance(named: Numbers, labels: Numbers) -> float:
    """How often labels in a random order fit at least as well."""
    random, right = np.random.default_rng(0), int((named == labels).sum())
    as_good = sum(int((named == random.permutation(labels)).sum()) >= right for _ in range(SHUFFLES))
    return (1 + as_good) / (1 + SHUFFLES)


def tells(labels: Numbers) -> bool:
    """Whether so few images could tell a perfect model from chance."""
    return len(np.unique(labels)) > 1 and not guesses(labels, labels)
