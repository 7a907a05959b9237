"""What is known of a device before it is measured. Imports nothing of edgeprune."""

from __future__ import annotations

from device_profiles.load import (
    ProfileError,
    find_profile,
    load_profiles,
    match_profile,
    profile_files,
    read_profile,
    user_folder,
)
from device_profiles.schema import DeviceProfile, Match, TypicalTable

__all__ = [
    "DeviceProfile",
    "Match",
    "ProfileError",
    "TypicalTable",
    "find_profile",
    "load_profiles",
    "match_profile",
    "profile_files",
    "read_profile",
    "user_folder",
]
