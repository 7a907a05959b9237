"""What models are measured on: a device with a runtime, the exporter of its files, and the latency table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.latency.pairs import measure_ratio
from edgeprune.latency.protocol import measure
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Precision, Runtime

NOISY_RETRIES = 3


@dataclass(frozen=True)
class Bench:
    """Measures whole files, and carries what filling the table takes.

    `granularity` and `minimum` are those of the widths that may be chosen.
    """

    device: Device
    table: LatencyTable
    runtime: Runtime
    exporter: MeasuringExporter  # of that runtime
    threads: int
    protocol: str
    granularity: int
    minimum: int
    progress: Progress = SILENT

    @property
    def precision(self) -> Precision:
        """Of the files that are measured."""
        return self.exporter.precision

    def setting(self, build: str) -> Setting:
        """Where the table keeps what is measured here with a build of the runtime."""
        return Setting(self.device.facts().fingerprint, build, self.threads, self.precision)

    def measure(self, file: Path) -> Measurement:
        """The latency of one file, by the protocol."""
        return measure(self.device, [file], runtime=self.runtime, threads=self.threads, protocol=self.protocol)[0]

    def ratio(self, file: Path, original: Path) -> Ratio:
        """Latency over the original's, measured again while the device is noisy (the last word is the last try's)."""
        for _ in range(NOISY_RETRIES):
            ratio = measure_ratio(
                self.device, file, original, runtime=self.runtime, threads=self.threads, protocol=self.protocol
            )
            if ratio.quality == "stable":
                break
            self.progress.say(f"{ratio.quality}: {ratio.evidence}")
        return ratio
