from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from device_profiles import ProfileError, find_profile, load_profiles, match_profile
from device_profiles.load import FOLDER

GOOD = """
version = 1
name = "{name}"
channel_multiple = {multiple}
channel_multiple_int8 = 8
minimum_width = 8
preferred_runtime = "litert"
[match]
{match}
[sources]
channel_multiple = "not measured"
channel_multiple_int8 = "not measured"
clusters = "not measured"
minimum_width = "not measured"
preferred_runtime = "not measured"
cpu_affinity = "not measured"
thermal_limit_c = "not measured"
"""


CLUSTERS = """
[[clusters]]
core = "Cortex-A55"
cores = [0, 1]
count = 3
dot_product = true
"""


@dataclass(frozen=True)
class Facts:
    abi: str
    os: str = "Linux 6.1 glibc 2.36"
    kind: str = "local"
    model: str = "board"
    soc: str = ""
    cpu: str = "some CPU"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (Facts("x86_64"), "generic x86_64 Linux"),
        (Facts("aarch64"), "generic aarch64 Linux"),
        (Facts("arm64", os="Darwin 24", model="Mac15,3"), "Mac with Apple silicon"),
        (Facts("arm64", os="iOS 18", kind="apple", model="iPhone16,2"), "iPhone 15 Pro"),
        (Facts("arm64", os="iOS 18", kind="apple", model="iPhone17,1"), "iPhone 16 Pro"),
        (Facts("arm64", os="iOS 18", kind="apple", model="iPhone17,3"), "generic"),
        (Facts("aarch64", model="Raspberry Pi 4 Model B Rev 1.5"), "Raspberry Pi 4"),
        (Facts("aarch64", model="Raspberry Pi 5 Model B Rev 1.0"), "Raspberry Pi 5"),
        (Facts("arm64-v8a", os="Android 14", kind="adb", soc="SM8650"), "Snapdragon 8 Gen 3"),
        (Facts("arm64-v8a", os="Android 15", kind="adb", soc="SM8750"), "Snapdragon 8 Elite"),
        (Facts("arm64-v8a", os="Android 15", kind="adb", soc="Tensor"), "Google Tensor (GS101, Pixel 6)"),
        (Facts("arm64-v8a", os="Android 15", kind="adb", soc="Tensor G3"), "generic"),
        (Facts("aarch64", soc="linux,dummy-virt", cpu="implementer 0x41, parts 0xd08"), "ARM64 lab, cortex-a72"),
        (Facts("aarch64", soc="linux,dummy-virt", cpu="implementer 0x41, parts 0xd0b"), "ARM64 lab, cortex-a76"),
        (
            Facts("x86_64", cpu="AMD EPYC (family 25, model 17)"),
            "AMD EPYC, Zen 4 (virtual machine of this project)",
        ),
        (Facts("riscv64"), "generic"),
    ],
)
def test_a_device_gets_the_profile_of_its_kind(facts: Facts, name: str) -> None:
    profile = match_profile(facts)
    assert profile.name == name
    assert profile.channel_multiple >= 1


def test_every_fact_of_every_profile_says_where_it_is_from() -> None:
    for profile in load_profiles():
        assert all(profile.sources.values()), profile.name


def test_the_user_s_own_profiles_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "edgeprune" / "device_profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(GOOD.format(name="mine", multiple=4, match='model = "Pi 5"'))
    assert match_profile(Facts("aarch64", model="Raspberry Pi 5 Model B")).name == "mine"
    assert match_profile(Facts("aarch64", model="Raspberry Pi 4 Model B")).name == "Raspberry Pi 4"


def test_the_most_specific_profile_wins(tmp_path: Path) -> None:
    for name, multiple, match in (("a", 8, 'abi = "arm"'), ("b", 16, 'abi = "arm"\ncpu = "Cortex-A76"'), ("c", 4, "")):
        (tmp_path / f"{name}.toml").write_text(GOOD.format(name=name, multiple=multiple, match=match))
    assert match_profile(Facts("arm64", cpu="cortex-a76 r1"), folder=tmp_path).name == "b"
    assert match_profile(Facts("arm64"), folder=tmp_path).name == "a"
    assert match_profile(Facts("x86_64"), folder=tmp_path).name == "c"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("minimum_width = 8", "minimum_witdh = 8", "minimum_wi"),
        ("channel_multiple = 8", "channel_multiple = 0", "channel_multiple"),
        ('cpu_affinity = "not measured"', "", "sources are missing for cpu_affinity"),
        ("[match]", CLUSTERS + "[match]", "3 cores of Cortex-A55 are said, 2 numbered"),
        ("[match]", CLUSTERS.replace("count = 3", "count = 2") * 2 + "[match]", "belongs to two clusters"),
        (
            "[match]",
            "cpu_affinity = [7]" + CLUSTERS.replace("count = 3", "count = 2") + "[match]",
            "outside the clusters",
        ),
        ("[match]", '[match]\nabi = "("', "not a regular expression"),
        ("version = 1", "version = 2", "version"),
        ("version = 1", "version 1", "TOML|Expected"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = GOOD.format(name="a", multiple=8, match="")
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(ProfileError, match=rf"wrong\.toml.*({words})"):
        match_profile(Facts("x86_64"), folder=tmp_path)


def test_two_profiles_of_one_name_are_refused(tmp_path: Path) -> None:
    for file in ("a", "b"):
        (tmp_path / f"{file}.toml").write_text(GOOD.format(name="same", multiple=8, match=""))
    with pytest.raises(ProfileError, match="two profiles are called same"):
        load_profiles(tmp_path)


def test_every_typical_table_is_there_and_read_by_a_profile() -> None:
    shipped = Path(FOLDER).parent / "tables"
    named = {(FOLDER / table.file).resolve() for profile in load_profiles() for table in profile.tables}
    assert named == {path.resolve() for path in shipped.iterdir()}


def test_a_profile_is_found_by_its_files_name() -> None:
    assert find_profile("raspberry-pi-5") == FOLDER / "raspberry-pi-5.toml"
    with pytest.raises(ProfileError, match=r"no profile is called 'x'; there are amd-epyc-zen4, generic"):
        find_profile("x")
