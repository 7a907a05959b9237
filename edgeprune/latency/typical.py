"""Typical tables: what was measured on one device of a kind, to plan for that kind without having one at hand.

They come with a device's profile, and a device id such as `profile:lab-cortex-a76` means them. Nothing runs on such a
device: what they give is a prediction, for a device that may be slower or faster than the one that was measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import platformdirs

from device_profiles import DeviceProfile, ProfileError, find_profile, profile_files, read_profile
from edgeprune.devices.discovery import PROFILE
from edgeprune.errors import UsageError
from edgeprune.latency.exchange import import_rows
from edgeprune.latency.in_place import model_key
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.predictor import Predictor, predictor_of, unpruned_run
from edgeprune.latency.table import LatencyTable
from edgeprune.recipe import Precision
from edgeprune.space.units import Layer


@dataclass(frozen=True)
class Typical:
    """A kind of device, by the tables of its profile."""

    id: str
    profile: DeviceProfile
    table: LatencyTable

    def predictor(
        self,
        layers: Sequence[Layer],
        sizes: Mapping[str, int],
        *,
        runtime: str,
        threads: int,
        precision: Precision = "fp32",
    ) -> tuple[Predictor, Measurement]:
        """The predictor for a model, and the unpruned model's latency as it was measured for the table.

        Raises:
            UsageError: the tables lack this model, runtime, number of threads or precision (layers that other models
                share do not make up for that: what a layer takes depends on what the runtime fuses with it).
        """
        base = model_key(layers, sizes)
        found = [
            (run.measurement.after.time, setting.build, setting, run.measurement)
            for setting in self.table.settings()
            if (setting.threads, setting.precision) == (threads, precision)
            if setting.build.startswith(f"{runtime}-")
            if (run := unpruned_run(self.table, setting, base)) is not None
        ]
        if not found:
            held = ", ".join(model for table in self.profile.tables for model in table.models)
            known = ", ".join(sorted({setting.precision for setting in self.table.settings()}))
            raise UsageError(
                f"the typical tables of {self.profile.name} hold no whole run of this model as {precision} file "
                f"in {runtime} with {threads} thread{'' if threads == 1 else 's'}; they hold {held} ({known})",
                where=self.id,
                hint="with such a device at hand: edgeprune probe MODEL --device ID; its rows travel with "
                "`edgeprune table export`",
            )
        _, _, setting, measurement = max(found, key=lambda entry: entry[:2])  # the newest
        predictor = predictor_of(self.table, setting, layers, sizes)
        said = f"{predictor.basis}; a typical table of {self.profile.name}, never measured on yours"
        return replace(predictor, basis=said), measurement


def is_typical(id: str) -> bool:
    """Whether a device id means a profile's tables, not a device."""
    return id.startswith(PROFILE)


def open_typical(id: str) -> Typical:
    """Open the tables of a profile, by `profile:` and its file's name.

    Raises:
        UsageError: there is no such profile, it has no tables, or one is missing or damaged.
    """
    try:
        file = find_profile(id.removeprefix(PROFILE))
        profile = read_profile(file)
    except ProfileError as error:
        raise UsageError(str(error), where=id) from error
    if not profile.tables:
        others = [name for name, other in profile_files().items() if read_profile(other).tables]
        raise UsageError(
            f"the profile of {profile.name} has no typical table",
            where=str(file),
            hint=f"profiles that have one: {', '.join(others)}; or probe such a device, `edgeprune table export` its "
            "rows, and name the file under [[tables]] of a profile of your own",
        )
    files = [file.parent / table.file for table in profile.tables]
    if missing := next((path for path in files if not path.is_file()), None):
        raise UsageError(f"a typical table of {profile.name} is missing", where=str(missing))
    return Typical(id, profile, _table(file.stem, files))


def _table(name: str, files: Sequence[Path]) -> LatencyTable:
    """The rows of all files as a table in the user's cache, made once for their content."""
    content = sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()
    folder = Path(platformdirs.user_cache_dir("edgeprune")) / "typical"
    path = folder / f"{name}-{content[:16]}.sqlite"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        made = LatencyTable(part)
        for file in files:
            import_rows(made, file)
        part.replace(path)
    return LatencyTable(path, read_only=True)
