"""Reading profiles and finding the one that fits a device best."""

from __future__ import annotations

import tomllib
from pathlib import Path

import platformdirs
from pydantic import ValidationError

from device_profiles.schema import DeviceProfile, Facts

FOLDER = Path(__file__).parent / "profiles"


def user_folder() -> Path:
    """Where a user's own profiles are: `device_profiles` in edgeprune's configuration folder."""
    return platformdirs.user_config_path("edgeprune") / "device_profiles"


class ProfileError(ValueError):
    """A profile is not valid, or none fits; the message names the file."""


def match_profile(facts: Facts, *, folder: Path | None = None) -> DeviceProfile:
    """The most specific profile that fits: of the user's own if one does, else of those that come along (or of
    `folder` alone); names decide between equals.

    Raises:
        ProfileError: a profile is not valid, or none fits.
    """
    folders = (user_folder(), FOLDER) if folder is None else (folder,)
    for place in folders:
        fitting = [profile for profile in load_profiles(place) if profile.match.fits(facts)]
        if fitting:
            return min(fitting, key=lambda profile: (-profile.match.weight, profile.name))
    raise ProfileError(f"no profile in {folders[-1]} fits {facts.abi} {facts.os}: add one (see generic.toml)")


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


def find_profile(name: str) -> Path:
    """The file of a profile by its file's name without `.toml`: the user's own, else one of those that come along.

    Raises:
        ProfileError: there is none; names those that there are.
    """
    files = profile_files()
    if name not in files:
        raise ProfileError(f"no profile is called {name!r}; there are {', '.join(files)}")
    return files[name]


def profile_files() -> dict[str, Path]:
    """The files of all profiles by their names without `.toml`, in order; the user's own in place of others."""
    files = {path.stem: path for folder in (FOLDER, user_folder()) for path in folder.glob("*.toml")}
    return dict(sorted(files.items()))


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
