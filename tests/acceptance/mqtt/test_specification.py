"""Sentences of MQTT 5 and 3.1.1 that no foreign client or suite in these tests asks for, on a real port of the whole
product. Each test names the clause."""

from __future__ import annotations

import itertools
import threading
import time

from tests.acceptance.mqtt.conftest import Product
from tests.acceptance.mqtt.raw import Arrival, Raw
from tests.fakes.mqtt_device import ack, packet, publish, subscribe, text, unsubscribe

EXPIRY = b"\x11"  # Session Expiry Interval
FOREVER = EXPIRY + b"\xff\xff\xff\xff"
NO_LOCAL, AS_PUBLISHED = 4, 8


def seconds(number: int) -> bytes:
    return number.to_bytes(4, "big")


def largest(size: int) -> bytes:
    return b"\x27" + seconds(size)


def test_no_packet_is_larger_than_the_client_takes(product: Product, prefix: str) -> None:
    """MQTT-3.1.2-24, -25: not SUBACK either; a message that is too large counts as delivered."""
    with Raw(product.port, f"{prefix}-r", properties=largest(60) + b"\x21\x00\x01\x22\x00\x05") as receiver:
        receiver.subscribe((f"{prefix}/#", 1))
        with Raw(product.port, f"{prefix}-s") as sender:
            sender.publish(f"{prefix}/x", b"x" * 60)
            sender.publish(f"{prefix}/x", b"fits")
            sender.publish(f"{prefix}/x", b"fits too")
        first = receiver.arrival()
        assert (first.topic, first.payload) == (f"{prefix}/x".encode(), b"fits"), "an alias that it was never told"
        receiver.send(first.ack)
        assert receiver.arrival().payload == b"fits too"  # under a Receive Maximum of one
        receiver.send(subscribe(*((f"{prefix}/{number}", 0) for number in range(64)), properties=b""))
        assert (receiver.ended() or b"")[:1] == b"\x95", "a SUBACK that is too large"
    refused = Raw(product.port, f"{prefix}-n", username="nobody", password=b"wrong", properties=largest(10))
    assert refused.connack[1] == 0x86 and len(refused.connack) + 2 <= 10
    refused.vanish()


def test_a_will_waits_for_its_delay_or_the_end_of_its_session(product: Product, prefix: str) -> None:
    """MQTT-3.1.2-8, 3.1.3.2.2, MQTT-3.1.3-9, MQTT-3.14.4-3: only 0x00 takes a will back."""

    def device(name: str, delay: int, properties: bytes, *, clean: bool = True) -> Raw:
        will = (f"{prefix}/{name}", name.encode(), 0, False)
        client_id = f"{prefix}-{name}"
        delayed = b"\x18" + seconds(delay) if delay else b""
        return Raw(product.port, client_id, will=will, will_properties=delayed, properties=properties, clean=clean)

    with Raw(product.port, f"{prefix}-listener") as listener:
        listener.subscribe((f"{prefix}/#", 0))
        device("goodbye", 0, b"").disconnect()
        device("delayed", 2, FOREVER).vanish()
        device("session-ends-first", 600, EXPIRY + seconds(1)).vanish()
        device("session-ends-at-once", 600, b"").vanish()
        device("with-will", 0, b"").disconnect(0x04)
        device("in-trouble", 0, b"").disconnect(0x97)
        first = device("returns", 2, FOREVER)
        first.vanish()
        again = device("returns", 2, FOREVER, clean=False)
        assert again.present
        device("starts-anew", 600, FOREVER).vanish()
        anew = Raw(product.port, f"{prefix}-starts-anew")
        said = {b"delayed", b"session-ends-first", b"session-ends-at-once", b"with-will", b"in-trouble", b"starts-anew"}
        assert {listener.arrival().payload for _ in said} == said
        assert listener.silent(1.0)
        again.disconnect()
        anew.disconnect()


