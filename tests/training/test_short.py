"""NetAdapt's judge: what a short training brings back is seen, and the model is left as it was."""

from __future__ import annotations

import copy

import torch
from toy_training import make_net

from edgeprune.data.split import Split
from edgeprune.methods.short_training import TunedLoss
from edgeprune.recipe import TuneSection
from edgeprune.search.judge import AdaptedLoss
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet
from edgeprune.training.loop import tune


def test_a_short_training_brings_some_of_the_loss_back(train: Split, validation: Split) -> None:
    settings = TuneSection(epochs=4, batch_size=32, lr=0.05, augment="none")
    net = tune(make_net(dropout=0.0), None, train, validation, settings, seed=0, snapshots=None).module
    structure = find_structure(net, torch.randn(2, 1, 8, 8))
    judge = AdaptedLoss(net, structure, validation.batches(60, seed=0))
    batches = list(train.batches(32, seed=0))
    before = copy.deepcopy(net.state_dict())
    removed = Subnet({"0:out": (0, 1, 2, 3, 4, 5)})
    tuned = TunedLoss(judge, batches, settings)(removed)
    assert tuned < judge(removed)
    assert TunedLoss(judge, [], settings)(removed) == judge(removed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_proposal_is_judged_alike_whenever_it_is_asked_for(train: Split, validation: Split) -> None:
    """Also with dropout, and whatever random numbers were drawn between; these go on as if it had drawn none."""
    net = make_net(dropout=0.5)
    structure = find_structure(net, torch.randn(2, 1, 8, 8))
    judge = AdaptedLoss(net, structure, validation.batches(60, seed=0))
    tuned = TunedLoss(judge, train.batches(32, seed=0), TuneSection(batch_size=32, augment="none"))
    torch.manual_seed(1)
    first = tuned(Subnet({"0:out": (0, 1)}))
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert tuned(Subnet({"0:out": (0, 1)})) == first
