from __future__ import annotations

import numpy as np
import pytest
import torch
from facts import refused
from torch import nn
from toy_training import make_net, make_split

from edgeprune.data.split import Split
from edgeprune.errors import DataError
from edgeprune.training.accuracy import predict, recalibrate_batchnorm, top1


def test_predictions_are_the_models_answers_in_order(validation: Split) -> None:
    net = make_net()
    images = torch.cat([x for x, _ in validation.batches(50)])
    with torch.no_grad():
        expected = net(images).numpy()
    for given in (validation, images, images.numpy()):
        (got,) = predict(net, given, batch_size=32)
        assert got.dtype == np.float32
        assert np.allclose(got, expected, atol=1e-5)
    assert top1(net, validation) == pytest.approx((expected.argmax(1) == validation.labels).mean())


def test_a_model_keeps_its_modes_and_statistics(validation: Split) -> None:
    net = make_net()
    net[3].train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    (one,), (two,) = predict(net, validation), predict(net, validation)
    assert np.array_equal(one, two)
    assert [m.training for m in net] == [False, False, False, True, False, False]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_nothing_to_predict_is_an_error(validation: Split) -> None:
    with refused(DataError, "images"):
        top1(make_net(), validation.take(0))
    with refused(DataError, "images"):
        recalibrate_batchnorm(make_net(), validation.take(0), 10)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_gets_the_statistics_of_the_images(momentum: float | None) -> None:
    split = make_split(256, 5)
    net = make_net(dropout=0.5)
    net[1].momentum = momentum
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = recalibrate_batchnorm(net, split, 256)
    images = torch.cat([x for x, _ in split.batches(256)])
    with torch.no_grad():
        features = nn.functional.conv2d(images, net[0].weight, None, 2, 1)
    assert torch.allclose(result[1].running_mean, features.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(result[1].running_var, features.var((0, 2, 3)), rtol=0.02)
    assert result[1].momentum == momentum
    assert not any(m.training for m in result.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(result[5].weight, net[5].weight)


def test_fewer_images_than_a_batch_are_enough() -> None:
    split = make_split(256, 5)
    result = recalibrate_batchnorm(make_net(), split, 40)
    images = torch.cat([x for x, _ in split.take(40).batches(64)])
    with torch.no_grad():
        features = nn.functional.conv2d(images, result[0].weight, None, 2, 1)
    assert torch.allclose(result[1].running_mean, features.mean((0, 2, 3)), atol=1e-5)