def test_a_session_ends_when_its_expiry_is_over(product: Product, prefix: str) -> None:
    """MQTT-3.1.2-23, MQTT-4.1.0-2, 3.14.2.2.2: the interval counts from the end of the connection, and DISCONNECT may
    change it, but not invent one."""
    with Raw(product.port, f"{prefix}-short", properties=EXPIRY + seconds(1)) as device:
        device.subscribe((f"{prefix}/#", 1))
    time.sleep(1.01)
    with Raw(product.port, f"{prefix}-short", clean=False, properties=EXPIRY + seconds(60)) as device:
        assert not device.present, "its session had expired"
        device.disconnect(0, EXPIRY + seconds(0))
    with Raw(product.port, f"{prefix}-short", clean=False) as device:
        assert not device.present, "DISCONNECT had ended the session"
        device.send(packet(0xE0, b"\x00\x05" + EXPIRY + seconds(5)))
        assert device.ended() == b"\x82" or device.ended() == b"", "an expiry invented at the end"


def test_retained_messages_come_as_each_subscription_asks(product: Product, prefix: str) -> None:
    """MQTT-3.3.1-9, -10, -11, -12, -13; 4.8.2: none for a shared subscription."""
    with Raw(product.port, f"{prefix}-s") as sender, Raw(product.port, f"{prefix}-r") as receiver:
        sender.publish(f"{prefix}/x", b"kept", retain=True)
        assert receiver.subscribe((f"{prefix}/x", 1 | 0x10)) == b"\x01"
        found = receiver.arrival()
        assert (found.payload, found.retain) == (b"kept", True)
        receiver.send(found.ack)
        receiver.subscribe((f"{prefix}/x", 1 | 0x10))  # only if new
        receiver.subscribe((f"{prefix}/#", 1 | 0x20))  # never
        receiver.subscribe((f"$share/g/{prefix}/x", 1))
        assert receiver.packets() == []
        receiver.subscribe((f"{prefix}/x", 0))  # always
        found = receiver.arrival()
        assert (found.payload, found.retain, found.qos) == (b"kept", True, 0)
        receiver.unsubscribe(f"{prefix}/#", f"$share/g/{prefix}/x")
        sender.publish(f"{prefix}/x", b"new", retain=True)
        found = receiver.arrival()
        assert (found.payload, found.retain) == (b"new", False)
        receiver.subscribe((f"{prefix}/x", AS_PUBLISHED | 0x20))
        sender.publish(f"{prefix}/x", b"newer", retain=True)
        assert receiver.arrival().retain
        sender.publish(f"{prefix}/x", retain=True)
        assert receiver.arrival().payload == b"", "taking it away is a message as well (3.3.1.3)"
        receiver.subscribe((f"{prefix}/x", 0))
        assert receiver.packets() == []


def test_what_one_published_before_subscribing_comes_as_retained_or_not_at_all(product: Product, prefix: str) -> None:
    """3.8.3.1, MQTT-4.6.0-5: packets of one connection take effect in their order, of QoS 0 too."""
    with Raw(product.port, f"{prefix}-d") as device:
        for number in range(20):
            kept, never = f"{prefix}/kept/{number}", f"{prefix}/never/{number}"
            device.send(
                publish(kept, b"x", retain=True, properties=b""),
                publish(never, b"x", retain=True, properties=b""),
                subscribe((kept, 0), (never, 0x20), properties=b""),
            )
            found = [first for first, _ in device.packets()]
            assert found == [0x90, 0x31], f"round {number}"
            device.send(
                publish(kept, retain=True, properties=b""),
                publish(never, retain=True, properties=b""),
                unsubscribe(kept, never, properties=b""),
            )
            device.packets()


