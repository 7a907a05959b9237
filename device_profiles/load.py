"""Reading profiles and finding the one that fits a device best."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from device_profiles.schema import DeviceProfile, Facts

FOLDER = Path(__file__).parent / "profiles"


class ProfileError(ValueError):
    """A profile is not valid, or none fits; the message names the file."""


def match_profile(facts: Facts, *, folder: Path = FOLDER) -> DeviceProfile:
    """The most specific profile that fits; names decide between equals.

    Raises:
        ProfileError: a profile is not valid, or none fits.
    """
    fitting = [profile for profile in load_profiles(folder) if profile.match.fits(facts)]
    if not fitting:
        raise ProfileError(f"no profile in {folder} fits {facts.abi} {facts.os}: add one (see generic.toml)")
    return min(fitting, key=lambda profile: (-profile.match.weight, profile.name))


def load_profiles(folder: Path = FOLDER) -> tuple[DeviceProfile, ...]:
    """Every profile of a folder, by name.

    Raises:
        ProfileError: one is not valid, or two share a name.
    """
    profiles = [read_profile(path) for path in sorted(folder.glob("*.toml"))]
    names = [profile.name for profile in profiles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ProfileError(f"{folder}: two profiles are called {', '.join(twice)}")
    return tuple(sorted(profiles, key=lambda profile: profile.name))


def read_profile(path: Path) -> DeviceProfile:
    """One profile.

    Raises:
        ProfileError: it is missing, not TOML, or has a wrong or unknown key.
    """
    try:
        return DeviceProfile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ProfileError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
