from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.errors import EdgePruneError, ModelError
from edgeprune.models.checkpoint import load_state, not_finite, save_state
from edgeprune.models.weights_file import read_tree


def _net(width: int = 4) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    return net


def _bits(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in module.state_dict().items()}


class Tied(nn.Module):
    """Two names for one weight, and a buffer that is a view into a larger one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("part", torch.arange(10.0)[2:5])


@given(seed=st.integers(0, 2**31), width=st.integers(1, 9), channels_last=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_saved_state_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, width: int, channels_last: bool
) -> None:
    path = tmp_path_factory.mktemp("state") / "model.safetensors"
    torch.manual_seed(seed)
    before, after = _net(width), _net(width)
    if channels_last:
        before = before.to(memory_format=torch.channels_last)
    save_state(path, before)
    load_state(after, path)
    assert _bits(before) == _bits(after)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_shared_and_sliced_tensors_are_saved(tmp_path: Path) -> None:
    before, after = Tied(), Tied()
    save_state(tmp_path / "tied.safetensors", before)
    load_state(after, tmp_path / "tied.safetensors")
    assert _bits(before) == _bits(after)
    assert after.first.weight is after.second.weight


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_checkpoints_are_unwrapped(tmp_path: Path, nest, prefix: str) -> None:
    net = _net()
    torch.save(nest({prefix + name: tensor for name, tensor in net.state_dict().items()}), tmp_path / "net.pth")
    other = _net()
    load_state(other, tmp_path / "net.pth")
    assert _bits(net) == _bits(other)


def test_half_precision_comes_as_float32(tmp_path: Path) -> None:
    half = _net().half()
    save_state(tmp_path / "half.safetensors", half)
    net = _net()
    load_state(net, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in net.parameters()} == {torch.float32}
    assert torch.equal(net[0].weight, half[0].weight.float())


class Payload:
    """What a hostile checkpoint does: run something when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload(tmp_path / "executed")}, tmp_path / "evil.pt")
    with refused(ModelError, "pickle", tmp_path / "evil.pt", "torch.load", "weights_only=False"):
        read_tree(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_another_architecture_is_refused_and_the_differences_listed(tmp_path: Path) -> None:
    net = _net(4)
    state = {**net.state_dict(), "extra.weight": torch.zeros(1)}
    del state["3.bias"]
    state["0.weight"] = torch.zeros(5, 3, 3, 3)
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    before = _bits(net)
    differences = ("3.bias", "extra.weight", "0.weight", (5, 3, 3, 3), (4, 3, 3, 3))
    with refused(ModelError, tmp_path / "other.safetensors", *differences):
        load_state(net, tmp_path / "other.safetensors")
    assert _bits(net) == before


def test_only_the_batch_counter_may_be_missing(tmp_path: Path) -> None:
    net = _net()
    state = {name: tensor for name, tensor in net.state_dict().items() if "num_batches" not in name}
    safetensors.torch.save_file(state, tmp_path / "old.safetensors")
    load_state(_net(), tmp_path / "old.safetensors")
    del state["1.running_var"]
    safetensors.torch.save_file(state, tmp_path / "older.safetensors")
    with refused(ModelError, "1.running_var", tmp_path / "older.safetensors"):
        load_state(_net(), tmp_path / "older.safetensors")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    net = _net()
    net[0].weight.data[0] = float("nan")
    save_state(tmp_path / "nan.safetensors", net)
    with refused(ModelError, "finite", "0.weight", tmp_path / "nan.safetensors"):
        load_state(_net(), tmp_path / "nan.safetensors")


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pt"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04" + bytes(100)])
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with refused(ModelError, tmp_path / name):
        read_tree(tmp_path / name)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    net = _net(32)
    if name.endswith("pt"):
        torch.save(net.state_dict(), tmp_path / name)
    else:
        save_state(tmp_path / name, net)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with refused(ModelError, tmp_path / name):
        read_tree(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {}, {"weight": torch.zeros(1), "lr": 0.1}, {"epoch": 3}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with refused(ModelError, tmp_path / "odd.pt"):
        load_state(_net(), tmp_path / "odd.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with refused(ModelError, tmp_path / "nothing.pt"):
        read_tree(tmp_path / "nothing.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path / "net.safetensors", _net())
    before = (tmp_path / "net.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with refused(EdgePruneError, os.strerror(errno.ENOSPC), code=3, because=OSError):
        save_state(tmp_path / "net.safetensors", _net())
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    assert (tmp_path / "net.safetensors").read_bytes() == before


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None: ...

    with refused(ModelError, "_extra_state"):
        save_state(tmp_path / "x.safetensors", Extra(1, 1))


class Masked(nn.Module):
    """Attention's masks are minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("mask", torch.full((4,), -math.inf))


def test_a_mask_of_infinity_is_no_broken_value(tmp_path: Path) -> None:
    safetensors.torch.save_file(Masked().state_dict(), tmp_path / "net.safetensors")
    module = Masked()
    load_state(module, tmp_path / "net.safetensors")
    assert not_finite(module.state_dict(), module) == []
    module.norm.running_var[0] = math.inf
    module.norm.weight.data[0] = -math.inf
    assert not_finite(module.state_dict(), module) == ["norm.weight", "norm.running_var"]
    module.mask[1] = math.nan
    assert "mask" in not_finite(module.state_dict(), module)
