"""People are quicker than pages: what they typed, picked or looked at stays theirs while an answer is on its way."""

import contextlib
import re
import sqlite3
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import slow_down
from tests.browser.looking import drawn, settled
from tests.running_product import Product

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


def test_a_submit_button_that_is_clicked_twice_submits_once(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/")
    page.get_by_role("button", name="Create topic").click()
    form = page.locator("#dialog")
    form.get_by_label("Name").fill("submitted-once")
    slow_down(page, 1, latency_ms=600)
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    form.get_by_role("button", name="Create").dblclick()
    page.wait_for_url("**/topics/submitted-once/", wait_until="commit")
    assert len(posts) == 1, posts


def test_what_the_pointer_is_pressed_on_is_not_taken_away_by_a_list_that_is_fetched_again(
    opened: Callable[..., Page],
) -> None:
    page = opened()
    drawn(page, "/dead-letters/", page.get_by_role("link", name="dlq.orders"))
    settled(page)
    page.get_by_role("link", name="dlq.orders").hover()
    body = page.locator("#dead-letters-body")
    page.mouse.down()
    body.evaluate("(body) => { body.dataset.pressed = ''; }")
    with page.expect_response("**/dead-letters/"):  # an answer to what was asked before the pointer came down
        body.evaluate("(body) => body.dispatchEvent(new CustomEvent('refresh'))")
    expect(page.locator(".htmx-request, .htmx-swapping, .htmx-settling")).to_have_count(0)
    expect(page.locator("#dead-letters-body[data-pressed]")).to_have_count(1)
    page.mouse.up()
    page.wait_for_url("**/dead-letters/dlq.orders/")


@pytest.fixture
def running_job(product: Product) -> str:
    """A job that another process works on, and never gets on with."""
    number, now = uuid.uuid4().hex, datetime.now(UTC).isoformat(sep=" ")
    row = {
        "id": number,
        "kind": "redrive",
        "title": "Redrive of dlq.slow",
        "params": "{}",
        "state": "running",
        "actor_name": "admin",
        "total": 100,
        "done": 7,
        "failed": 0,
        "message": "",
        "cancel_requested": 0,
        "attempts": 1,
        "lease": "held",
        "lease_until": "2999-01-01 00:00:00",
        "created": now,
        "started": now,
    }
    with contextlib.closing(sqlite3.connect(product.data / "console.sqlite3", timeout=60)) as database, database:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        database.execute(f"INSERT INTO jobs_job ({names}) VALUES ({marks})", list(row.values()))
    return f"/jobs/{uuid.UUID(number)}/"


def test_the_focus_stays_on_a_job_s_button_while_its_progress_is_fetched_again(
    running_job: str, opened: Callable[..., Page]
) -> None:
    page = opened()
    page.goto(running_job)
    cancel = page.get_by_role("button", name="Cancel job")
    cancel.focus()
    for _ in range(2):
        page.locator("#job").evaluate("(job) => { job.dataset.old = ''; }")
        expect(page.locator("#job[data-old]")).to_have_count(0)
        expect(cancel).to_be_focused()