def test_nothing_retained_comes_after_what_replaced_it(product: Product, prefix: str) -> None:
    """3.3.1.3: sixty subscribers, while somebody publishes one retained message after the other."""
    stop = threading.Event()

    def publish_on() -> None:
        with Raw(product.port, f"{prefix}-s") as sender:
            for number in itertools.count(1):
                sender.publish(f"{prefix}/x", b"%d" % number, retain=not stop.is_set())
                if stop.is_set():
                    break

    publishing = threading.Thread(target=publish_on)
    publishing.start()
    try:
        for number in range(60):
            with Raw(product.port, f"{prefix}-{number}") as device:
                device.send(subscribe((f"{prefix}/#", 0), properties=b""))
                arrived: list[tuple[int, bool]] = []
                while len(arrived) < 5:
                    first, body = device.next()
                    if first != 0x90:
                        found = Arrival(first, body, 5)
                        arrived.append((int(found.payload), found.retain))
                late = [
                    each for at, (each, retain) in enumerate(arrived) if retain and each < max(arrived[: at + 1])[0]
                ]
                assert not late, arrived
    finally:
        stop.set()
        publishing.join()


def test_one_copy_has_all_the_identifiers_and_the_highest_qos(product: Product, prefix: str) -> None:
    """MQTT-3.3.4-2, -3, -4, MQTT-3.8.3-3: and what one sent oneself comes by the subscriptions that want it."""
    with Raw(product.port, f"{prefix}-d") as device:
        device.subscribe((f"{prefix}/+", 0), properties=b"\x0b\x05")
        device.subscribe((f"{prefix}/x", 2), properties=b"\x0b\x80\x01")
        device.subscribe((f"{prefix}/#", 1 | NO_LOCAL), properties=b"\x0b\x07")
        device.send(publish(f"{prefix}/x", b"mine", properties=b""))
        own = device.arrival()
        assert own.payload == b"mine" and own.qos == 0
        assert sorted([b"\x0b\x05", b"\x0b\x80\x01"]) == sorted(_identifiers(own.properties))
        with Raw(product.port, f"{prefix}-o") as other:
            other.publish(f"{prefix}/x", b"other's", qos=2)
        found = device.arrival()
        assert (found.payload, found.qos) == (b"other's", 2)
        assert len(_identifiers(found.properties)) == 3
        device.send(found.ack)
        assert device.next()[0] == 0x62
        device.send(found.pubcomp)
        assert device.packets() == []


def _identifiers(properties: bytes) -> list[bytes]:
    found = []
    while properties:
        end = 2 if properties[1] < 128 else 3
        found.append(properties[:end])
        properties = properties[end:]
    return found


def test_what_was_unfinished_comes_again_in_its_order_and_then_what_waited(product: Product, prefix: str) -> None:
    """MQTT-4.4.0-1, MQTT-4.6.0-1, -4, MQTT-3.3.1-1, 4.9: PUBLISH with DUP and PUBREL, under their packet ids; and a
    PUBREC that refuses makes room."""
    quota = FOREVER + b"\x21\x00\x04"
    device = Raw(product.port, f"{prefix}-d", properties=quota)
    device.subscribe((f"{prefix}/#", 2))
    with Raw(product.port, f"{prefix}-s") as sender:
        for number in range(8):
            sender.publish(f"{prefix}/{number}", b"%d" % number, qos=2 if number % 2 else 1)
        first = [device.arrival() for _ in range(4)]
        assert [each.payload for each in first] == [b"0", b"1", b"2", b"3"]
        assert device.packets() == [], "more than it takes"
        device.send(first[1].ack)
        assert device.next() == (0x62, first[1].packet_id.to_bytes(2, "big"))
        device.vanish()
    device = Raw(product.port, f"{prefix}-d", clean=False, properties=quota)
    assert device.present
    again = [device.next() for _ in range(4)]
    assert [kind for kind, _ in again] == [0x3A, 0x62, 0x3A, 0x3C]
    assert again[1][1] == first[1].packet_id.to_bytes(2, "big")
    assert [each.packet_id.to_bytes(2, "big") in body for each, (_, body) in zip(first, again, strict=True)] == [
        True
    ] * 4
    device.send(first[1].pubcomp)
    assert device.arrival().payload == b"4"
    device.send(ack(0x50, first[3].packet_id, 0x80))  # refused: that exchange is over
    assert device.arrival().payload == b"5"
    device.send(first[0].ack, first[2].ack)
    assert [device.arrival().payload for _ in range(2)] == [b"6", b"7"]
    device.vanish()
    with Raw(product.port, f"{prefix}-d", clean=False, properties=quota) as device:
        assert [device.arrival().payload for _ in range(4)] == [b"4", b"5", b"6", b"7"]
        device.disconnect(0, EXPIRY + seconds(0))


