"""Models whose copies are another model are refused at load, by what differs; what can be made plain is, and said."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import odd_nets
import pytest
import torch
from facts import refused
from torch import nn
from torch.nn.utils import parametrize

import edgeprune
from edgeprune.errors import ModelError
from edgeprune.models.checkpoint import load_state, save_state
from edgeprune.models.copies import check_copies
from edgeprune.models.load import build, load
from edgeprune.models.spec import Model
from edgeprune.tasks.objective import CLASSIFYING

FILE = Path(odd_nets.__file__)
SIZE = (3, 12, 12)


def loaded(name: str, **options: object) -> Model:
    return load(f"{FILE}:{name}", input_size=SIZE, **options)


@pytest.mark.parametrize("name", ["plain", "seeded_order", "buffer_order", "KeepingDetached", "Remembering"])
def test_what_is_itself_passes(name: str) -> None:
    assert check_copies(loaded(name)) == []


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("numpy_order", "order"),
        ("python_order", "order"),
        ("torch_order", "order"),
        ("unseeded_order", "order"),
        ("system_order", "order"),
        ("hidden_buffer", "noise"),
        ("timed", "bn.eps"),
        ("random_gain", ""),
        ("random_width", "fc.0.weight"),
        ("hook_on_original", ""),
        ("patched_forward", ""),
        ("Noisy", ""),
        ("Dropping", ""),
        ("NumpyNoise", ""),
        ("Counting", ""),
        ("Drifting", "mean"),
        ("Mixing", ""),
        ("of_the_batch", ""),
        ("Auxiliary", "training mode"),
        ("AuxiliaryDict", "training mode"),
        ("InPlaceInTraining", "training mode"),
        ("BreaksInTraining", "training mode"),
        ("Keeping", "kept"),
        ("WithoutGradients", "conv1"),
        ("NothingTrains", "requires_grad"),
        ("Uncopyable", "copied"),
        ("renaming_its_state", "state_dict"),
    ],
)
def test_copies_that_are_another_model_are_refused(name: str, place: str) -> None:
    model = loaded(name)
    with pytest.raises(ModelError) as caught:
        check_copies(model)
    assert place in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["InPlace", "ExitsInForward", "exits", "raises_base", "scripted", "traced_part", "on_meta"]
)
def test_what_cannot_be_loaded_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        edgeprune.load(f"{FILE}:{name}", input_size=SIZE)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("quantized", "fc"),
        ("Adjacent", "edges"),
        ("Extra", "_extra_state"),
        ("under_inference_mode", "inference_mode"),
    ],
)
def test_weights_that_are_no_plain_tensors_are_refused(name: str, place: str) -> None:
    with refused(ModelError, place):
        loaded(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Squeezing", "squeeze"),
        ("OfTwoInputs", "forward"),
        ("returning_nothing", "`return`"),
        ("returning_a_tuple", "tuple"),
    ],
)
def test_what_is_no_classifier_is_told_what_to_do(name: str, advice: str) -> None:
    with refused(ModelError, advice):
        loaded(name)


def test_what_is_no_classifier_is_refused_by_its_task() -> None:
    model = loaded("OfOnePixel")
    with refused(ModelError, "task", ".flatten(1)"):
        CLASSIFYING.check(model.module(model.example_input(3)), torch.arange(3))


def test_a_tensor_in_a_tuple_is_taken_out() -> None:
    model = loaded("AnsweringATuple")
    assert isinstance(model.module(model.example_input(3)), torch.Tensor)
    assert check_copies(model) == []
    again = build(model.spec)
    again.load_state_dict(model.module.state_dict())
    assert torch.equal(again(model.example_input(3)), model.module(model.example_input(3)))


def test_what_a_factory_sets_for_the_whole_process_goes_back() -> None:
    def settings() -> list[object]:
        return [
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
            list(warnings.filters),
            Path.cwd(),
            list(sys.argv),
            set(sys.path),
        ]

    before = settings()
    assert check_copies(loaded("setting_everything")) == []
    now = settings()
    assert now[:-1] == before[:-1]
    assert now[-1] == before[-1] | {"/nowhere"}
    sys.path.remove("/nowhere")


def test_what_is_not_trained_need_not_be_trainable() -> None:
    assert check_copies(loaded("NothingTrains"), trains=False)


def test_frozen_layers_are_said() -> None:
    assert "conv1.weight" in check_copies(loaded("frozen_backbone"))[0]


PARAMETRIZED = ["weight_normed", "spectral_normed", "parametrized", "masked"]
MADE_PLAIN = ["compiled", "compiled_in_place", "parallel", "half", "double", "mixed", "Lazy", *PARAMETRIZED]


@pytest.mark.parametrize("name", MADE_PLAIN)
def test_what_can_be_made_plain_is_and_said(name: str) -> None:
    model = loaded(name)
    assert len(model.said) == 1
    assert check_copies(model) == []
    assert set(model.module.state_dict()) == set(odd_nets.Net().state_dict())
    assert {tensor.dtype for tensor in model.module.parameters()} == {torch.float32}
    assert not any(parametrize.is_parametrized(part) for part in model.module.modules())


@pytest.mark.parametrize("name", PARAMETRIZED)
def test_a_checkpoint_of_a_parametrized_model_is_loaded_before_it_is_made_plain(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    trained: nn.Module = getattr(odd_nets, name)()
    with torch.no_grad():
        trained(torch.randn(8, *SIZE))
        for parameter in trained.parameters():
            parameter.mul_(1.5)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    model = loaded(name, checkpoint=tmp_path / "trained.pth")
    x = model.example_input(2)
    with torch.no_grad():
        assert torch.allclose(model.module(x), trained.eval()(x), atol=1e-5)
    save_state(tmp_path / "plain.safetensors", model.module)
    again = build(model.spec)
    load_state(again, tmp_path / "plain.safetensors")
    with torch.no_grad():
        assert torch.equal(again(x), model.module(x))
    assert (
        loaded(name, checkpoint=tmp_path / "plain.safetensors").module.state_dict().keys() == again.state_dict().keys()
    )


def test_generators_are_left_as_they_were() -> None:
    import random

    import numpy as np

    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    check_copies(loaded("plain"))
    assert (random.random(), np.random.rand()) == expected


def test_torchvisions_models_are_factories_here_too() -> None:
    """In this environment torchvision's own library may not fit torch; the mend serves every factory."""
    model = load("torchvision.models:squeezenet1_1", arguments={"num_classes": 5}, input_size=(3, 64, 64))
    assert model.spec.num_classes == 5
    assert check_copies(model) == []
    assert "torchvision" in sys.modules
