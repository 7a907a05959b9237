"""The page in a real browser: figures are drawn, nothing is asked for, hostile texts do nothing.

Skipped where there is no Chromium, unless EDGEPRUNE_REQUIRE_BROWSER=1 says that there must be one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_report import sample
from test_report_page import HOSTILE, Page, hostile_everywhere

from edgeprune.report.data import ReportData
from edgeprune.report.page import render
from edgeprune.report.write import write_report

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("EDGEPRUNE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"EDGEPRUNE_REQUIRE_BROWSER=1, but none of {', '.join(names)} is installed")
        pytest.skip("no Chromium installed")
    return found


def browse(chromium: str, page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # What the page itself does wrong (a refused request or script, an uncaught error) is logged as CONSOLE.
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done


def screenshot(chromium: str, page: Path, folder: Path, width: int, *arguments: str) -> np.ndarray:
    picture = folder / f"{width}.png"
    browse(chromium, page, folder / "profile", f"--screenshot={picture}", f"--window-size={width},3600", *arguments)
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_page_opens_with_all_its_figures(chromium: str, tmp_path: Path) -> None:
    page = write_report(sample(), tmp_path)
    dom = browse(chromium, page, tmp_path / "profile", "--dump-dom").stdout
    found = Page(dom)
    assert found.tags.count("figure") == 5
    assert found.tags.count("svg") >= 10
    assert "script" not in found.tags
    assert re.search(r"<title>resnet56 \(CIFAR-10\) to 0\.5x on local - EdgePrune</title>", dom)


@pytest.mark.parametrize("width", [1280, 420])
def test_screenshot_is_not_blank_and_fits(chromium: str, tmp_path: Path, width: int) -> None:
    pixels = screenshot(chromium, write_report(sample(), tmp_path), tmp_path, width)
    assert pixels.shape[1] == width
    for band in np.array_split(pixels, 5):
        assert band.std() > 5, "a fifth of the page is blank"
    assert (pixels[:, -8:] == pixels[0, 0]).all(), "something runs over the right edge"
    blue = (np.abs(pixels - np.array([0, 0x72, 0xB2])).sum(axis=2) < 20).sum()
    assert blue > 100, "the figures' blue marks are not drawn"


def test_dark_theme_is_dark(chromium: str, tmp_path: Path) -> None:
    page = write_report(sample(), tmp_path)
    dark = screenshot(chromium, page, tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    assert np.median(dark) < 60
    assert dark.max() > 200


def test_hostile_texts_do_nothing(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "hostile.html"
    data: ReportData = hostile_everywhere(HOSTILE)
    page.write_text(render([data]), encoding="utf-8")
    dom = browse(chromium, page, tmp_path / "profile", "--dump-dom").stdout
    assert not {"script", "img"} & set(Page(dom).tags)
    assert not any(name.startswith("on") for name, _ in Page(dom).attributes)
