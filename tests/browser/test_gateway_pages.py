"""What gateways tell, in a real browser: counters that move, a bridge that fails, a device's packets as they pass."""

import threading
from collections.abc import Callable, Iterator

import paho.mqtt.client as paho
import pytest
from playwright.sync_api import Page, expect

from tests.browser.looking import assert_fits, drawn, moves_on, objections, settled
from tests.running_product import Product

pytestmark = pytest.mark.browser
LOOKS = [("desktop", "dark"), ("phone", "light"), ("phone", "dark")]


@pytest.fixture(scope="module")
def pump(product: Product) -> Iterator[str]:
    """A device that publishes and subscribes all the time."""
    client_id, stop = "pump-7", threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id)
    client.on_connect = lambda *_: client.subscribe("plant/7/#", 1)
    client.connect("127.0.0.1", product.mqtt_port)
    client.loop_start()

    def publish() -> None:
        count = 0
        while not stop.wait(0.2):
            count += 1
            client.publish("plant/7/temperature", f'{{"celsius": {20 + count % 5}, "number": {count}}}', qos=1)

    thread = threading.Thread(target=publish)
    thread.start()
    yield client_id
    stop.set()
    thread.join()
    client.disconnect()
    client.loop_stop()


def test_a_client_s_page_says_what_its_gateway_answers(pump: str, opened: Callable[..., Page]) -> None:
    page = opened("phone", "light")
    drawn(page, f"/clients/{pump}/", page.get_by_role("heading", name="Subscriptions"))
    expect(page.locator("#session")).to_contain_text("plant/7/#")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#session")).to_contain_text("plant/7/#")
    assert objections(page) == []
    assert_fits(page)


def test_topic_prefixes_move_on_the_overview(pump: str, opened: Callable[..., Page]) -> None:
    page = opened()
    messages = page.locator('[data-live="prefix/plant/7/messages"]')
    drawn(page, "/", messages)
    moves_on(messages)


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_a_device_s_packets_are_watched(size: str, theme: str, pump: str, opened: Callable[..., Page]) -> None:
    page = opened(size, theme)
    drawn(page, "/clients/", page.locator("#clients-body", has_text=pump))
    page.goto(f"/clients/{pump}/tap/")
    settled(page)
    assert objections(page) == []
    page.get_by_role("button", name="Watch").click()
    state = page.locator("#tap-state")
    expect(state).to_have_text("Watching")
    rows = page.locator("#tap-rows li")
    expect(rows.filter(has_text="PUBLISH").filter(has_text="plant/7/temperature").first).to_be_visible()
    expect(rows.filter(has_text="PUBACK").first).to_be_visible()
    expect(rows.filter(has_text="celsius").first).to_be_visible()
    assert objections(page) == []
    assert_fits(page)


@pytest.mark.parametrize(("size", "theme"), LOOKS[:2])
def test_a_bridge_is_made_and_says_why_it_fails(size: str, theme: str, opened: Callable[..., Page]) -> None:
    page = opened(size, theme)
    name = f"up-{size}"
    page.goto("/bridges/")
    settled(page)
    assert objections(page) == []
    page.get_by_role("button", name="Create bridge").click()
    form = page.locator("#dialog")
    form.get_by_label("Name", exact=True).fill(name)
    assert objections(page) == []
    form.get_by_label("Address").fill("mqtt://127.0.0.1:1")
    form.get_by_label("Client id").fill(name)
    form.get_by_label("User name").fill("someone")
    form.get_by_label("Password").fill("a secret")
    form.get_by_label("Filters in").fill("commands/#")
    form.get_by_label("Filters out").fill("commands/x")
    form.get_by_role("button", name="Create").click()
    expect(form.get_by_role("alert")).to_contain_text("would come in again")
    form.get_by_label("Filters out").fill("plant/#")
    form.get_by_label("Password").fill("a secret")
    form.get_by_role("button", name="Create").click()
    page.wait_for_url(f"**/bridges/{name}/")
    drawn(page, f"/bridges/{name}/", page.locator(".page-head .tag.bad", has_text="trying again"))
    expect(page.locator("main")).to_contain_text("Last error")
    expect(page.locator("main")).not_to_contain_text("a secret")
    assert objections(page) == []
    assert_fits(page)


def test_a_device_s_page_says_why_it_is_refused(product: Product, opened: Callable[..., Page]) -> None:
    page = opened("phone", "dark")
    page.goto("/devices/")
    page.get_by_role("button", name="Add device").click()
    page.locator("#dialog").get_by_label("Name").fill("locked-out")
    page.locator("#dialog").get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("link", name="I have it").click()
    page.wait_for_url("**/devices/locked-out/")
    wrong = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="locked-out")
    wrong.username_pw_set("locked-out", "not its password")
    refused = threading.Event()
    wrong.on_connect = lambda *_: refused.set()
    wrong.connect("127.0.0.1", product.mqtt_port)
    wrong.loop_start()
    try:
        assert refused.wait(60)
    finally:
        wrong.loop_stop()
    drawn(page, "/devices/locked-out/", page.get_by_text("Unknown user name or wrong password"))
    expect(page.locator("main")).to_contain_text("or give it a new password")
    settled(page)
    assert objections(page) == []
    assert_fits(page)
