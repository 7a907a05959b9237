"""What training sees of a model that is pruned meanwhile, in the places of the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facts import refused
from small_vit import small_vit
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.methods.nvit import published_slopes
from edgeprune.methods.seen_scores import SeenScores
from edgeprune.methods.taylor import score_taylor
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import zero_units
from edgeprune.space.submodel import Part

OUT = {"blocks.0.attn:heads": (2,), "blocks.0.attn:qk": (1, 5), "blocks.1.attn:v": (0,), "blocks.1.mlp.fc1:out": (3, 7)}


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(6, 1, 16, 16, dtype=torch.float64), torch.randint(0, 10, (6,))


def step(watch: SeenScores, student: nn.Module, part: Part, seed: int) -> None:
    images, targets = batch(seed)
    student.zero_grad()
    nn.functional.cross_entropy(student(images), targets).backward()
    watch.see(student, part)


def test_a_narrow_students_gradients_are_those_of_the_whole_model_with_these_units_at_zero() -> None:
    net = small_vit(5).double()
    structure = find_structure(net, batch(0)[0])
    slopes = published_slopes(net, structure)
    watch = SeenScores(net, structure, slopes, momentum=0.9)
    assert watch.scores() is None
    student, part = remove_units(net, structure, OUT), Part(net, structure, OUT)
    for seed in (1, 2):
        step(watch, student, part, seed)
    seen = watch.scores()
    assert seen is not None
    zeroed = zero_units(net, structure, OUT)
    wanted = score_taylor(zeroed, structure, [batch(1), batch(2)], slopes=slopes)
    for name, values in wanted.items():
        gone = list(OUT.get(name, ()))
        np.testing.assert_allclose(np.delete(seen[name], gone), np.delete(values, gone), rtol=1e-7, atol=1e-20)
        assert (seen[name][gone] == 0).all()


def test_what_was_seen_before_the_last_choice_counts_its_share_and_travels() -> None:
    net = small_vit(5).double()
    structure = find_structure(net, batch(0)[0])
    slopes = published_slopes(net, structure)
    whole = Part(net, structure, {})
    first, second = (score_taylor(net, structure, [batch(seed)], slopes=slopes) for seed in (1, 2))
    watch = SeenScores(net, structure, slopes, momentum=0.9)
    step(watch, net, whole, 1)
    told = watch.scores()
    assert told is not None
    step(watch, net, whole, 2)
    other = SeenScores(net, structure, slopes, momentum=0.9)
    other.go_on(watch.state())
    for one in (watch, other):
        now = one.scores()
        assert now is not None
        for name in now:
            assert told[name] == pytest.approx(first[name])
            assert now[name] == pytest.approx(0.9 * first[name] + 0.1 * second[name])


def test_a_step_whose_gradients_are_no_numbers_does_not_count() -> None:
    net = small_vit(5).double()
    structure = find_structure(net, batch(0)[0])
    whole = Part(net, structure, {})
    watch = SeenScores(net, structure, published_slopes(net, structure), momentum=0.0)
    step(watch, net, whole, 1)
    net.blocks[0].mlp.fc1.weight.grad[0, 0] = float("inf")
    watch.see(net, whole)
    seen = watch.scores()
    wanted = score_taylor(net, structure, [batch(1)], slopes=published_slopes(net, structure))
    assert seen is not None
    for name, values in wanted.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-9)


def test_a_unit_that_was_out_keeps_what_was_seen_of_it() -> None:
    net = small_vit(5).double()
    structure = find_structure(net, batch(0)[0])
    slopes = published_slopes(net, structure)
    watch = SeenScores(net, structure, slopes, momentum=0.9)
    step(watch, net, Part(net, structure, {}), 1)
    first = watch.scores()
    step(watch, remove_units(net, structure, OUT), Part(net, structure, OUT), 2)
    second = watch.scores()
    assert first is not None
    assert second is not None
    for name, gone in OUT.items():
        np.testing.assert_array_equal(second[name][list(gone)], first[name][list(gone)])
        stay = np.delete(np.arange(len(first[name])), list(gone))
        assert (second[name][stay] != first[name][stay]).any()


def test_weights_that_do_not_learn_are_refused() -> None:
    net = small_vit(5)
    net.blocks[0].requires_grad_(False)
    structure = find_structure(net, torch.randn(1, 1, 16, 16))
    with refused(ModelError, "blocks.0", "prune.epochs"):
        SeenScores(net, structure, published_slopes(net, structure), momentum=0.9)
