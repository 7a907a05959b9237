"""What a reader sees first: how much faster, at what accuracy, which files are proven, and the outcome of it all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from edgeprune.report import text
from edgeprune.report.data import FileLine, ReportData, Standing

State = Literal["good", "bad", "warn", "plain"]


@dataclass(frozen=True)
class Card:
    """One large figure with what stands behind it."""

    label: str
    value: str
    detail: str
    state: State


@dataclass(frozen=True)
class Outcome:
    """The run's outcome in a word, and why."""

    word: Literal["PASS", "FAIL", "NOT PROVEN"]
    why: str

    @property
    def state(self) -> State:
        states: dict[str, State] = {"PASS": "good", "FAIL": "bad", "NOT PROVEN": "warn"}
        return states[self.word]


def outcome(data: ReportData) -> Outcome:
    """PASS only when every exported file was checked and passed and the target, where there is one, was met."""
    failed = [line.file for line in data.files if line.standing == "failed"]
    noisy = [line.file for line in data.files if line.standing == "uncertain"]
    few = [line.file for line in data.files if line.standing == "undecided"]
    unproven = [line.file for line in data.files if line.standing == "unproven"]
    missed = data.target is not None and not data.target.met
    if failed or missed:
        why = [f"{len(failed)} of {_files(len(data.files))} failed: {', '.join(failed)}"] if failed else []
        why += [f"target {data.target.target} missed: {data.target.reached}"] if missed and data.target else []
        said = "; ".join(why)
        return Outcome("FAIL", said[0].upper() + said[1:])
    if noisy:
        return Outcome("NOT PROVEN", f"The device was too noisy to tell for {', '.join(noisy)}")
    if few:
        return Outcome("NOT PROVEN", f"The test images are too few to tell for {', '.join(few)}")
    if not data.files:
        return Outcome("NOT PROVEN", "No file was exported")
    if unproven:
        return Outcome("NOT PROVEN", f"No gate was held on {', '.join(unproven)}")
    return Outcome("PASS", f"Every gate held on {_files(len(data.files))}")


def sentence(data: ReportData) -> str:
    """The run in one line."""
    parts = [] if data.pruned else ["Not pruned"]
    if data.against_original is not None:
        parts.append(f"{_speed(data)} on {_device(data)}")
    original, final = data.stage("original"), data.final
    if original and final and original.accuracy is not None and final.accuracy is not None:
        change = text.change(data.metric, original.accuracy, final.accuracy, final.change)
        before, after = (text.metric_figure(data.metric, point.accuracy) for point in (original, final))
        parts.append(f"{data.metric.name} {before} \u2192 {after} ({final.stage}, {change})")
    parts.append(_files_said(data.files))
    return "; ".join(parts)


def cards(data: ReportData) -> tuple[Card, ...]:
    found = (_speed_card(data), _accuracy_card(data), _files_card(data), _target_card(data), _fastest_card(data))
    return tuple(card for card in found if card is not None)


def _speed(data: ReportData) -> str:
    ratio = data.against_original
    if ratio is None:
        return text.NONE
    claim = text.speed_claim(ratio)
    if claim == "slower":
        return f"{text.ratio(ratio)} of the original's latency: slower"
    return f"{text.speedup_number(ratio)} {claim}" if claim == "faster" else claim


def _speed_card(data: ReportData) -> Card | None:
    ratio = data.against_original
    if not data.pruned:
        original = data.stage("original")
        latency = original.latency if original else None
        if latency is None:
            return None
        detail = f"{text.latency(latency)}; as it is, fp32. Nothing was pruned"
        return Card("Original model", text.seconds(latency.median_s), detail, "plain")
    if ratio is None:
        return Card("Latency", text.NONE, "no interleaved measurement of original and pruned", "warn")
    claim = text.speed_claim(ratio)
    value = {
        "faster": f"{text.speedup_number(ratio)} faster",
        "slower": f"{text.speedup_number(ratio)}: slower",
    }.get(claim, claim)
    low, high = text.speedup_interval(ratio)
    detail = (
        f"{text.latency(ratio.numerator)}; original {text.latency(ratio.denominator)}. "
        f"Speed-up {low:.2f}\u2013{high:.2f}\u00d7 (95 %), {ratio.quality}"
    )
    state: State = "bad" if claim == "slower" else "good" if claim == "faster" and ratio.quality == "stable" else "warn"
    return Card("Pruned model", value, detail, state)


def _accuracy_card(data: ReportData) -> Card:
    original, final = data.stage("original"), data.final
    if final is None:
        return Card(
            data.metric.title, "not known", f"original {text.accuracy(original)}; no later stage was tested", "warn"
        )
    detail = f"{final.stage}: {text.accuracy(final)}"
    if original is not None and original.accuracy is not None and final.accuracy is not None:
        before, after = (text.metric_figure(data.metric, point.accuracy) for point in (original, final))
        value = f"{before.removesuffix(' %')} \u2192 {after}"
        change = text.change(data.metric, original.accuracy, final.accuracy, final.change)
        detail = f"{change}. {detail}; original: {text.accuracy(original)}"
    else:
        value = text.metric_figure(data.metric, final.accuracy)
    return Card(data.metric.title, value, detail, "plain")


def _files_card(data: ReportData) -> Card:
    stands = Counter(line.standing for line in data.files)
    passed = stands["proven"] + stands["reference"]
    value = f"{passed} of {len(data.files)} pass"
    state: State = "bad" if stands["failed"] else "good" if data.files and passed == len(data.files) else "warn"
    return Card("Exported files", value if data.files else "none", _files_said(data.files), state)


def _target_card(data: ReportData) -> Card | None:
    if data.target is None:
        return None
    sign = f"{text.MARK['pass']} met" if data.target.met else f"{text.MARK['fail']} missed"
    reached = f"reached {data.target.reached}"
    detail = f"{reached}; {data.target.why}" if data.target.why else reached
    return Card("Target", f"{data.target.target} {sign}", detail, "good" if data.target.met else "bad")


def _fastest_card(data: ReportData) -> Card | None:
    """The fastest file that is proven on the device and was timed against the original."""
    timed = [
        (line.verdict.against_original, line)
        for line in data.files
        if line.standing == "proven" and line.verdict is not None and line.verdict.against_original is not None
    ]
    if not timed:
        return None
    ratio, line = min(timed, key=lambda pair: pair[0].ratio)
    if text.speed_claim(ratio) != "faster":
        return None
    detail = f"{line.file}: {text.latency(ratio.numerator)}; of the original: {text.ratio(ratio)}"
    value = f"{text.speedup_number(ratio)} faster"
    return Card("Fastest proven file", value, detail, "good" if ratio.quality == "stable" else "warn")


def _files_said(files: tuple[FileLine, ...]) -> str:
    if not files:
        return "no file exported"
    stands = Counter(line.standing for line in files)
    said: dict[Standing, str] = {
        "proven": "proven on the device",
        "reference": "pass by reference execution, no device",
        "failed": "failed",
        "uncertain": "too noisy to tell",
        "undecided": "with too few test images to tell",
        "unproven": "not proven",
    }
    kinds = ", ".join(f"{stands[kind]} {words}" for kind, words in said.items() if stands[kind])
    return f"{_files(len(files))}: {kinds}"


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"


def _device(data: ReportData) -> str:
    if data.device is None:
        return data.verdict.device if data.verdict else "a device that is not named"
    return f"{data.device.id} ({data.device.cpu or data.device.model})"
