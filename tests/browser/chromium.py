"""Chromium for the tests: Debian's where it is installed, else Playwright's own.

`SLUICE_BROWSER_SLOWNESS=8` makes its pages compute eight times slower, and every answer come 100 ms later: what a test
takes for granted on a quick machine shows itself.
"""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Page, Playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOWNESS = float(os.environ.get("SLUICE_BROWSER_SLOWNESS", "1"))
LATENCY_MS = 100


def launch_chromium(playwright: Playwright) -> Browser:
    """A headless browser."""
    return playwright.chromium.launch(
        executable_path=shutil.which("chromium") or shutil.which("chromium-browser"), args=ARGUMENTS, timeout=120_000
    )


def slow_down(page: Page, times: float = SLOWNESS, latency_ms: float = LATENCY_MS) -> None:
    """From now on it computes `times` slower, and answers come later."""
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": times})
    session.send("Network.enable")
    network = {"offline": False, "latency": latency_ms, "downloadThroughput": -1, "uploadThroughput": -1}
    session.send("Network.emulateNetworkConditions", network)
