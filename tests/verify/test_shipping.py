"""The file to ship: what holds whatever was measured, and what is said in plain cases."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.latency.measurement import Conditions, Measurement, Ratio, RuntimeBuild
from edgeprune.verify.shipping import files_to_ship, ratio_of
from edgeprune.verify.verdict import NOWHERE, SIZE, Check, FileVerdict, Missing, Outcome, Shipping

BUILD, NOW = RuntimeBuild(name="litert", version="2.3.0", sha256="0" * 64), Conditions(time=0.0)


def measurement(seconds: float) -> Measurement:
    return Measurement(
        file="m",
        device="f",
        runtime=BUILD,
        threads=1,
        samples_s=(seconds,),
        median_s=seconds,
        p90_s=seconds,
        low_s=seconds,
        high_s=seconds,
        quality="stable",
        evidence="quiet",
        before=NOW,
        after=NOW,
    )


def ratio(value: float, *, half: float = 0.01, quality: str = "stable") -> Ratio:
    """With an interval of this share on either side, on a logarithmic scale."""
    return Ratio.model_validate(
        {
            "ratio": value,
            "low": value / (1 + half),
            "high": value * (1 + half),
            "quality": quality,
            "evidence": "quiet",
            "numerator": measurement(value * 1e-3),
            "denominator": measurement(1e-3),
        }
    )


def file(
    name: str, *, size: float = 1e6, against: Ratio | None = None, gate: Outcome | None = "pass", on: str = "local"
) -> FileVerdict:
    """A file with one gate on its parity (none where that is None)."""
    suffix = name.rpartition(".")[2]
    checks = [Check(name=SIZE, value=size, unit="bytes", limit=None, outcome="info", why="")]
    if gate is not None:
        checks.append(Check(name="SQNR", value=120, unit="dB", limit=100, outcome=gate, why=""))
    return FileVerdict(
        file=name,
        format=suffix,
        precision="int8" if "int8" in name else "fp32",
        executed_on=on,
        checks=tuple(checks),
        against_original=against,
    )


def ships(*files: FileVerdict) -> Shipping:
    (one,) = files_to_ship(files)
    return one


@st.composite
def many_files(draw: Any) -> list[FileVerdict]:
    count = draw(st.integers(1, 6))
    outcomes = st.sampled_from(["pass", "pass", "pass", "fail", "undecided", "info"])
    known = st.one_of(st.none(), st.builds(ratio, st.floats(0.1, 2.0), half=st.floats(1e-3, 0.5)))
    return [
        file(
            f"{number}_{draw(st.sampled_from(['int8', 'fp32']))}.tflite",
            size=draw(st.integers(1, 5)),
            against=draw(known),
            gate=draw(outcomes),
            on=draw(st.sampled_from(["local", "local", NOWHERE])),
        )
        for number in range(count)
    ]


def surely_faster(a: FileVerdict, b: FileVerdict) -> bool:
    one, other = a.against_original, b.against_original
    return one is not None and other is not None and ratio_of(one, other)[2] < 1


@given(many_files())
def test_what_is_named_passes_nothing_is_surely_faster_and_all_that_is_smaller_is_surely_slower(
    files: list[FileVerdict],
) -> None:
    found = ships(*files)
    passing = [one for one in files if one.passes]
    assert (found.file is None) is (not passing)
    if found.file is None:
        assert all(one.file in found.why for one in files)
        return
    named = next(one for one in passing if one.file == found.file)
    assert not any(surely_faster(other, named) for other in passing)
    timed = [one for one in passing if one.against_original is not None]
    assert named in (timed or passing)
    size = named.checks[0].value
    for one in timed:
        if one.checks[0].value < size:
            assert any(surely_faster(other, one) for other in timed)


@given(many_files(), st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(files: list[FileVerdict], random: Any) -> None:
    other = list(files)
    random.shuffle(other)
    assert ships(*other).file == ships(*files).file
    assert {(one.file, one.than) for one in ships(*other).slower} == {
        (one.file, one.than) for one in ships(*files).slower
    }


@given(many_files())
def test_int8_is_called_slower_where_the_interval_says_so_and_only_there(files: list[FileVerdict]) -> None:
    told = {(one.file, one.than) for one in ships(*files).slower}
    assert told == {
        (a.file, b.file)
        for a in files
        for b in files
        if a.precision == "int8" and b.precision == "fp32" and surely_faster(b, a)
    }
    assert all(one.low > 1 for one in ships(*files).slower)


ratios = st.builds(ratio, st.floats(0.1, 3.0), half=st.floats(1e-4, 0.8))


@given(ratios, ratios)
def test_a_ratio_of_ratios_turns_round_and_is_wider_than_either(a: Ratio, b: Ratio) -> None:
    value, low, high = ratio_of(a, b)
    assert low <= value <= high
    assert math.isclose(value, a.ratio / b.ratio)
    turned = ratio_of(b, a)
    assert all(
        math.isclose(x, 1 / y) for x, y in zip((value, low, high), (turned[0], turned[2], turned[1]), strict=True)
    )
    assert math.log(high / low) >= max(math.log(one.high / one.low) for one in (a, b)) * (1 - 1e-9)


def test_the_fastest_that_passes_is_shipped_though_another_is_smaller() -> None:
    found = ships(file("fp32.tflite", against=ratio(0.5)), file("int8.tflite", size=1e5, against=ratio(0.6)))
    assert found.file == "fp32.tflite"
    (slower,) = found.slower
    assert (slower.file, slower.than) == ("int8.tflite", "fp32.tflite")
    assert slower.ratio == 0.6 / 0.5
    assert "0.600 ms against 0.500 ms, 1.20x (1.18-1.22)" in slower.words


def test_of_two_that_noise_does_not_tell_apart_the_smaller_is_shipped() -> None:
    slow = file("int8.tflite", size=1e5, against=ratio(0.52, half=0.05))
    found = ships(file("fp32.tflite", against=ratio(0.5, half=0.05)), slow)
    assert (found.file, found.slower) == ("int8.tflite", ())
    assert "fp32.tflite" in found.why


def test_a_file_that_a_steadier_one_beats_is_not_shipped_for_the_noise_of_the_fastest() -> None:
    noisy, steady = file("a.tflite", against=ratio(0.5, half=0.3)), file("b.tflite", against=ratio(0.51, half=0.001))
    small = file("c.tflite", size=1, against=ratio(0.56, half=0.01))
    assert not surely_faster(noisy, small)
    assert ships(noisy, steady, small).file == "a.tflite"  # as small as b, and a shade faster


def test_what_failed_is_not_shipped_however_fast() -> None:
    found = ships(file("fp32.tflite", against=ratio(0.5)), file("int8.tflite", against=ratio(0.2), gate="fail"))
    assert found.file == "fp32.tflite"
    assert "int8.tflite (SQNR fail)" in found.why


def test_where_none_passes_none_is_shipped_and_why_is_said() -> None:
    lost = Missing(file="int8.tflite", format="tflite", precision="int8", why="no memory").verdict
    found = ships(file("fp32.tflite", gate="undecided"), file("b.tflite", gate=None), lost)
    assert found.file is None
    for said in ("SQNR undecided", "no gate was held", "written fail"):
        assert said in found.why
    assert "no file" in found.words


def test_each_runtime_has_its_own() -> None:
    files = (file("a.tflite"), file("b.pte"), file("c.numbers", on=NOWHERE), file("d.mlpackage", on="no device"))
    found = {one.runtime: one.file for one in files_to_ship(files)}
    assert found == {"litert": "a.tflite", "executorch": "b.pte", "numbers": None, "coreml": "d.mlpackage"}
    assert [one.runtime for one in files_to_ship(files, first="executorch")][:2] == ["executorch", "litert"]
