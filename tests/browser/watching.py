"""Pages under watch: what went wrong on one fails its test, and a test that fails says how its pages stood.

Wrong is an error on a page's console, where Chromium also tells what the security policy blocked, and a script that
throws.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page

from tests.browser.chromium import SLOWNESS, slow_down

# Told as errors, and none: a form answered with what is wrong in it; a page asked for because it isn't there; and a
# search that a newer one replaced, by htmx.
MEANT = re.compile(r"status of 422|no-such-page|htmx:(afterRequest|sendAbort)\b")
SELECTOR = re.compile(r"(?<![\w.])locator\(\"((?:[^\"\\]|\\.)+)\"\)")
SHOWN = 250  # characters of an element, or of what a page said
PATIENCE_MS = 2_000


class Watch:
    """The pages of one test."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []
        self._wrong: list[str] = []
        self._said: deque[str] = deque(maxlen=3)

    def context(self, **options: object) -> BrowserContext:
        """A new browser context, all of whose pages are watched. `options` are Playwright's."""
        context = self._browser.new_context(**options)  # type: ignore[arg-type]  # Playwright's own names and types
        self._contexts.append(context)
        context.set_default_timeout(60_000)
        context.on("console", self._heard)
        context.on("weberror", lambda error: self._wrong.append(str(error.error)))
        return context

    def page(self, context: BrowserContext) -> Page:
        """A new page of it."""
        page = context.new_page()
        if SLOWNESS > 1:
            slow_down(page)
        self._pages.append(page)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        self._said.append(f"{message.type}: {text}")
        if message.type == "error" and not MEANT.search(text):
            self._wrong.append(f"{text} on {message.page.url if message.page else 'no page'}")

    def _open_pages(self) -> list[Page]:
        return [page for page in self._pages if not page.is_closed()]

    def closed(self) -> list[str]:
        """Closes everything; what went wrong."""
        for context in self._contexts:
            context.close()
        return self._wrong

    def report(self, failure: str) -> str:
        """How the pages stand, in a few lines. `failure` is what the test says went wrong: the elements that it names
        are shown."""
        standing = [line for page in self._open_pages() for line in _standing(page, failure)]
        return "\n".join([*standing, *(line[:SHOWN] for line in self._said)])


def _standing(page: Page, failure: str) -> Iterator[str]:
    yield f"page: {page.url}"
    selectors = dict.fromkeys([*SELECTOR.findall(failure), "dialog[open]", "main"])
    for selector in list(selectors)[-3:]:
        shown = _shown(page, selector.replace('\\"', '"'))
        if shown:
            yield f"  {selector}: {shown}"


def _shown(page: Page, selector: str) -> str:
    found = page.locator(selector)
    try:
        count = found.count()
        if not count:
            return "" if selector in ("dialog[open]", "main") else "not there"
        if selector in ("dialog[open]", "main"):
            text = found.first.inner_text(timeout=PATIENCE_MS)
        else:
            text = found.first.evaluate("(element) => element.outerHTML", timeout=PATIENCE_MS)
    except Error as error:
        return f"can't be shown: {str(error).splitlines()[0]}"
    text = " ".join(text.split())
    return f"({count}) {text[:SHOWN]}"
