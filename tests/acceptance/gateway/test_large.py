"""The largest message that a device may send is stored, kept and given, or a dead letter; nobody sends it for ever."""

from __future__ import annotations

from broker.client.administration.types import ConfigKind, ConfigResource
from gateway.contract import INBOX, LARGEST, RETAINED
from tests.acceptance.gateway.people import Operator, until
from tests.acceptance.gateway.stack import Stack
from tests.acceptance.mqtt.raw import Raw

EXPIRY = b"\x11\x00\x00\x03\x84"
FITS = b"f" * 1_040_000  # into a packet, and with its headers into a record of the usual size
BEYOND = b"b" * (1_048_576 - 2 - 13 - 2 - 1)  # the largest packet; with its headers no record of that size


def test_large_messages_are_retained_wait_for_their_device_and_are_given(running: Stack, operator: Operator) -> None:
    running.gateway.stop()
    with running.admin() as admin:  # as an earlier release made them
        for topic in (RETAINED, INBOX, "dlq.gateway"):
            admin.alter_configs(ConfigResource(ConfigKind.TOPIC, topic), delete=list(LARGEST))
    running.gateway.start()
    away = Raw(running.port, "away", properties=EXPIRY)
    away.subscribe(("large/+", 2))
    away.vanish()
    with Raw(running.port, "sender", properties=EXPIRY) as sender:
        for qos in (1, 2):
            sender.publish(f"large/{qos}", FITS, qos=qos, retain=True)
        sender.publish("beyond/toobig", BEYOND, qos=1)
        sender.publish("beyond/toobig", BEYOND, qos=2)
        sender.publish("large/after", b"small", qos=2)
    for killed in (False, True):  # what was sent and not finished comes again, also after the gateway was killed
        away = Raw(running.port, "away", clean=False, properties=EXPIRY)
        found = [away.arrival() for _ in range(3)]
        assert sorted((each.qos, each.payload) for each in found) == [(1, FITS), (2, FITS), (2, b"small")]
        away.vanish()
        if not killed:
            running.gateway.kill()
            running.gateway.start()
    with Raw(running.port, "reader") as reader:
        reader.subscribe(("large/+", 0))
        kept = [reader.arrival() for _ in range(2)]
        assert all(each.retain and each.payload == FITS for each in kept)
    assert until(lambda: [each.value for each in operator.records("dlq.gateway")] == [BEYOND] * 2)
    assert {each.text("sluice.error.reason") for each in operator.records("dlq.gateway")} == {"size"}
