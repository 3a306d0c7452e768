"""The whole story, in a browser, with real parts: on the embedded broker and on Apache Kafka.

An operator creates a topic, a user and an ACL; a Kafka client is refused and then allowed; a device publishes; a
consumer fails on one message; the dead letter appears by itself, is edited and sent again; lag rises and falls; the
audit page says who did what.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from playwright.sync_api import Page, expect

from broker.client import Record, Retry, Settings, run_consumer
from tests.acceptance.kafka.apache import ADMIN, ApacheKafka
from tests.browser.conftest import sign_in
from tests.browser.watching import Watch
from tests.ports import free_ports
from tests.running_product import Product, running_product

pytestmark = pytest.mark.browser
MESSAGES = 400
BROKEN, MENDED = '{"plate": null}', '{"plate": "BS 1234"}'
TOPIC = "mqtt.messages"
GROUP = "billing"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running product, and where an application signs in to its broker with a user's password."""

    product: Product
    sasl_bootstrap: str


@pytest.fixture(params=["embedded", "apache"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "embedded":
        plain, sasl = free_ports(2)
        listeners = f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}"
        with running_product(SLUICE_BROKER_LISTENERS=listeners) as product:
            yield Stage(product, f"127.0.0.1:{sasl}")
        return
    kafka = ApacheKafka(heap="512m").start()
    user, password = ADMIN
    try:
        with running_product(
            SLUICE_KAFKA=kafka.sasl_bootstrap,
            SLUICE_KAFKA_SECURITY="SASL_PLAINTEXT",
            SLUICE_KAFKA_SASL_MECHANISM="PLAIN",
            SLUICE_KAFKA_USERNAME=user,
            SLUICE_KAFKA_PASSWORD=password,
        ) as product:
            yield Stage(product, kafka.sasl_bootstrap)
    finally:
        kafka.stop()


@pytest.fixture
def page(stage: Stage, watch: Watch) -> Page:
    """A page signed in as the administrator."""
    page = watch.page(watch.context(viewport={"width": 1440, "height": 900}))
    sign_in(page, stage.product)
    return page


class Refused(Exception):
    """The record was not acknowledged."""


def until(condition: Callable[[], bool], what: str, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def send(stage: Stage, password: str, value: str) -> None:
    """Write to `orders` as the user `shop`; raises Refused."""
    outcome: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": stage.sasl_bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "shop",
            "sasl.password": password,
            "message.timeout.ms": 5_000,
            "log_level": 0,
        }
    )
    producer.produce("orders", value, on_delivery=lambda error, _: outcome.append(error))
    producer.flush(10)
    if not outcome or outcome[0] is not None:  # a KafkaError can't be compared with None by ==
        raise Refused(str(outcome))


def allowed(stage: Stage, password: str) -> bool:
    try:
        send(stage, password, "after")
    except Refused:
        return False
    return True


def publish(product: Product, payloads: list[str]) -> None:
    """A device: every payload published with QoS 1 and acknowledged."""
    device = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="gate-7")
    device.connect("127.0.0.1", product.mqtt_port)
    device.loop_start()
    try:
        for info in [device.publish("gates/7/passage", payload, qos=1) for payload in payloads]:
            info.wait_for_publish(30)
            assert info.is_published()
    finally:
        device.disconnect()
        device.loop_stop()


class Billing:
    """A consumer that can't bill a passage without a plate. `go` lets it work."""

    def __init__(self, product: Product) -> None:
        self.billed: list[str] = []
        self.go, self.stop = threading.Event(), threading.Event()
        settings = Settings.from_env(product.environ, client_id="billing")
        keywords = {"retry": Retry(attempts=2, first=0.05), "settings": settings, "stop": self.stop}
        self._thread = threading.Thread(target=run_consumer, args=([TOPIC], GROUP, self.bill), kwargs=keywords)

    def bill(self, record: Record) -> None:
        while not self.go.wait(0.2):
            if self.stop.is_set():
                raise RuntimeError("stopped")
        text = (record.value or b"").decode()
        if "null" in text:
            raise ValueError("a passage without a plate")
        self.billed.append(text)

    @contextlib.contextmanager
    def running(self) -> Iterator[Billing]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self._thread.join(30)
            assert not self._thread.is_alive()


def figure(page: Page, key: str) -> int | None:
    """A live number as it stands on the page; None for unknown."""
    text = page.locator(f'main [data-live="{key}"]').first.inner_text().replace(",", "").strip()
    return int(text) if text.isdigit() else None


