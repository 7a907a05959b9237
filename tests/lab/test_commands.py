"""The commands of docs/devices.md, typed as a user would, on the ARM64 machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from machine import AdbServer, Machine

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_job import Done, edgeprune, inside, write_job

from edgeprune.devices.adb import open_adb
from edgeprune.devices.jobs import runtime_build
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.isolation import profile_of
from edgeprune.latency.tflite_writer import write_operation
from edgeprune.sparsity.arbiter import KERNEL

GATES = {"latency_tolerance": 0.05, "int8_agreement": False, "int8_accuracy_drop": False}


@pytest.fixture(scope="module")
def environment(adb_server: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The private adb server, and a latency table and list of devices of our own."""
    cache = tmp_path_factory.mktemp("cache")
    bundles = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeprune" / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    (cache / "edgeprune").mkdir()
    (cache / "edgeprune" / "bundles").symlink_to(bundles)  # built once for all
    return {
        "ANDROID_ADB_SERVER_PORT": str(adb_server.port),
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config")),
        "COLUMNS": "200",
    }


@pytest.fixture(scope="module")
def adb_id(arm: Machine) -> str:
    return f"adb:{arm.adb_serial}"


@pytest.fixture(scope="module")
def ssh_id(arm: Machine, ssh_config: Path, environment: Mapping[str, str]) -> Iterator[str]:
    added = edgeprune(
        "devices", "add", "ssh", "labarm", "--name", "shelf-3", "--ssh-config", ssh_config, environment=environment
    )
    assert added.code == 0, added.err
    assert "Virtual ARM64" in added.err
    yield "ssh:shelf-3"
    removed = edgeprune("devices", "remove", "ssh:shelf-3", environment=environment)
    assert removed.code == 0, removed.err


@pytest.fixture(params=["adb", "ssh"])
def device(request: pytest.FixtureRequest, adb_id: str, ssh_id: str) -> str:
    return adb_id if request.param == "adb" else ssh_id


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    path = tmp_path / "conv.tflite"
    write_operation(OpSignature("conv2d", 16, 32, 16, 16, (3, 3), padding=(1, 1)), path)
    return path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    path = tmp_path / "wide.tflite"
    write_operation(OpSignature("conv2d", 16, 64, 16, 16, (3, 3), padding=(1, 1)), path)
    return path


@pytest.fixture
def brief(environment: Mapping[str, str], short_measuring: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands in this process, where they measure shortly: a tenth of the runs tells as much where instructions
    are counted, and a second on the machine takes six here."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def fine(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def test_both_are_listed(adb_id: str, ssh_id: str, environment: Mapping[str, str]) -> None:
    found = {facts["id"]: facts for facts in fine(edgeprune("devices", "--json", environment=environment)).json}
    assert {"local", adb_id, ssh_id} <= set(found)
    for id in (adb_id, ssh_id):
        assert found[id]["ready"], found[id]
        assert found[id]["model"] == "Virtual ARM64"
    shown = fine(edgeprune("devices", environment=environment)).out
    assert "(native runner)" in shown
    told = fine(edgeprune("doctor", environment=environment)).out
    assert "native runner (aarch64)" in told


def test_a_device_is_prepared_once(device: str, environment: Mapping[str, str]) -> None:
    first = fine(edgeprune("devices", "prepare", device, "--json", environment=environment)).json
    assert [build["name"] for build in first] == ["litert"]
    assert fine(edgeprune("devices", "prepare", device, "--json", environment=environment)).json == first


def test_latency_repeats_to_a_hundredth(device: str, conv: Path, wide: Path, environment: Mapping[str, str]) -> None:
    measured = fine(edgeprune("bench", conv, wide, "--device", device, "--json", environment=environment)).json
    for one in measured:
        assert one["quality"] == "stable", one["evidence"]
        assert one["high_s"] / one["low_s"] < 1.01  # instructions are counted: this is no stopwatch


@pytest.mark.usefixtures("brief")
def test_a_slower_file_is_found_out(adb_id: str, conv: Path, wide: Path) -> None:
    told = inside("compare", conv, wide, "--device", adb_id, "--json")
    assert (told.code, told.json["verdict"]) == (1, "slower")


def test_the_kernels_are_those_of_the_device(device: str, conv: Path, environment: Mapping[str, str]) -> None:
    found = fine(edgeprune("profile", conv, "--device", device, "--runs", 40, "--json", environment=environment)).json
    assert any("Convolution" in kernel["name"] for kernel in found["kernels"])


def test_no_operator_differs(device: str, conv: Path, environment: Mapping[str, str]) -> None:
    told = fine(edgeprune("explain", conv, "--device", device, "--json", environment=environment)).json
    assert told["first"] is None
    assert told["looked_at"][-1]["sqnr_db"] > 100


def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    adb_id: str, conv: Path, environment: Mapping[str, str]
) -> None:
    gone = edgeprune("bench", conv, "--device", "adb:NOSUCH", environment=environment)
    gone.refused("NOSUCH", adb_id, code=4)
    edgeprune("bench", conv, "--device", "ssh:nowhere.invalid", environment=environment).refused("nowhere", code=4)


