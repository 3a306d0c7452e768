"""What a person sees on a page, and when."""

from __future__ import annotations

import re
import time
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

# Fonts that load change the layout; halfway through an animation colours are others.
AT_REST = """
Promise.allSettled([document.fonts.ready, ...document.getAnimations()
  .filter((each) => each.effect?.getComputedTiming().endTime !== Infinity).map((each) => each.finished)])
"""


def number(text: str) -> float:
    """The number in a text; -1 without any."""
    return float(re.sub(r"[^\d.]", "", text) or -1)


def settled(page: Page) -> None:
    """Live numbers have arrived, so the page is as people see it."""
    if page.locator("#live").count():
        expect(page.locator("#live")).to_have_attribute("data-state", "on", timeout=60_000)


def objections(page: Page) -> list[str]:
    """What axe finds, in words, once what slides in or fades is where it stays."""
    expect(page.locator(".htmx-request, .htmx-swapping, .htmx-settling")).to_have_count(0)
    page.evaluate(AT_REST)
    found: Any = Axe().run(page)
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:140] for node in one['nodes'][:4]]}"
        for one in found.response["violations"]
    ]


def assert_fits(page: Page) -> None:
    """Nothing makes the page wider than the screen."""
    page.evaluate(AT_REST)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url} scrolls sideways by {wide} px"


def moves_on(shown: Locator) -> None:
    """A live number becomes known, and grows."""
    expect(shown).to_have_text(re.compile(r"\d"), timeout=60_000)
    before = shown.inner_text()
    another = re.compile(rf"^(?!{re.escape(before)}$).*\d")  # not "unknown", as when a sample came late
    expect(shown).to_have_text(another, timeout=60_000)
    assert number(shown.inner_text()) > number(before)


def drawn(page: Page, path: str, locator: Locator, within: float = 120) -> None:
    """Open `path` until `locator` is there: much of a page is drawn once the monitor has heard of it."""
    deadline = time.monotonic() + within
    page.goto(path)
    while not locator.count():
        assert time.monotonic() < deadline, f"{path} did not show {locator} within {within:.0f} s"
        page.wait_for_timeout(500)
        page.goto(path)
