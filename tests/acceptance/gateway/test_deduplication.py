"""Messages with an id, sent again: after a crash, by another quality of service, after their window."""

from __future__ import annotations

from paho.mqtt.properties import Properties

from gateway.routes import Uplink
from tests.acceptance.gateway.people import Device5, Operator, until
from tests.acceptance.gateway.stack import Stack

ROUTE = Uplink(name="orders", filter="orders/#", topic="orders", deduplicate=3600.0)
BY_TEMPLATE = Uplink(
    name="bills", filter="bills/#", topic="bills", message_id="{client_id}-{payload.number}", deduplicate=3600.0
)


def send(device: Device5, topic: str, payload: bytes, message_id: str = "", qos: int = 1) -> None:
    properties = Properties(3)  # type: ignore[no-untyped-call]  # PUBLISH
    if message_id:
        properties.UserProperty = ("sluice.message.id", message_id)
    device.client.publish(topic, payload, qos=qos, properties=properties).wait_for_publish(60)


def stored(operator: Operator, topic: str) -> list[tuple[bytes | None, str | None]]:
    return [(record.value, record.text("sluice.message.id")) for record in operator.records(topic)]


def test_an_id_is_stored_once_though_the_gateway_dies_in_between(running: Stack, operator: Operator) -> None:
    operator.route(ROUTE)
    operator.route(BY_TEMPLATE)
    device = Device5(running, "shop")
    # the routes are in force once a second message of an id is left out
    sent = 0

    def in_force() -> bool:
        nonlocal sent
        sent += 1
        for _ in range(2):
            send(device, "orders/x", b"probe", f"probe-{sent}")
        return [each for _, each in stored(operator, "orders")].count(f"probe-{sent}") == 1

    assert until(in_force)
    send(device, "orders/1", b"first", "a")
    send(device, "orders/1", b"first, again", "a", qos=2)
    send(device, "orders/2", b"second", "b", qos=2)
    send(device, "orders/2", b"second, again", "b")
    send(device, "orders/3", b"no id")
    send(device, "orders/3", b"no id")
    for _ in range(2):
        send(device, "bills/1", b'{"number": 7}')
    running.gateway.kill()
    for file in (running.folder / "data").glob("gateway*.sqlite3*"):
        file.unlink()
    running.gateway.start()
    after = Device5(running, "shop")
    for qos in (1, 2):
        send(after, "orders/1", b"first, after the crash", "a", qos=qos)
        send(after, "orders/2", b"second, after the crash", "b", qos=qos)
        send(after, "bills/1", b'{"number": 7}', qos=qos)
    send(after, "orders/4", b"new", "c")
    found = [each for each in stored(operator, "orders") if each[0] != b"probe"]
    assert sorted(map(repr, found)) == sorted(
        map(repr, [(b"first", "a"), (b"second", "b"), (b"no id", None), (b"no id", None), (b"new", "c")])
    )
    assert stored(operator, "bills") == [(b'{"number": 7}', "shop-7")]
