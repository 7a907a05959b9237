"""Sample data built from the real types: ResNet-56 on CIFAR-10, pruned to half its latency on this CPU."""

from __future__ import annotations

import random

from edgeprune.artifacts.manifest import Delegation, Manifest, TensorSpec
from edgeprune.devices.base import DeviceFacts
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.measurement import Conditions, Measurement, Ratio, RuntimeBuild
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.report.data import (
    Attempt,
    Epoch,
    LayerRow,
    MergeFacts,
    ReportData,
    StagePoint,
    TargetOutcome,
    operation_text,
)
from edgeprune.verify.shipping import files_to_ship
from edgeprune.verify.verdict import Check, FileVerdict, Verdict

PREPROCESSING = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RUNTIME = RuntimeBuild(name="litert", version="2.3.0", sha256="9f8e7d6c5b4a" + "0" * 52)
RUNTIMES = {"tflite": "litert 2.3.0", "pte": "executorch 1.4.1", "onnx": "onnxruntime 1.31.1"}
DEVICE = DeviceFacts(
    id="local",
    kind="local",
    model="KVM virtual machine",
    cpu="AMD EPYC 7B13",
    abi="x86_64",
    os="Linux 6.8.0, glibc 2.36",
    cores=2,
    memory_bytes=25_276_514_304,
    cpu_features=("avx2", "fma"),
    runtimes={"litert": "2.3.0", "executorch": "1.4.1"},
)


