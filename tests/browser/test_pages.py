"""Every page in a real browser: both themes, both sizes, nothing wrong in the console, nothing axe objects to."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looking import assert_fits, drawn, moves_on, objections, settled

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("traffic")]

PAGES = [
    "/",
    "/topics/",
    "/topics/?q=no-such-topic",
    "/topics/orders/",
    "/topics/orders/messages/",
    "/topics/orders/settings/",
    "/groups/",
    "/groups/billing/",
    "/deliveries/",
    "/dead-letters/",
    "/dead-letters/dlq.orders/",
    "/devices/",
    "/clients/",
    "/gateways/",
    "/refused/",
    "/routes/",
    "/routes/try/",
    "/policies/",
    "/users/",
    "/acls/",
    "/quotas/",
    "/jobs/",
    "/audit/",
    "/preferences/",
    "/devices/add/",
    "/topics/orders/delete/",
    "/no-such-page/",
]
THEMES = ("dark", "light")


# Colours differ by theme and layout by size, so each is looked at once for every page.
@pytest.mark.parametrize(("size", "theme"), [("desktop", "dark"), ("phone", "light")])
def test_no_page_has_anything_that_axe_objects_to(size: str, theme: str, opened: Callable[..., Page]) -> None:
    page = opened(size, theme)
    for path in PAGES:
        page.goto(path)
        settled(page)
        assert objections(page) == [], path
        assert_fits(page)


@pytest.mark.parametrize("theme", THEMES)
def test_dialogs_and_drawers_too(theme: str, opened: Callable[..., Page]) -> None:
    page = opened("desktop", theme)
    for path, button in (
        ("/topics/", "Create topic"),
        ("/topics/orders/", "Add partitions"),
        ("/topics/orders/", "Delete"),
        ("/groups/billing/", "Reset offsets"),
    ):
        page.goto(path)
        page.get_by_role("button", name=button).click()
        expect(page.locator("#dialog")).to_be_visible()
        assert objections(page) == [], button
    drawn(page, "/topics/orders/messages/", page.locator("tr[data-drawer]"))
    page.locator("tr[data-drawer] a").first.click()
    expect(page.locator("#drawer")).to_be_visible()
    assert objections(page) == []


def test_a_dialog_opened_by_its_address_is_a_page_that_works(opened: Callable[..., Page]) -> None:
    page = opened("phone", "dark")
    page.goto("/topics/")
    page.goto("/topics/create/")
    expect(page).to_have_title("Create topic · Sluice")
    page.get_by_label("Name").fill("not a name")
    page.get_by_role("button", name="Create").click()
    expect(page.locator(".dialog-page .field.wrong")).to_be_visible()
    page.get_by_label("Name").fill("by-its-address")
    page.get_by_role("button", name="Create").click()
    expect(page).to_have_url(re.compile("/topics/by-its-address/$"))
    page.goto("/topics/create/")
    page.get_by_role("button", name="Cancel").click()
    expect(page).to_have_url(re.compile("/topics/by-its-address/$"))


def test_the_sign_in_page_in_both_languages(opened: Callable[..., Page]) -> None:
    page = opened(signed_in=False)
    assert objections(page) == []
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("h1")).to_have_text("登录")
    page.get_by_label("名称").fill("admin")
    page.get_by_label("密码").fill("wrong")
    page.locator("button.primary").click()
    expect(page.get_by_role("alert")).to_have_text("名称或密码不正确。")


def test_numbers_move_by_themselves(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/orders/")
    moves_on(page.locator('.figures [data-live="topic/orders/messages"]'))
    page.goto("/groups/")
    lag = page.locator('[data-live="group/billing/lag"]')
    expect(lag).not_to_have_text("–", timeout=60_000)
    expect(lag).not_to_have_text(lag.inner_text(), timeout=60_000)
    page.goto("/")
    expect(page.locator('.tile [data-live="cluster/in"]')).not_to_have_text("0", timeout=60_000)
    expect(page.locator("#chart-throughput canvas")).to_be_visible(timeout=60_000)


def test_live_numbers_pause_and_go_on(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/")
    messages = page.locator('[data-live="topic/telemetry/messages"]')
    expect(messages).not_to_have_text("–", timeout=60_000)
    settled(page)
    page.keyboard.press("p")
    expect(page.locator("#live-text")).to_have_text("Paused")
    held = messages.inner_text()
    page.wait_for_timeout(2500)  # nothing to wait for: it must not happen
    page.evaluate("document.dispatchEvent(new Event('htmx:afterSettle'))")  # as when a part of the page was fetched
    assert messages.inner_text() == held
    page.keyboard.press("p")
    expect(messages).not_to_have_text(held)


def test_the_keyboard_leads_everywhere(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/topics/")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/topics/dlq.*/")
    page.keyboard.press("/")
    page.keyboard.type("billing")
    expect(page.locator("#finder-hits a").first).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/groups/billing/")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()


def test_a_topic_is_created_found_sorted_and_deleted(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/")
    page.get_by_role("button", name="Create topic").click()
    form = page.locator("#dialog")
    form.get_by_label("Name").fill("not a name")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_role("alert")).to_be_visible()
    form.get_by_label("Name").fill("browser-made")
    form.get_by_role("button", name="Create").click()
    page.wait_for_url("**/topics/browser-made/", wait_until="commit")
    expect(page.locator(".toast")).to_contain_text("browser-made")  # it stays for five seconds from the page's load on
    drawn(page, "/topics/", page.get_by_role("link", name="browser-made"))
    page.get_by_role("searchbox", name="Filter topics").fill("browser")
    expect(page.locator("#topics-body tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=browser"))
    page.locator("#topics-body tbody tr").click()
    page.wait_for_url("**/topics/browser-made/")
    page.get_by_role("button", name="Delete").click()
    confirm = page.locator("#dialog").get_by_role("button", name="Delete")
    expect(confirm).to_be_disabled()
    page.locator("#typed").fill("browser-made")
    confirm.click()
    page.wait_for_url("**/topics/")
    expect(page.get_by_role("link", name="browser-made")).to_have_count(0)
    page.goto("/topics/?sort=-messages")
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Messages")


def test_messages_are_explored_and_a_record_has_a_link_of_its_own(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto("/topics/orders/")
    page.get_by_role("link", name="Explore messages").click()
    page.wait_for_url("**/messages/")
    drawn(page, "/topics/orders/messages/", page.locator("tr[data-drawer]"))
    page.get_by_label("Start at").select_option("oldest")
    page.get_by_role("searchbox", name="Text to look for").fill('"number": 1}')
    page.get_by_role("button", name="Look").click()
    expect(page).to_have_url(re.compile("from=oldest"))
    expect(page.locator("tr[data-drawer]")).to_have_count(1)
    page.locator("tr[data-drawer]").click()
    expect(page.locator("#drawer pre")).to_contain_text('"number": 1')
    link = page.locator("[data-copy-link]").get_attribute("data-copy-link")
    assert link
    page.goto(link)
    expect(page.locator("main pre")).to_contain_text('"number": 1')


@pytest.fixture
def preferences(opened: Callable[..., Page]) -> Iterator[None]:
    """What a test prefers is the account's, for every later page: taken back."""
    yield
    usual = "new URLSearchParams({ theme: 'system', language: 'en', quiet: '1' })"
    request = f"{{ method: 'POST', body: {usual}, headers: {{ 'X-CSRFToken': csrf() }} }}"
    assert opened().evaluate(f"fetch('/preferences/', {request}).then((answer) => answer.status)") == 204


@pytest.mark.usefixtures("preferences")
def test_the_theme_is_kept_and_chinese_is_chinese(opened: Callable[..., Page]) -> None:
    page = opened("desktop", "light")
    with page.expect_response("**/preferences/"):
        page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    speak(page, "简体中文")
    expect(page.locator("h1")).to_have_text("概览")
    page.goto("/topics/")
    expect(page.locator("h1")).to_have_text("主题")
    speak(page, "English")
    expect(page.locator("h1")).to_have_text("Topics")


def speak(page: Page, language: str) -> None:
    page.locator("summary.avatar").click()
    with page.expect_navigation():
        page.get_by_role("button", name=language).click()
