"""What users bring as checkpoints: taken and said, or refused for what they are."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.models.checkpoint import Loaded, load_state

State = dict[str, Tensor]


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential()
    made.add_module("conv1", nn.Conv2d(3, 4, 3))
    made.add_module("bn", nn.BatchNorm2d(4))
    made.add_module("flat", nn.Flatten())
    made.add_module("fc", nn.Linear(4, 2))
    return made


def state(seed: int, prefix: str = "") -> State:
    return {prefix + name: tensor for name, tensor in net(seed).state_dict().items()}


def seed_of(module: nn.Module) -> int | None:
    """Of which net the weights are."""
    for seed in range(5):
        if all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), state(seed).values(), strict=True)):
            return seed
    return None


def loaded(folder: Path, tree: Any, **options: Any) -> tuple[int | None, Loaded]:
    torch.save(tree, folder / "net.pth")
    module = net(99)
    taken = load_state(module, folder / "net.pth", **options)
    return seed_of(module), taken


NAMED = {"conv1": "backbone.", "bn": "backbone.", "fc": "head."}
WRAPPED: dict[str, Callable[[State], Any]] = {
    "lightning": lambda s: {
        "state_dict": {"criterion.weight": torch.ones(2), "train_acc.tp": torch.zeros(2)}
        | {f"model.{n}": t for n, t in s.items()},
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {},
        "epoch": 4,
    },
    "lightning net": lambda s: {"state_dict": {f"net.{n}": t for n, t in s.items()}},
    "swa": lambda s: {"n_averaged": torch.tensor(7)} | {f"module.{n}": t for n, t in s.items()},
    "compiled in parallel": lambda s: {f"module._orig_mod.{n}": t for n, t in s.items()},
    "parallel in compiled": lambda s: {"model": {f"_orig_mod.module.{n}": t for n, t in s.items()}},
    "deeper": lambda s: {"checkpoint": {"model": s}, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}},
    "deepspeed": lambda s: {"module": s, "optimizer": None, "ds_config": {"train_batch_size": 8}},
    "mmpretrain": lambda s: {"meta": {"epoch": 3}, "state_dict": {NAMED[n.split(".")[0]] + n: t for n, t in s.items()}},
    "timm": lambda s: {"state_dict": s, "arch": "net", "args": argparse.Namespace(lr=0.1), "metric": 76.5},
    "numpy scalars": lambda s: {"model": s, "best_acc": np.float64(0.5)},
    "half": lambda s: {"model": s, "model_again": {n: t.clone() for n, t in s.items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_states_are_taken_and_said(tmp_path: Path, kind: str) -> None:
    seed, taken = loaded(tmp_path, WRAPPED[kind](state(1)))
    assert seed == 1
    assert taken.said


def test_a_plain_state_needs_no_words(tmp_path: Path) -> None:
    assert loaded(tmp_path, state(2)) == (2, Loaded("", {}))


def test_plain_values_are_told(tmp_path: Path) -> None:
    _, taken = loaded(
        tmp_path, {"state_dict": state(1), "epoch": 3, "metric": np.float64(76.5), "metrics": {"top1": 0.7}}
    )
    assert taken.facts == {"epoch": 3, "metric": 76.5, "top1": 0.7}


@pytest.mark.parametrize(
    "tree",
    [
        {"state_dict": state(1), "state_dict_ema": state(2)},
        {"model": state(1), "model_ema": {f"module.{n}": t for n, t in state(2).items()}},
        {"state_dict": state(1, "model.") | state(2, "ema_model.module.")},
        {"net": state(1), "ema": {"shadow": state(2)}},
    ],
)
def test_the_ema_is_taken_before_raw_weights_unless_asked(tmp_path: Path, tree: Any) -> None:
    seed, taken = loaded(tmp_path, tree)
    assert seed == 2
    assert "EMA" in taken.said
    assert loaded(tmp_path, tree, weights="raw")[0] == 1
    assert loaded(tmp_path, tree, weights="ema")[0] == 2


@pytest.mark.parametrize(
    ("tree", "options"),
    [
        ({"student": state(1), "teacher": state(2)}, {}),
        ({"model": state(1), "swa_model": state(2)}, {}),
        (state(1, "student.") | state(2, "teacher."), {}),
        ({"state_dict": state(1)}, {"weights": "ema"}),
        ({"state_dict_ema": state(1)}, {"weights": "raw"}),
        (state(1) | {"extra.weight": torch.zeros(3)}, {}),
        (state(1, "model.") | {"model.extra.weight": torch.zeros(3)}, {}),
    ],
)
def test_in_doubt_it_is_refused(tmp_path: Path, tree: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        loaded(tmp_path, tree, **options)


def test_equal_states_are_no_doubt(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"model": state(1), "best": state(1)})[0] == 1


def test_a_safetensors_file_of_another_name(tmp_path: Path) -> None:
    save_file(state(3), tmp_path / "net.pth")
    module = net(99)
    load_state(module, tmp_path / "net.pth")
    assert seed_of(module) == 3


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "x")


OTHERS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "web page": lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"),
    "LFS": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
    "zip": zipped,
    "NumPy": lambda path: np.savez(path.open("wb"), weight=np.zeros(3)),
    "tflite": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64)),
    "ONNX": lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(64)),
    "HDF5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_other_files_are_called_what_they_are(tmp_path: Path, kind: str, name: str) -> None:
    OTHERS[kind](tmp_path / name)
    with refused(ModelError, kind, tmp_path / name):
        load_state(net(0), tmp_path / name)


CODE = """
import torch
from torch import nn
class Net(nn.Sequential):
    pass
