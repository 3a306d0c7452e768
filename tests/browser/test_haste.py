"""People are quicker than pages: what they typed, picked or looked at stays theirs while an answer is on its way."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import slow_down
from tests.browser.looking import drawn, settled

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("traffic")]


def refreshed(page: Page, body: str) -> None:
    """The list's body is fetched again, as when its number moved."""
    page.locator(body).evaluate("(body) => { body.dataset.old = ''; body.dataset.drawnAt = '-1'; }")
    expect(page.locator(f"{body}[data-old]")).to_have_count(0)


def test_a_list_that_is_fetched_again_keeps_its_picked_row_and_the_focus(opened: Callable[..., Page]) -> None:
    page = opened()
    drawn(page, "/dead-letters/", page.get_by_role("link", name="dlq.orders"))
    settled(page)
    page.get_by_role("link", name="dlq.orders").focus()
    refreshed(page, "#dead-letters-body")
    expect(page.get_by_role("link", name="dlq.orders")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("tr.picked")).to_have_count(1)
    refreshed(page, "#dead-letters-body")
    expect(page.locator("tr.picked")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/dead-letters/dlq[.]"))


def test_enter_in_the_finder_waits_for_the_hits_of_what_was_typed(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/")
    slow_down(page, 1, latency_ms=600)
    page.locator("#finder").press_sequentially("b")
    expect(page.locator("#finder-hits a").first).to_be_visible()  # pages come first among the hits of one letter
    page.keyboard.type("illing")
    page.keyboard.press("Enter")
    page.wait_for_url("**/groups/billing/")


def test_a_second_click_does_not_take_away_what_was_typed_since_the_first(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/")
    slow_down(page, 1, latency_ms=600)
    with page.expect_response("**/topics/create/"):
        page.get_by_role("button", name="Create topic").dblclick()
    name = page.locator("#dialog").get_by_label("Name")
    name.fill("typed")
    page.wait_for_load_state("networkidle")
    expect(name).to_have_value("typed")
