"""A real browser in front of the whole product: `manage.py up` with its own data folder and free ports."""

import re
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from _pytest._code.code import ExceptionRepr, Traceback
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.browser.chromium import launch_chromium
from tests.browser.looking import drawn
from tests.browser.watching import Watch
from tests.running_product import PASSWORD, Product, running_product

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
WATCH = pytest.StashKey[Watch]()


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    with running_product() as started:
        yield started


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=60_000)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    started = launch_chromium(playwright)
    yield started
    started.close()


@pytest.fixture
def watch(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watch]:
    """The test's pages; what went wrong on any of them is asserted at the end."""
    watch = request.node.stash[WATCH] = Watch(browser)
    yield watch
    assert watch.closed() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure's own lines are those of the tests, and how the pages stood: not how Playwright was left."""
    if call.excinfo is not None and call.when == "call":
        here, ours = Path(__file__).parent, None
        for entry in reversed(call.excinfo.traceback):
            if here in Path(entry.path).parents:
                raw = entry._rawentry
                ours = TracebackType(ours, raw.tb_frame, raw.tb_lasti, raw.tb_lineno)
        call.excinfo.traceback = Traceback(ours) if ours else call.excinfo.traceback
    report = yield
    if report.failed and report.when == "call" and WATCH in item.stash:
        told = item.stash[WATCH].report(report.longreprtext)
        if isinstance(report.longrepr, ExceptionRepr):
            report.longrepr.addsection("pages", told)
    return report


def sign_in(page: Page, product: Product) -> None:
    """Sign in as the administrator; the Overview is shown."""
    page.goto(f"{product.url}/sign-in/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("button.primary").click()
    expect(page.locator("h1")).to_have_text("Overview", timeout=60_000)


@pytest.fixture(scope="session")
def session(browser: Browser, product: Product) -> Any:
    """The cookies of an administrator who signed in once for all tests."""
    context = browser.new_context()
    sign_in(context.new_page(), product)
    cookies = context.cookies()
    context.close()
    return [cookie for cookie in cookies if cookie["name"] not in ("sluice_theme", "sluice_zone")]


@pytest.fixture
def opened(watch: Watch, product: Product, session: Any) -> Callable[..., Page]:
    """Opens a page, signed in unless told otherwise."""

    def make(size: str = "desktop", theme: str = "dark", *, signed_in: bool = True, locale: str = "en-US") -> Page:
        width, height = SIZES[size]
        context = watch.context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            has_touch=size == "phone",
            locale=locale,
            base_url=product.url,
        )
        if signed_in:
            context.add_cookies(session)
        page = watch.page(context)
        page.goto("/" if signed_in else "/sign-in/")
        return page

    return make


@pytest.fixture(scope="session")
def traffic(product: Product, browser: Browser, session: Any) -> Iterator[None]:
    """Topics with traffic, a group that keeps up and one that lags, while the tests run; the console knows of them."""
    stop = threading.Event()
    admin = AdminClient({"bootstrap.servers": product.kafka})
    topics = [NewTopic("orders", 3, 1), NewTopic("telemetry", 4, 1), NewTopic("dlq.orders", 1, 1)]
    for future in admin.create_topics(topics).values():
        future.result(60)

    def write() -> None:
        producer = Producer({"bootstrap.servers": product.kafka, "linger.ms": 5})
        number = 0
        for reason in ("timeout", "timeout", "schema"):
            why = {"sluice.error.reason": reason, "sluice.error.detail": "field <b>total</b> is missing"}
            producer.produce("dlq.orders", '{"number": 0}', key="pump-0", headers=list(why.items()))
        while not stop.wait(0.05):
            for topic in ("orders", "telemetry", "telemetry"):
                number += 1
                producer.produce(topic, f'{{"number": {number}}}', key=f"pump-{number % 7}", headers=[("trace", b"x")])
            producer.poll(0)
        producer.flush(5)

    def read(group: str, topic: str, slowly: bool) -> None:
        settings = {"bootstrap.servers": product.kafka, "group.id": group, "auto.offset.reset": "earliest"}
        reader = Consumer({**settings, "auto.commit.interval.ms": 500})
        reader.subscribe([topic])
        while not stop.is_set():
            reader.consume(1 if slowly else 500, 0.2)
            if slowly:
                stop.wait(0.2)
        reader.close()

    threads = [
        threading.Thread(target=write, daemon=True),
        threading.Thread(target=read, args=("billing", "orders", True), daemon=True),
        threading.Thread(target=read, args=("dashboards", "telemetry", False), daemon=True),
    ]
    for thread in threads:
        thread.start()
    context = browser.new_context(base_url=product.url)
    context.add_cookies(session)
    page = context.new_page()
    drawn(page, "/topics/?q=dlq.orders", page.locator('[data-live="topic/dlq.orders/in"]'))
    for name in ("orders", "telemetry"):
        known = page.locator(f'[data-live="topic/{name}/messages"]', has_text=re.compile(r"\d"))
        drawn(page, "/topics/", known)
    for name in ("billing", "dashboards"):  # a lag is known once the group has committed
        drawn(page, "/groups/", page.locator(f'[data-live="group/{name}/lag"]', has_text=re.compile(r"\d")))
    drawn(page, "/dead-letters/dlq.orders/", page.locator("tbody tr[data-href]"))
    context.close()
    yield
    stop.set()
    for thread in threads:
        thread.join(10)