def measurement(
    median_ms: float, *, file: str = "model.tflite", quality: str = "stable", count: int = 200
) -> Measurement:
    rng = random.Random(f"{median_ms} {file}")
    samples = sorted(median_ms * 1e-3 * (1 + abs(rng.gauss(0, 0.03)) - 0.02) for _ in range(count))
    shuffled = rng.sample(samples, len(samples))
    middle = samples[len(samples) // 2]
    return Measurement(
        file=file,
        device=DEVICE.fingerprint,
        runtime=RUNTIME,
        threads=1,
        samples_s=tuple(shuffled),
        median_s=middle,
        p90_s=samples[int(0.9 * len(samples))],
        low_s=middle * 0.99,
        high_s=middle * 1.012,
        quality=quality,
        evidence="no frequency change, 0.1 s steal, halves differ by 0.4 %",
        before=Conditions(time=1_795_164_000.0, load_1min=0.42),
        after=Conditions(time=1_795_164_030.0, load_1min=0.98),
        peak_memory_bytes=31_000_000,
    )


def ratio(numerator_ms: float, denominator_ms: float, **keywords: str) -> Ratio:
    a, b = measurement(numerator_ms, **keywords), measurement(denominator_ms, file="original.tflite")
    value = a.median_s / b.median_s
    return Ratio(
        ratio=value,
        low=value * 0.986,
        high=value * 1.013,
        quality=a.quality,
        evidence="25 interleaved pairs, both stable",
        numerator=a,
        denominator=b,
    )


def layer_table() -> tuple[LayerRow, ...]:
    """ResNet-56: three stages of nine blocks; the inner channels of each block are thinned."""
    rng = random.Random(56)
    rows = [_row("conv1", 3, 16, 3, 16, 32)]
    for stage, (width, side) in enumerate(((16, 32), (32, 16), (64, 8)), start=1):
        for block in range(9):
            inner = max(4, int(width * rng.uniform(0.25, 0.9)))
            rows.append(_row(f"layer{stage}.{block}.conv1", width, width, width, inner, side))
            rows.append(_row(f"layer{stage}.{block}.conv2", width, width, inner, width, side))
    return tuple(rows)


def _row(name: str, in_before: int, out_before: int, in_after: int, out_after: int, side: int) -> LayerRow:
    before = OpSignature("conv2d", in_before, out_before, side, side, (3, 3), (1, 1), (1, 1), function="relu")
    after = before.with_channels(in_after, out_after)
    return LayerRow(
        name=name,
        operation=operation_text(before),
        width_before=out_before,
        width_after=out_after,
        inputs_before=in_before,
        inputs_after=in_after,
        cost_before_s=4e-6 + before.macs * 1.8e-11,
        cost_after_s=4e-6 + after.macs * 1.8e-11,
        macs_before=before.macs,
        macs_after=after.macs,
    )


def manifest(format_: str, precision: str, size: int, **keywords: object) -> Manifest:
    suffix = {"tflite": ".tflite", "pte": ".pte", "coreml": ".mlpackage", "onnx": ".onnx"}[format_]
    integer = precision == "int8" and format_ == "tflite"
    dtype = "int8" if integer else "float32"
    quant = {"scale": 0.0186, "zero_point": -3} if integer else {}
    return Manifest.model_validate(
        {
            "format": format_,
            "precision": precision,
            "weights_precision": precision,
            "file": f"model_{precision}{suffix}",
            "sha256": f"{size:064x}",
            "size_bytes": size,
            "input": TensorSpec(name="input", shape=(1, 3, 32, 32), dtype=dtype, layout="NCHW", **quant),
            "output": TensorSpec(name="output", shape=(1, 10), dtype=dtype, layout="NC", **quant),
            "preprocessing": PREPROCESSING,
            "labels": LABELS,
            "reference": "reference.safetensors",
            "delegation": Delegation(backend="XNNPACK", delegated=86, outside=1, outside_operators={"MEAN": 1})
            if format_ in ("tflite", "pte")
            else None,
            "toolkit": {"litert-torch": "0.10.0"},
            "seconds": 21.4,
            **keywords,
        }
    )


def file_verdict(of: Manifest, latency_ms: float | None = None, checks: tuple[Check, ...] = ()) -> FileVerdict:
    if not checks:
        checks = int8_checks() if of.precision == "int8" else float_checks(of.precision)
    return FileVerdict(
        file=of.file,
        format=of.format,
        precision=of.precision,
        executed_on="reference execution, no device" if of.format == "coreml" else f"local, {RUNTIMES[of.format]}",
        checks=checks,
        latency=measurement(latency_ms, file=of.file) if latency_ms else None,
        against_original=ratio(latency_ms, 2.71, file=of.file) if latency_ms else None,
    )


def float_checks(precision: str) -> tuple[Check, ...]:
    """As verify names them; only fp32 in the runtime that was pruned for has a latency gate."""
    sqnr, limit = (121.3, 100.0) if precision == "fp32" else (64.8, 45.0)
    return (
        _held("SQNR", sqnr, "dB", limit, "the file's outputs on 16 reference images, against the float model's"),
        _told("top-1 agreement", 1.0, "share", "same class on 10000 of 10000 test images"),
        _told("top-1 accuracy", 0.931, "share", "right on 9310 of 10000 test images"),
        _told("accuracy drop against the original", 0.003, "share", "93.40 % before, 93.10 % in the file"),
        _told("file size", 1_780_000, "bytes", "what has to be shipped"),
    )


def int8_checks(*, accuracy_fails: bool = False) -> tuple[Check, ...]:
    drop, said = (0.0121, "93.10 % before, 91.89 % in the file") if accuracy_fails else (0.0018, "93.10 %, 92.92 %")
    return (
        _told("SQNR", 31.7, "dB", "int8 is judged by agreement and accuracy"),
        _held("top-1 agreement", 0.9872, "share", 0.97, "same class on 9872 of 10000 test images"),
        _held("accuracy drop against the float model", drop, "share", 0.005, said, passed=not accuracy_fails),
        _told("operators outside the delegate", 1 / 87, "share", "1 of 87 operators run outside XNNPACK: MEAN (1)"),
    )


def latency_check(*, uncertain: bool = False) -> Check:
    """A limit that is met, or missed on a noisy device."""
    value = 0.56 if uncertain else 0.498
    check = _held("latency", value, "x", 0.515, "interleaved with the original", passed=not uncertain)
    return check.model_copy(update={"uncertain": uncertain})


def few_images() -> Check:
    """A gate that eight images cannot tell."""
    held = _held("top-1 agreement", 1.0, "share", 0.97, "same class on 8 of 8 test images")
    return held.model_copy(update={"outcome": "undecided", "interval": (0.6756, 1.0)})


def _held(name: str, value: float, unit: str, limit: float, why: str, *, passed: bool = True) -> Check:
    return Check(name=name, value=value, unit=unit, limit=limit, outcome="pass" if passed else "fail", why=why)


def _told(name: str, value: float, unit: str, why: str) -> Check:
    return Check(name=name, value=value, unit=unit, limit=None, outcome="info", why=why)


def sample(**changes: object) -> ReportData:
    """One whole run; keywords replace fields."""
    tflite, int8 = manifest("tflite", "fp32", 1_780_000), manifest("tflite", "int8", 531_000)
    pte, pte8 = manifest("pte", "fp32", 1_820_000), manifest("pte", "int8", 566_000)
    coreml, onnx = manifest("coreml", "fp16", 910_000), manifest("onnx", "fp32", 1_760_000)
    speed = ratio(1.35, 2.71)
    files = (
        file_verdict(tflite, 1.35, (*float_checks("fp32"), latency_check())),
        file_verdict(int8, 0.71),
        file_verdict(pte, 1.52),
        file_verdict(pte8, 0.83),
        file_verdict(coreml),
        file_verdict(onnx, 1.44),
    )
    tree: dict[str, object] = {
        "title": "resnet56 (CIFAR-10) to 0.5x on local",
        "spec": ModelSpec(
            source="examples/cifar.py:resnet56",
            input_size=(3, 32, 32),
            num_classes=10,
            preprocessing=PREPROCESSING,
            labels=LABELS,
            versions={"torch": "2.13.0"},
        ),
        "device": DEVICE,
        "recipe": '[model]\nfactory = "cifar.py:resnet56"\n[prune]\ntarget = "0.5x"\n',
        "target": TargetOutcome(target="0.5x", reached="0.498x", met=True, why="within 3 % of the target"),
        "stages": (
            StagePoint(
                stage="original",
                accuracy=0.934,
                images=10000,
                latency=speed.denominator,
                macs=126_550_000,
                parameters=855_770,
            ),
            StagePoint(
                stage="pruned",
                accuracy=0.612,
                images=10000,
                latency=speed.numerator,
                macs=58_300_000,
                parameters=441_000,
            ),
            StagePoint(
                stage="tuned",
                accuracy=0.931,
                images=10000,
                latency=speed.numerator,
                macs=58_300_000,
                parameters=441_000,
            ),
            StagePoint(
                stage="merged",
                accuracy=0.931,
                images=10000,
                change=(-0.0062, 0.0002),
                latency=measurement(1.35, file="merged"),
                macs=58_300_000,
                parameters=438_000,
            ),
            StagePoint(
                stage="tflite int8",
                accuracy=0.929,
                images=10000,
                latency=measurement(0.71),
                macs=58_300_000,
                parameters=438_000,
            ),
        ),
        "against_original": speed,
        "layers": layer_table(),
        "attempts": (
            Attempt(step=1, predicted_s=1.35e-3, target_s=1.352e-3, ratio=ratio(1.49, 2.71), within_tolerance=False),
            Attempt(step=2, predicted_s=1.24e-3, target_s=1.355e-3, ratio=ratio(1.41, 2.71), within_tolerance=False),
            Attempt(step=3, predicted_s=1.19e-3, target_s=1.355e-3, ratio=speed, within_tolerance=True),
        ),
        "tolerance": 0.03,
        "tuning": tuple(
            Epoch(
                epoch=e,
                loss=1.4 / e**0.7,
                train_accuracy=0.95 - 0.25 / e,
                validation_accuracy=0.932 - 0.2 / e,
                lr=0.05 * (1 - e / 21),
                seconds=38.5,
            )
            for e in range(1, 21)
        ),
        "merge": MergeFacts(
            merged=tuple(f"layer{i}" for i in range(55)),
            skipped={"fc": "no batch norm follows"},
            largest_difference=3.2e-6,
            limit=1e-4,
            passed=True,
            checked_on="8 random inputs, float32",
        ),
        "verdict": Verdict(
            device="local",
            test_images=10000,
            accuracy={"original": 0.934, "pruned": 0.612, "tuned": 0.931, "merged": 0.931},
            files=files,
            shipping=files_to_ship(files),
        ),
        "manifests": (tflite, int8, pte, pte8, coreml, onnx),
        "versions": {"edgeprune": "0.1.0", "torch": "2.13.0", "litert-torch": "0.10.0"},
        "seed": 0,
        "created": "2026-11-20T08:00:00Z",
        "timings": {
            "load": 2.1,
            "probe": 141.0,
            "prune": 388.0,
            "tune": 771.0,
            "merge": 3.3,
            "export": 204.0,
            "verify": 95.0,
        },
        "notes": ("Core ML: reference execution, no device.",),
    }
    return ReportData.model_validate({**tree, **changes})
