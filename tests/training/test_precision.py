"""What is asked for is held against the processor, and what ran is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facts import refused
from listening import Listening
from pydantic import ValidationError
from toy_training import make_net

from edgeprune.data.split import Split
from edgeprune.recipe import TuneSection
from edgeprune.search.judge import AdaptedLoss
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import WHOLE
from edgeprune.training import precision
from edgeprune.training.loop import tune
from edgeprune.training.precision import Running, running

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="about training on a CPU")
PROCESSORS = {
    "zen 4": ("model name\t: AMD EPYC 9R14\nflags\t\t: fpu sse avx512f avx512_bf16\n", True),
    "sapphire rapids": ("model name\t: Xeon\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n", True),
    "skylake": ("model name\t: Xeon Gold\nflags\t\t: fpu sse avx512f avx512vl\n", False),
    "graviton 3": ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", True),
    "a53": ("processor\t: 0\nFeatures\t: fp asimd aes\n", False),
    "none": (None, False),
}


@pytest.fixture(params=PROCESSORS)
def native(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine that says this of itself; whether it computes in bfloat16."""
    text, native = PROCESSORS[request.param]
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(precision, "CPUINFO", file)
    return native


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(PROCESSORS["skylake"][0] or "")
    monkeypatch.setattr(precision, "CPUINFO", file)


def test_bf16_runs_where_the_cpu_has_it_and_else_fp32_does(native: bool) -> None:
    asked = running("bf16")
    assert asked.precision == ("bf16" if native else "fp32")
    assert bool(asked.why) != native
    assert asked.dtype == (torch.bfloat16 if native else None)
    assert running("auto") == Running("bf16" if native else "fp32")
    assert running("fp32") == Running("fp32")


def test_fp16_is_for_gpus() -> None:
    assert running("fp16").precision == "fp32"
    assert "fp16" in running("fp16").why


@ON_CPU
@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("asked", ["bf16", "fp16"])
def test_training_falls_back_tells_it_and_is_the_one_in_fp32(train: Split, validation: Split, asked: str) -> None:
    plain = TuneSection(epochs=1, batch_size=32, lr=0.05)
    heard, silent = Listening(), Listening()
    asking = plain.model_copy(update={"precision": asked})
    one = tune(make_net(), make_net(1), train, validation, asking, seed=0, snapshots=None, progress=heard)
    two = tune(make_net(), make_net(1), train, validation, plain, seed=0, snapshots=None, progress=silent)
    assert one.precision == two.precision == "fp32"
    assert [line for line in heard.said if line not in silent.said and "epoch 1" not in line] == [running(asked).why]
    for first, second in zip(one.module.parameters(), two.module.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.usefixtures("old")
def test_the_judge_computes_in_what_the_processor_has(validation: Split) -> None:
    net = make_net()
    structure = find_structure(net, torch.randn(2, 1, 8, 8))
    batches = list(validation.batches(60, seed=0))
    asked = AdaptedLoss(net, structure, batches, precision="bf16")
    assert asked.running.precision == "fp32"
    assert asked(WHOLE) == AdaptedLoss(net, structure, batches)(WHOLE)


def test_there_is_no_other_precision() -> None:
    with pytest.raises(ValidationError, match="auto"):
        TuneSection(precision="tf32")  # type: ignore[arg-type]


def test_a_recipe_names_what_it_may_be() -> None:
    from edgeprune.errors import RecipeError
    from edgeprune.recipe_file import parse_recipe

    with refused(RecipeError, "tune.precision"):
        parse_recipe({"model": {"factory": "resnet18"}, "data": {"source": "digits"}, "tune": {"precision": "tf32"}})