def lag_of(product: Product) -> int:
    """The group's lag as an independent client computes it."""
    settings = Settings.from_env(product.environ)
    consumer = Consumer({**settings.librdkafka(), "group.id": GROUP, "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
        committed = consumer.committed([TopicPartition(TOPIC, index) for index in partitions], timeout=10)
        ends = [consumer.get_watermark_offsets(TopicPartition(TOPIC, p.partition), timeout=10) for p in committed]
        return sum(end - max(p.offset, start) for p, (start, end) in zip(committed, ends, strict=True))
    finally:
        consumer.close()


def test_the_whole_story(stage: Stage, page: Page, watch: Watch) -> None:
    product = stage.product
    # a topic
    page.goto(f"{product.url}/topics/")
    page.get_by_role("button", name="Create topic").click()
    page.fill("#dialog input[name=name]", "orders")
    page.locator("#dialog").get_by_role("button", name="Create").click()
    page.wait_for_url("**/topics/orders/")
    expect(page.locator("h1")).to_have_text("orders")

    # a user, who is refused until an ACL allows it
    page.goto(f"{product.url}/users/")
    page.get_by_role("button", name="Create user").click()
    page.fill("#dialog input[name=name]", "shop")
    page.locator("#dialog").get_by_role("button", name="Create").click()
    password = page.locator("[data-secret]").inner_text()
    page.goto(f"{product.url}/acls/")
    page.get_by_role("button", name="Create ACL").click()
    fill_acl(page, principal="nobody", topic="something-else", operation="WRITE")
    with pytest.raises(Refused):
        send(stage, password, "before")
    page.goto(f"{product.url}/acls/")
    page.get_by_role("button", name="Create ACL").click()
    fill_acl(page, principal="shop", topic="orders", operation="WRITE")
    until(lambda: allowed(stage, password), "the ACL did not allow the client")

    # a device publishes while the consumer stands still: lag rises; it falls when the consumer works
    billing = Billing(product)
    with billing.running():
        # it has worked before: a group that never committed has no lag that anybody could know
        billing.go.set()
        publish(product, ["{}"])
        until(lambda: billing.billed == ["{}"], "the first passage was not billed")
        billing.go.clear()
        payloads = [f'{{"plate": "BS {number}"}}' for number in range(MESSAGES)]
        publish(product, [*payloads[: MESSAGES // 2], BROKEN, *payloads[MESSAGES // 2 :]])
        page.goto(f"{product.url}/dead-letters/")
        page.evaluate("window.sameDocument = true")
        group = watch.page(page.context)
        until(lambda: shows_group(group, product), "the group's page did not show its lag")
        until(lambda: (figure(group, f"group/{GROUP}/lag") or 0) > MESSAGES // 2, "the lag did not rise")
        expect(group.locator("#chart-lag canvas")).to_have_count(1)
        billing.go.set()
        until(lambda: figure(group, f"group/{GROUP}/lag") == 0, "the lag did not fall")
        assert lag_of(product) == 0
        until(lambda: sorted(billing.billed) == sorted(["{}", *payloads]), "not every passage was billed")
        until(lambda: rose_and_fell(group, MESSAGES // 2), "the chart does not show the lag rise and fall")
        group.close()

        # the dead letter appears without a reload, is looked at, edited and sent again
        row = page.locator("tr", has_text=f"dlq.{TOPIC}")
        expect(row.first).to_be_visible(timeout=30_000)
        expect(row.first).to_contain_text("handler")
        assert page.evaluate("window.sameDocument") is True
        row.first.get_by_role("link").first.click()
        page.wait_for_url("**/dead-letters/dlq.mqtt.messages/")
        page.locator("#letters-body tbody th a").first.click()
        drawer = page.locator("#drawer")
        expect(drawer).to_contain_text("a passage without a plate")
        drawer.get_by_role("button", name="Edit and send again").click()
        dialog = page.locator("#dialog")
        expect(dialog.locator("textarea[name=value]")).to_have_value(BROKEN)
        dialog.locator("textarea[name=value]").fill(MENDED)
        dialog.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("#toasts")).to_contain_text(f"Sent to {TOPIC}")
        until(lambda: MENDED in billing.billed, "the mended passage was not billed")

    # the audit page says who did what
    page.goto(f"{product.url}/audit/")
    for action in ("topic.create", "user.create", "acl.create", "deadletter.redrive"):
        expect(page.locator("tr", has_text=action).first).to_contain_text("admin")


def rose_and_fell(page: Page, height: int) -> bool:
    """What the lag chart draws: up to more than `height`, and back to 0."""
    url = page.locator("#chart-lag").get_attribute("data-url")
    answer = page.request.get(f"{page.url.split('/groups/')[0]}{url}?series=group/{GROUP}/lag&window=300").json()
    (values,) = answer["values"]
    drawn = [value for value in values if value is not None]
    return bool(drawn) and max(drawn) > height and drawn[-1] == 0


def fill_acl(page: Page, *, principal: str, topic: str, operation: str) -> None:
    """The dialog's ACL: allow `principal` this operation on this topic."""
    dialog = page.locator("#dialog")
    dialog.locator("select[name=permission]").select_option(label="Allow")
    dialog.locator("select[name=operation]").select_option(label=operation)
    dialog.locator("input[name=principal]").fill(principal)
    dialog.locator("select[name=resource]").select_option(label="Topic")
    dialog.locator("input[name=name]").fill(topic)
    dialog.get_by_role("button", name="Create").click()
    expect(page.locator("tr", has_text=topic).first).to_be_visible()


def shows_group(page: Page, product: Product) -> bool:
    """Open the group's page; whether it is there yet and its lag is known."""
    url = f"{product.url}/groups/{GROUP}/"
    if not page.request.get(url).ok:
        return False
    page.goto(url)
    return page.locator(f'main [data-live="group/{GROUP}/lag"]').count() > 0 and (
        figure(page, f"group/{GROUP}/lag") is not None
    )