def test_what_a_client_shares_with_itself_it_gets_once_for_each_group(product: Product, prefix: str) -> None:
    """4.8.2: share groups, and a subscription that is not shared, are apart; each copy is acknowledged by itself."""
    device = Raw(product.port, f"{prefix}-d", properties=FOREVER)
    filters = [(f"$share/a/{prefix}/x", 1), (f"$share/b/{prefix}/x", 2), (f"{prefix}/x", 1)]
    assert device.subscribe(*filters) == b"\x01\x02\x01"
    with Raw(product.port, f"{prefix}-s") as sender:
        sender.publish(f"{prefix}/x", b"all", qos=2)
        copies = [device.arrival() for _ in range(3)]
        assert sorted(each.qos for each in copies) == [1, 1, 2]
        assert len({each.packet_id for each in copies}) == 3
        for each in copies:
            device.send(each.ack)
        assert device.next()[0] == 0x62
        device.send(next(each for each in copies if each.qos == 2).pubcomp)
        device.disconnect()
        device = Raw(product.port, f"{prefix}-d", clean=False, properties=FOREVER)
        sender.publish(f"{prefix}/x", b"next", qos=0)
        found = [device.arrival().payload for _ in range(3)]
        assert found == [b"next"] * 3, "what it had acknowledged came again"
    device.disconnect(0, EXPIRY + seconds(0))


def test_what_a_member_leaves_goes_to_another_unless_it_is_of_qos_2(product: Product, prefix: str) -> None:
    """4.8.2, MQTT-4.8.2-4, -5: of QoS 2 nobody else may get it."""
    shared = f"$share/g/{prefix}/#"
    leaving = Raw(product.port, f"{prefix}-leaving")
    leaving.subscribe((shared, 2))
    with Raw(product.port, f"{prefix}-s") as sender, Raw(product.port, f"{prefix}-stays") as stays:
        sender.publish(f"{prefix}/1", b"one", qos=1)
        sender.publish(f"{prefix}/2", b"two", qos=2)
        assert {leaving.arrival().payload, leaving.arrival().payload} == {b"one", b"two"}
        stays.subscribe((shared, 2))
        leaving.vanish()
        found = stays.arrival()
        assert (found.payload, found.dup) == (b"one", False)
        stays.send(found.ack)
        assert stays.silent(0.3)


def test_a_shared_message_waits_for_who_is_away_only_when_nobody_is_there(product: Product, prefix: str) -> None:
    """4.8.2 leaves the choice; but QoS 0 would be lost, and QoS 1 late."""
    shared = f"$share/g/{prefix}/#"
    away = Raw(product.port, f"{prefix}-away", properties=FOREVER)
    there = Raw(product.port, f"{prefix}-there", properties=FOREVER)
    away.subscribe((shared, 1))
    there.subscribe((shared, 1))
    away.disconnect()
    with Raw(product.port, f"{prefix}-s") as sender:
        for number in range(6):
            sender.publish(f"{prefix}/x", b"%d" % number, qos=number % 2)
        found = [there.arrival() for _ in range(6)]
        assert sorted(each.payload for each in found) == [b"%d" % number for number in range(6)]
        there.send(*(each.ack for each in found if each.qos))
        there.packets()
        there.disconnect()
        sender.publish(f"{prefix}/x", b"for whoever comes")
        members = [Raw(product.port, f"{prefix}-{name}", properties=FOREVER, clean=False) for name in ("away", "there")]
        got = [body for each in members for _, body in each.packets()]
        assert [b"for whoever comes" in body for body in got] == [True]
        for each in members:
            each.disconnect(0, EXPIRY + seconds(0))


