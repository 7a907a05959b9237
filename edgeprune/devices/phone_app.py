"""The app that runs models on an iPhone: what it is called, of which sources it is, and how it gets there."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from edgeprune.errors import ToolkitMissing

EXECUTABLE = "EdgePruneRunner"
PROGRAM = f"/{EXECUTABLE}.app/{EXECUTABLE}"  # how the path of its process ends
BUNDLE = "org.edgeprune.runner."  # and then the team that signed it: an identifier belongs to one team


def sources() -> list[Path]:
    """The files that the app is built from.

    Raises:
        ToolkitMissing: they are not installed.
    """
    spec = importlib.util.find_spec("apps.runner")
    folders = [Path(folder) / "apple" for folder in (spec.submodule_search_locations or [] if spec else [])]
    patterns = ("Core/*.swift", "App/*.swift", "project.yml")
    found = sorted(path for folder in folders for pattern in patterns for path in folder.glob(pattern))
    if not found:
        raise ToolkitMissing("the app's sources are not installed", hint="install edgeprune with its `apps`")
    return found


def sources_version() -> str:
    """The number of the sources: the first 32 bits of a hash of their names and contents. It is the app's
    CFBundleVersion, which has to be a number and which every tool tells."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return str(int(digest.hexdigest()[:8], 16))


def how_to_install(command: str) -> str:
    """What to type, on a Mac with Xcode and XcodeGen, to build the app; `command` puts it on the device."""
    folder = next(path.parent for path in sources() if path.name == "project.yml")
    return (
        f"on a Mac with Xcode and XcodeGen (TEAM: your team's id): cd {folder} && xcodegen && xcodebuild"
        f" -project {EXECUTABLE}.xcodeproj -scheme {EXECUTABLE} -configuration Release"
        f" -destination generic/platform=iOS -derivedDataPath build -allowProvisioningUpdates"
        f" DEVELOPMENT_TEAM=TEAM CURRENT_PROJECT_VERSION={sources_version()} build && {command}"
    )


BUILT = f"build/Build/Products/Release-iphoneos/{EXECUTABLE}.app"
