"""What the tools list, as recorded: devicectl's entry by flutter_tools' core_devices.dart, pymobiledevice3's by its
`short_info` (lockdown.py, version 11.45)."""

from __future__ import annotations

import copy
from typing import Any

UDID = "00008130-001929D91A06001C"
BUNDLE = "org.edgeprune.runner.A1B2C3D4E5"

PHONE: dict[str, Any] = {
    "capabilities": [
        {"featureIdentifier": "com.apple.coredevice.feature.launchapplication", "name": "Launch Application"}
    ],
    "connectionProperties": {
        "authenticationType": "manualPairing",
        "isMobileDeviceOnly": False,
        "lastConnectionDate": "2023-06-15T15:29:00.082Z",
        "pairingState": "paired",
        "potentialHostnames": [f"{UDID}.coredevice.local"],
        "transportType": "wired",
        "tunnelIPAddress": "fdf1:23c4:cd56::1",
        "tunnelState": "disconnected",
        "tunnelTransportProtocol": "tcp",
    },
    "deviceProperties": {
        "bootState": "booted",
        "ddiServicesAvailable": True,
        "developerModeStatus": "enabled",
        "name": "iPhoneName",
        "osBuildUpdate": "22B83",
        "osVersionNumber": "18.1",
    },
    "hardwareProperties": {
        "cpuType": {"name": "arm64e", "subType": 2, "type": 16777228},
        "deviceType": "iPhone",
        "marketingName": "iPhone 15 Pro",
        "platform": "iOS",
        "productType": "iPhone16,1",
        "reality": "physical",
        "udid": UDID,
    },
    "identifier": "123456BB5-AEDE-7A22-B890-1234567890DD",
    "visibilityClass": "default",
}


def _other(udid: str, **hardware: str) -> dict[str, Any]:
    entry = copy.deepcopy(PHONE)
    entry["hardwareProperties"] |= {"udid": udid, **hardware}
    return entry


DEVICES = [PHONE, _other("watch", platform="watchOS"), _other("simulated", reality="virtual")]
_SHORT = {
    "BuildVersion": "22B83",
    "ConnectionType": "USB",
    "DeviceClass": "iPhone",
    "DeviceName": "iPhoneName",
    "Identifier": UDID,
    "ProductType": "iPhone16,1",
    "ProductVersion": "18.1",
    "UniqueDeviceID": UDID,
}
USBMUX = [_SHORT, {**_SHORT, "ConnectionType": "Network"}, {**_SHORT, "Identifier": "watch", "DeviceClass": "Watch"}]