def test_text_is_taken_as_it_is(product: Product, prefix: str) -> None:
    """MQTT-1.5.4-1, -2, -3: no surrogates, no NUL, and U+FEFF is a character like others."""
    with Raw(product.port, f"{prefix}-d") as device:
        device.subscribe((f"\ufeff{prefix}/ä\u200b", 1))
        device.publish(f"\ufeff{prefix}/ä\u200b".encode(), b"x", qos=0)
        assert device.arrival().topic == f"\ufeff{prefix}/ä\u200b".encode()
    for topic in (b"a\x00b", b"a\xed\xa0\x80b", b"a\xc0\xafb", b"\xff"):
        with Raw(product.port, f"{prefix}-n") as device:
            device.send(publish(topic, b"x", properties=b""))
            assert device.ended() is not None
        with Raw(product.port, f"{prefix}-n") as device:
            device.send(packet(0x82, b"\x00\x01\x00" + text(topic) + b"\x00"))
            assert device.ended() is not None


def test_who_is_silent_for_one_and_a_half_keep_alives_is_gone(product: Product, prefix: str) -> None:
    """MQTT-3.1.2-22, and its will is published."""
    with Raw(product.port, f"{prefix}-l") as listener:
        listener.subscribe((f"{prefix}/will", 0))
        began = time.monotonic()
        silent = [
            Raw(
                product.port,
                f"{prefix}-{version}",
                version=version,
                keep_alive=1,
                will=(f"{prefix}/will", b"%d" % version, 0, False),
            )
            for version in (3, 4, 5)
        ]
        assert all(each.ended() is not None for each in silent)
        assert time.monotonic() - began >= 1.5
        assert sorted(listener.arrival().payload for _ in silent) == [b"3", b"4", b"5"]


def test_the_older_connection_hears_that_it_was_taken_over(product: Product, prefix: str) -> None:
    """MQTT-3.1.4-3; and the newer one has the session."""
    older = Raw(product.port, f"{prefix}-d", properties=FOREVER)
    older.subscribe((f"{prefix}/#", 1))
    with Raw(product.port, f"{prefix}-d", clean=False, properties=FOREVER) as newer:
        ended = older.ended()
        assert ended is not None and ended[:1] == b"\x8e"
        assert newer.present
        newer.publish(f"{prefix}/x", b"mine", qos=0)
        assert newer.arrival().payload == b"mine"
        newer.disconnect(0, EXPIRY + seconds(0))


def test_what_is_left_of_an_expiry_is_told_after_waiting_too(product: Product, prefix: str) -> None:
    """MQTT-3.3.2-5, -6: queued, retained; and what expired is not delivered."""
    device = Raw(product.port, f"{prefix}-d", properties=FOREVER)
    device.subscribe((f"{prefix}/queued/#", 1))
    device.disconnect()
    with Raw(product.port, f"{prefix}-s") as sender:
        for kind, retain in (("queued", False), ("kept", True)):
            sender.publish(f"{prefix}/{kind}/long", b"long", properties=b"\x02" + seconds(100), retain=retain)
            sender.publish(f"{prefix}/{kind}/short", b"short", properties=b"\x02" + seconds(1), retain=retain)
        time.sleep(1.6)
        device = Raw(product.port, f"{prefix}-d", clean=False, properties=FOREVER)
        found = device.arrival()
        assert found.payload == b"long" and found.properties[:1] == b"\x02"
        assert 90 <= int.from_bytes(found.properties[1:5], "big") < 100
        device.send(found.ack)
        device.subscribe((f"{prefix}/kept/#", 0))
        found = device.arrival()
        assert found.payload == b"long" and 90 <= int.from_bytes(found.properties[1:5], "big") < 100
        assert device.packets() == []
        sender.publish(f"{prefix}/kept/long", retain=True)
        device.disconnect(0, EXPIRY + seconds(0))
