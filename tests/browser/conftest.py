"""A real browser in front of the whole product: `manage.py up` with its own data folder and free ports.

Every page that a test opens is watched: a console error, a violated security policy or a script that throws fails
the test that caused it.
"""

import threading
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright

from tests.browser.chromium import launch_chromium
from tests.running_product import PASSWORD, Product, running_product

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    with running_product() as started:
        yield started


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    started = launch_chromium(playwright)
    yield started
    started.close()


@pytest.fixture
def opened(browser: Browser, product: Product) -> Iterator[Callable[..., Page]]:
    """Opens a signed-in page; what went wrong on any of them is asserted at the end."""
    contexts: list[BrowserContext] = []
    pages: list[Page] = []
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # The browser's own note of a form answered with errors, or of the page that isn't there.
        expected = "status of 422" in message.text or "no-such-page" in message.location.get("url", "")
        if message.type == "error" and not expected:
            wrong.append(f"{message.text} ({message.location.get('url', '')})")

    def make(size: str = "desktop", theme: str = "dark", *, sign_in: bool = True, locale: str = "en-US") -> Page:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if theme == "dark" else "light",
            has_touch=size == "phone",
            locale=locale,
            base_url=product.url,
        )
        contexts.append(context)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        pages.append(page)
        if sign_in:
            page.goto("/sign-in/")
            page.get_by_label("Name").fill("admin")
            page.get_by_label("Password").fill(PASSWORD)
            page.locator("button.primary").click()
            page.wait_for_url("**/")
        return page

    yield make
    violations = [text for page in pages if not page.is_closed() for text in page.evaluate("window.violations || []")]
    for context in contexts:
        context.close()
    assert violations == []
    assert wrong == []


@pytest.fixture(scope="session")
def traffic(product: Product) -> Iterator[None]:
    """Topics with traffic, a group that keeps up, one that lags, and a few dead letters, while the tests run."""
    stop = threading.Event()
    admin = AdminClient({"bootstrap.servers": product.kafka})
    topics = [NewTopic("orders", 3, 1), NewTopic("telemetry", 4, 1), NewTopic("dlq.orders", 1, 1)]
    for future in admin.create_topics(topics).values():
        future.result(30)

    def write() -> None:
        producer = Producer({"bootstrap.servers": product.kafka, "linger.ms": 5})
        number = 0
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
    yield
    stop.set()
    for thread in threads:
        thread.join(10)
