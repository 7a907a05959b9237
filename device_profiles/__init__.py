"""What is known of a device before it is measured. Imports nothing of edgeprune."""

from __future__ import annotations

from device_profiles.load import ProfileError, load_profiles, match_profile, read_profile, user_folder
from device_profiles.schema import DeviceProfile, Match

__all__ = ["DeviceProfile", "Match", "ProfileError", "load_profiles", "match_profile", "read_profile", "user_folder"]