def make():
    net = Net()
    net.add_module("conv1", nn.Conv2d(3, 4, 3))
    net.add_module("bn", nn.BatchNorm2d(4))
    net.add_module("flat", nn.Flatten())
    net.add_module("fc", nn.Linear(4, 2))
    return net
"""
SAVED: dict[str, Callable[[Any, nn.Module], Any]] = {
    "whole": lambda code, net: torch.save(net, "old net.pt"),
    "nested": lambda code, net: torch.save({"model": net, "args": code.Net, "epoch": 3}, "old net.pt"),
    "jit": lambda code, net: torch.jit.script(net).save("old net.pt"),
}


@pytest.mark.parametrize("kind", SAVED)
def test_the_command_of_the_hint_converts_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tmp_path / "its_net.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    code = importlib.import_module("its_net")
    torch.manual_seed(1)
    SAVED[kind](code, code.make())
    monkeypatch.delitem(sys.modules, "its_net")
    with pytest.raises(ModelError) as caught:
        load_state(net(0), tmp_path / "old net.pt")
    assert caught.value.hint is not None
    python, _, program = caught.value.hint.partition(" -c ")
    command = [python.split()[-1], "-c", *shlex.split(program)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    module = net(99)
    load_state(module, tmp_path / "old net.weights.pt")
    assert seed_of(module) == 1


def test_wrappers_of_parts_are_taken_off(tmp_path: Path) -> None:
    for wrapper in ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"):
        wrapped = {name.replace("conv1.", f"conv1.{wrapper}."): tensor for name, tensor in state(2).items()}
        torch.save({"state_dict": {f"net.{name}": tensor for name, tensor in wrapped.items()}}, tmp_path / "file.pt")
        module = net(1)
        said = load_state(module, tmp_path / "file.pt").said
        assert torch.equal(module.state_dict()["conv1.weight"], state(2)["conv1.weight"])
        assert f"`{wrapper}.`" in said


def test_arrays_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    torch.save({"state_dict": state(2), "losses": np.arange(3.0)}, tmp_path / "file.pt")
    assert "state_dict" in load_state(net(1), tmp_path / "file.pt").said


def in_two_files(folder: Path, *, index: str) -> Path:
    """A state in two files, and their index."""
    names = list(state(2))
    for number, part in enumerate((names[:3], names[3:])):
        save_file({name: state(2)[name] for name in part}, folder / f"model-{number}.safetensors")
    where = {name: f"model-{int(number > 2)}.safetensors" for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(index or json.dumps({"weight_map": where}))
    return folder / "model.safetensors.index.json"


def test_the_index_of_several_files_is_followed(tmp_path: Path) -> None:
    module = net(1)
    load_state(module, in_two_files(tmp_path, index=""))
    assert all(torch.equal(tensor, state(2)[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("index", "fact"),
    [
        ('{"weight_map": {"fc.bias": "../outside.safetensors"}}', "../outside.safetensors"),
        ('{"weight_map": {"fc.bias": "/etc/passwd"}}', "/etc/passwd"),
        ('{"weight_map": {"fc.bias": "model.safetensors.index.json"}}', "'model.safetensors.index.json'"),
        ('{"weight_map": {"fc.bias": 3}}', 3),
        ('{"weight_map": {"fc.bias": "gone.safetensors"}}', "gone.safetensors"),
        ('{"weight_map": [1]}', "weight_map"),
        ("[" * 100_000, "weight_map"),
        ("{}", "weight_map"),
    ],
)
def test_an_index_of_anything_else_is_refused(tmp_path: Path, index: str, fact: object) -> None:
    with refused(ModelError, fact):
        load_state(net(1), in_two_files(tmp_path, index=index))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda t: (100 * t).to(torch.int8), "int8"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "meta"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8"),
        (lambda t: (t / 0).to(torch.bfloat16), "finite"),
    ],
)
def test_tensors_that_are_not_the_models_numbers_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], fact: str
) -> None:
    torch.save({**state(2), "fc.weight": change(state(2)["fc.weight"])}, tmp_path / "file.pt")
    with refused(ModelError, fact, "fc.weight"):
        load_state(net(1), tmp_path / "file.pt")


def test_eight_bit_floats_are_read(tmp_path: Path) -> None:
    torch.save(
        {name: t.to(torch.float8_e4m3fn) if t.ndim > 1 else t for name, t in state(2).items()}, tmp_path / "f.pt"
    )
    module = net(1)
    load_state(module, tmp_path / "f.pt")
    assert torch.allclose(module.state_dict()["fc.weight"], state(2)["fc.weight"], atol=0.05)
