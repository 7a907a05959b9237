"""What devices say of themselves, as Android, a board and a Mac say it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeprune.devices.reading import CONDITIONS_SCRIPT, facts_script, read_conditions, read_facts

PHONE = """@@system
Linux
5.15.123-android14-11-g0123456789ab
aarch64
@@cpuinfo
Processor\t: AArch64 Processor rev 1 (aarch64)
processor\t: 0
Features\t: fp asimd evtstrm aes asimdhp asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd46

processor\t: 7
CPU implementer\t: 0x41
CPU part\t: 0xd4e
@@memory
MemTotal:        7734568 kB
@@cores
8
@@model
@@soc

@@properties
[ro.build.version.release]: [14]
[ro.product.model]: [Pixel 8]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
@@libc
@@temperature
36500
41200
-40000
@@python
"""

PHONE_NOW = """@@load
12.34 11.00 10.50 3/2345 12345
@@stat
cpu  100 20 30 4000 5 6 7 8 0 0
100
@@uptime
123456.78 654321.00
@@cpus
8
@@frequency
1803000
2367000
@@thermal
thermal_zone0:BIG 41200
thermal_zone1:LITTLE 36500
@@battery
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  level: 87
  temperature: 312
@@thermalservice
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
@@power
  mWakefulness=Dozing
@@end
"""

BOARD = """@@system
Linux
6.6.31+rpt-rpi-2712
aarch64
@@cpuinfo
processor\t: 0
Features\t: fp asimd asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
@@memory
MemTotal:        8245760 kB
@@cores
4
@@model
Raspberry Pi 5 Model B Rev 1.0

@@soc
raspberrypi,5-model-b brcm,bcm2712
@@properties
@@libc
ldd (Debian GLIBC 2.36-9+rpt2+deb12u7) 2.36
@@temperature
48300
@@python
["/usr/bin/python3", {"numpy": "1.26.4", "tflite-runtime": "2.14.0", "onnxruntime": "1.31.1"}, [3, 11]]
"""

MAC = """@@system
Darwin
23.5.0
arm64
@@cpuinfo
@@memory
17179869184
@@cores
8
@@model

Mac14,2
@@soc

Apple M2
@@properties
@@libc
@@temperature
@@python
["/opt/homebrew/bin/python3", {"numpy": "2.1.0", "coremltools": "9.0"}, [3, 13]]
"""


def test_a_phone() -> None:
    facts = read_facts(PHONE, id="adb:X", kind="adb", prefer="native")
    assert (facts.model, facts.soc, facts.os) == ("Pixel 8", "Tensor G3", "Android 14 5.15")
    assert facts.cpu == "implementer 0x41, parts 0xd46 0xd4e"
    assert facts.cpu_features == ("asimd", "asimdhp", "asimddp", "i8mm", "bf16")
    assert (facts.cores, facts.memory_bytes, facts.temperature_c) == (8, 7734568 * 1024, 41.2)
    assert facts.runners == {"litert": "native"}
    assert facts.ready


def test_a_phone_now() -> None:
    now = read_conditions(PHONE_NOW)
    assert (now.load_1min, now.running, now.cpus, now.clock_s) == (12.34, 3, 8, 123456.78)
    assert now.cpu_steal_s == 0.08
    assert now.cpu_busy_s == (100 + 20 + 30 + 6 + 7) / 100
    assert now.frequency_mhz == (1803.0, 2367.0)
    assert now.temperature_c == {"thermal_zone0:BIG": 41.2, "thermal_zone1:LITTLE": 36.5, "battery": 31.2}
    assert (now.battery_percent, now.charging, now.screen_on, now.thermal_status) == (87, True, False, 2)


def test_a_board_runs_what_is_installed_there() -> None:
    facts = read_facts(BOARD, id="ssh:pi", kind="ssh")
    assert (facts.model, facts.soc) == ("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b brcm,bcm2712")
    assert facts.os == "Linux 6.6 glibc 2.36"
    assert facts.runtimes == {"litert": "2.14.0", "onnxruntime": "1.31.1"}
    assert facts.runners == {"litert": "python", "onnxruntime": "python"}
    assert facts.python == "/usr/bin/python3"
    assert read_facts(BOARD, id="ssh:pi", kind="ssh", prefer="native").runners["litert"] == "native"
    bare = BOARD[: BOARD.index("@@python")] + "@@python\n"
    assert read_facts(bare, id="ssh:pi", kind="ssh").runners == {"litert": "native"}
    assert read_facts(bare, id="ssh:pi", kind="ssh", prefer="python").ready is False


def test_a_mac_runs_core_ml() -> None:
    facts = read_facts(MAC, id="apple:mini", kind="apple", prefer="python")
    assert (facts.model, facts.soc, facts.cpu, facts.abi) == ("Mac14,2", "Apple M2", "Apple M2", "aarch64")
    assert facts.memory_bytes == 16 * 2**30
    assert facts.runtimes == {"coreml": "9.0"}


def test_a_board_that_nothing_runs_on_says_so() -> None:
    facts = read_facts(BOARD.replace("aarch64", "armv7l").replace('"numpy": "1.26.4", ', ""), id="ssh:pi", kind="ssh")
    assert not facts.ready
    assert "armv7l" in facts.reason


def test_an_interpreter_that_was_named_has_to_be_there() -> None:
    for text in (BOARD.replace("[3, 11]", "[3, 9]"), BOARD[: BOARD.index("@@python")]):
        facts = read_facts(text, id="ssh:pi", kind="ssh", asked="/home/pi/venv/bin/python")
        assert not facts.ready
        assert "/home/pi/venv/bin/python" in facts.reason
    assert read_facts(BOARD.replace("[3, 11]", "[3, 9]"), id="ssh:pi", kind="ssh").runners == {"litert": "native"}


def test_what_a_device_does_not_tell_is_none() -> None:
    now = read_conditions("@@load\n@@stat\n@@end\n")
    assert (now.load_1min, now.cpu_busy_s, now.clock_s, now.battery_percent, now.temperature_c) == (
        *(None, None, None, None),
        {},
    )


def test_an_interpreter_with_odd_letters_is_one_word() -> None:
    assert "'/opt/my env/bin/python; reboot'" in facts_script("/opt/my env/bin/python; reboot")
    assert "importlib" not in facts_script("")


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "mksh") if shutil.which(name)])
def test_the_shell_itself_reads_clocks_and_temperatures(tmp_path: Path, shell: str) -> None:
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000\n",
        "devices/system/cpu/cpufreq/boost": "1\n",
        "class/thermal/thermal_zone0/type": "cpu little\n",
        "class/thermal/thermal_zone0/temp": "41500\n",
        "class/thermal/thermal_zone1/type": "without a temperature\n",
        "class/thermal/thermal_zone2/temp": "-3000\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    script = CONDITIONS_SCRIPT.replace("/sys/", f"{tmp_path}/")
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=False)
    now = read_conditions(done.stdout)
    assert now.frequency_mhz == (1800.0, 600.0)
    assert now.temperature_c == {"thermal_zone0:cpu little": 41.5, "thermal_zone2:": -3.0}
    assert now.cpus == 2
    assert now.load_1min is not None
    assert done.stderr == ""