@pytest.mark.slow
@pytest.mark.usefixtures("brief", "warm_toolkits")
def test_a_whole_run_over_adb_hits_its_target_at_once(adb_id: str, tmp_path: Path) -> None:
    recipe = write_job(
        tmp_path,
        device={"id": adb_id},
        prune={"target": "0.6x", "tolerance": 0.05, "scoring_batches": 1},
        export={"formats": ["tflite", "onnx"]},
        verify_gates=GATES,
    )
    run = tmp_path / "run"
    fine(inside("run", recipe, "--out", run))
    verdict = json.loads((run / "verify" / "verdict.json").read_text())
    files = {(file["format"], file["precision"]): file for file in verdict["files"]}
    for precision in ("fp32", "int8"):
        file = files["tflite", precision]
        assert file["executed_on"].startswith(adb_id)
        checks = {check["name"]: check for check in file["checks"]}
        assert checks["agreement with this machine"]["outcome"] == "pass"
        assert file["profile"]["kernels"]
    assert "does not run onnxruntime" in files["onnx", "fp32"]["executed_on"]
    assert files["onnx", "fp32"]["latency"] is None
    ratio = files["tflite", "fp32"]["against_original"]
    assert 0.4 < ratio["ratio"] < 0.63
    page = (run / "report" / "report.html").read_text()
    assert "Where its time goes on" in page


@pytest.mark.slow
@pytest.mark.usefixtures("brief", "warm_toolkits")
def test_zeros_alone_hit_a_latency_with_the_sparse_file(adb_id: str, tmp_path: Path) -> None:
    factory = Path(__file__).parents[1] / "pipeline" / "separable_net.py"
    recipe = write_job(
        tmp_path,
        device={"id": adb_id},
        model={"factory": f"{factory}:net", "input_size": [3, 16, 16], "untrained": True},
        model_arguments={"channels": 3, "width": 48},
        prune={"target": "1x", "method": "magnitude", "scoring_batches": 1, "tolerance": 0.03},
        sparse={"target": "0.4x"},
        tune={"epochs": 1},
        quantize={"enabled": False},
        export={"formats": ["tflite"]},
        verify={"images": 8},
        verify_gates=GATES,
    )
    run = tmp_path / "run"
    fine(inside("run", recipe, "--out", run))
    assert json.loads((run / "prune" / "plan.json").read_text())["decisions"] == {}
    exported = json.loads((run / "export" / "stage.json").read_text())["result"]["sparse"]
    assert exported["kept"] == "sparse", exported
    verdict = json.loads((run / "verify" / "verdict.json").read_text())
    (file,) = verdict["files"]
    assert {check["name"]: check["outcome"] for check in file["checks"]}["agreement with this machine"] == "pass"
    assert any(KERNEL in kernel["name"] for kernel in file["profile"]["kernels"]), file["profile"]["kernels"]
    found = json.loads((run / "tune" / "zeros.json").read_text())
    assert found["within_tolerance"], found["attempts"]
    assert file["against_original"]["ratio"] == pytest.approx(0.4, rel=0.04)  # the zeros are where they were
    assert json.loads((run / "tune" / "stage.json").read_text())["result"]["zeros"] == pytest.approx(
        found["zeros"], abs=0.01
    )
    assert "0.4x" in (run / "report" / "report.html").read_text()


def test_the_two_processors_are_two_devices(
    fresh_machine: Callable[..., Machine], adb_server: AdbServer, lab_environment: None, arm: Machine, conv: Path
) -> None:
    """Without dot product it is another device: other facts, profile and fingerprint, so other latency tables."""
    plain = fresh_machine(cpu="cortex-a72")
    adb_server.connect(plain.adb_serial)
    old, new = open_adb(plain.adb_serial), open_adb(arm.adb_serial)
    assert "asimddp" in new.facts().cpu_features
    assert "asimddp" not in old.facts().cpu_features
    assert (profile_of(old).name, profile_of(new).name) == ("ARM64 lab, cortex-a72", "ARM64 lab, cortex-a76")
    assert old.facts().fingerprint != new.facts().fingerprint
    assert runtime_build(old, "litert") == runtime_build(new, "litert")
    adb_server.disconnect(plain.adb_serial)
