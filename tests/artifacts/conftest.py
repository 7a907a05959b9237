"""Exporters that go wrong, installed as a package of their own for the test and its children."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from plugin_packages import install

from edgeprune.artifacts.toolkits import Toolkits

PLUGINS = """
import os, signal, time
from edgeprune.artifacts.jobs import Converted
from edgeprune.artifacts.manifest import TensorSpec

class Base:
    suffix, precisions, runtime, packages, extra = ".bin", ("fp32", "int8"), None, (), "none"
    def load(self): pass
    def convert(self, program, outputs, calibration):
        for output in outputs:
            self.act(output)
            output.file.write_bytes(b"whole " + output.precision.encode())
            image = TensorSpec(name="x", shape=(1, 3, 8, 8), dtype="float32", layout="NCHW")
            answer = TensorSpec(name="y", shape=(1, 4), dtype="float32", layout="NC")
            yield Converted(weights_precision=output.precision, input=image, output=answer)

class Aborting(Base):
    name = "aborting"
    def act(self, output):
        output.file.write_bytes(b"ha")
        os.write(2, b"deep trouble in the toolkit\\n")
        os.abort()

class Raising(Base):
    name, suffix = "raising", ".raised.bin"
    def act(self, output):
        output.file.write_bytes(b"ha")
        print("chatter on stdout")
        os.write(1, b"chatter from C++\\n")
        raise ValueError("cannot convert a flux capacitor")

class Hungry(Base):
    name = "hungry"
    def act(self, output):
        raise MemoryError("no room for 9 TB")

class Killed(Base):
    name = "killed"
    def act(self, output):
        os.kill(os.getpid(), signal.SIGKILL)

class Leaving(Base):
    name = "leaving"
    def act(self, output):
        os._exit(7)

class Sleeping(Base):
    name = "sleeping"
    def act(self, output):
        time.sleep(600)

class Chatty(Base):
    name = "chatty"
    def act(self, output):
        print('{"kind": "end"}', flush=True)
        os.write(1, b"x" * 200_000)

class Forgetful(Base):
    name, jobs = "forgetful", 0
    def act(self, output):
        Forgetful.jobs += output.precision == "fp32"
        if Forgetful.jobs > 1:
            raise ValueError("one job is all I can do")

class Littering(Base):
    name = "littering"
    def act(self, output):
        import pathlib, tempfile
        folder = pathlib.Path(tempfile.gettempdir())
        print("here:", sorted(path.name for path in folder.iterdir() if path.name[0] != "."))
        (folder / "litter").mkdir(exist_ok=True)
        (folder / "more litter").touch()
        if output.file.with_name("fail").exists():
            raise ValueError("told to fail")

class Missing(Base):
    name = "missing"
    packages, extra = ("no_such_toolkit",), "nothing"
    def load(self): import no_such_toolkit
"""
NAMES = [
    "Aborting",
    "Raising",
    "Hungry",
    "Killed",
    "Leaving",
    "Sleeping",
    "Chatty",
    "Forgetful",
    "Littering",
    "Missing",
]
ENTRY_POINTS = "[edgeprune.exporters]\n" + "".join(f"{name.lower()} = strange_exporters:{name}\n" for name in NAMES)


@pytest.fixture(scope="module", autouse=True)
def _no_children_but_the_tests_own(all_toolkits: Toolkits) -> None:
    Toolkits.end(all_toolkits)


@pytest.fixture
def strange_exporters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package beside ours, found by its entry points as anybody's would be."""
    site = tmp_path / "site"
    install(site, "strange", PLUGINS, ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
    return site
