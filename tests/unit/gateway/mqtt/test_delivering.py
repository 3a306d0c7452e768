"""Messages to devices: subscriptions, windows, retries, properties, shares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.mqtt.fanout import Fanout
from gateway.ports import InFlight, Limits, Message, PublishProperties, Receipt, Session, Subscription
from tests.fakes.gateway_engine import MemoryEngine, Rules
from tests.fakes.mqtt_device import DISCONNECT, Device, ack, connect, packet, publish, subscribe, text, unsubscribe


def payloads(device: Device) -> list[bytes]:
    """Payloads of the MQTT 3 PUBLISH packets that came."""
    found = []
    for first, body in device.received():
        if first >> 4 == 3:
            start = 2 + int.from_bytes(body[:2], "big") + (2 if first & 6 else 0)
            found.append(body[start:])
    return found


@pytest.mark.parametrize(("version", "answer"), [(3, b"\x00\x01"), (4, b"\x00\x01"), (5, b"\x00\x01\x00")])
def test_a_subscribe_is_answered_filter_by_filter(version: int, answer: bytes) -> None:
    device = Device().connected(version=version)
    device.send(subscribe(("a", 0), ("b/#", 1), ("c/+", 2), properties=b"" if version == 5 else None))
    assert device.received() == [(0x90, answer + b"\x00\x01\x02")]


def test_a_publish_behind_a_subscribe_waits_until_the_subscription_is_in_force() -> None:
    device = Device(manual=True).connected()
    device.send(subscribe(("a", 0)) + publish("a", b"x"))
    assert device.engine.published == []
    device.engine.settle_all()
    assert [first for first, _ in device.received()] == [0x90, 0x30]


def test_one_allowed_and_one_denied_filter_get_an_answer_each() -> None:
    rules = Rules(deny_subscribe=["secret/#"])
    four = Device(rules=rules).connected().send(subscribe(("a", 1), ("secret/#", 1)))
    assert four.received() == [(0x90, b"\x00\x01\x01\x80")]
    five = Device(rules=rules).connected(version=5).send(subscribe(("secret/#", 1), ("a", 1), properties=b""))
    assert five.received() == [(0x90, b"\x00\x01\x00\x87\x01")]
    assert list(five.session.subscriptions or {}) == ["a"]
    hiding = Rules(deny_subscribe=["secret/#"], limits=Limits(conceal_denied=True))
    silent = Device(rules=hiding).connected(version=5).send(subscribe(("secret/#", 1), properties=b""))
    assert silent.received() == [(0x90, b"\x00\x01\x00\x80")]


def test_subscriptions_beyond_the_quota_are_refused_and_old_ones_can_change() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=2))).connected(version=5)
    device.send(subscribe(("a", 0), ("b", 0), ("c", 0), properties=b""))
    assert device.received() == [(0x90, b"\x00\x01\x00\x00\x00\x97")]
    device.send(subscribe(("a", 1), properties=b""))
    assert device.received() == [(0x90, b"\x00\x01\x00\x01")]


@pytest.mark.parametrize(
    "sent",
    [
        subscribe(),
        packet(0x82, b"\x00"),
        packet(0x82, b"\x00\x00" + text("a") + b"\x00"),
        packet(0x80, b"\x00\x01" + text("a") + b"\x00"),
        subscribe(("a", 3)),
        subscribe(("a", 4)),
        subscribe(("a/#/b", 0)),
        subscribe(("", 0)),
        packet(0x82, b"\x00\x01" + text("a")),
        packet(0xA2, b"\x00\x01"),
        packet(0xA0, b"\x00\x01" + text("a")),
        packet(0xA2, b"\x00\x01" + text("a#")),
        packet(0x82, b"\x00\x01" + text(b"\xff") + b"\x00"),
    ],
)
def test_a_malformed_subscribe_or_unsubscribe_closes(sent: bytes) -> None:
    device = Device().connected().send(sent)
    assert device.link.closed


def test_no_local_on_a_shared_subscription_is_a_protocol_error() -> None:
    device = Device().connected(version=5).send(subscribe(("$share/g/a", 4), properties=b""))
    assert device.received()[-1][1][0] == 0x82


def test_unsubscribe_says_what_there_was() -> None:
    device = Device().connected(version=5).send(subscribe(("a", 0), properties=b""))
    device.received()
    device.send(unsubscribe("a", "b", properties=b""))
    assert device.received() == [(0xB0, b"\x00\x01\x00\x00\x11")]
    device.send(publish("a", b"x", properties=b""))
    assert device.received() == []


def test_a_message_arrives_with_the_lower_of_the_two_qos() -> None:
    engine = MemoryEngine()
    receiver = Device(engine).connected("r").send(subscribe(("zero", 0), ("two", 2)))
    receiver.received()
    sender = Device(engine).connected("s")
    sender.send(publish("zero", b"a", qos=2, packet_id=1), publish("two", b"b", qos=1, packet_id=2))
    assert [first for first, _ in receiver.received()] == [0x30, 0x32]


def test_overlapping_filters_give_one_message_with_the_highest_qos_and_all_identifiers() -> None:
    device = Device().connected(version=5)
    device.send(subscribe(("a/#", 1), properties=b"\x0b\x07"), subscribe(("a/b", 2), properties=b"\x0b\x08"))
    device.received()
    device.send(publish("a/b", b"x", qos=2, properties=b""))
    messages = [(first, body) for first, body in device.received() if first >> 4 == 3]
    assert len(messages) == 1
    first, body = messages[0]
    assert first == 0x34
    assert body.endswith((b"\x04\x0b\x07\x0b\x08x", b"\x04\x0b\x08\x0b\x07x"))


def test_subscription_options_are_kept() -> None:
    device = Device().connected(version=5)
    device.send(subscribe(("own", 0x04), ("as-published", 0x08), ("plain", 0), properties=b""))
    device.received()
    device.send(
        publish("own", b"1", properties=b""),
        publish("as-published", b"2", retain=True, properties=b""),
        publish("plain", b"3", retain=True, properties=b""),
    )
    assert [(first, body[-1:]) for first, body in device.received()] == [(0x31, b"2"), (0x30, b"3")]


@pytest.mark.parametrize(("handling", "first_time", "again"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retained_messages_come_as_the_subscription_asks(handling: int, first_time: int, again: int) -> None:
    engine = MemoryEngine()
    Device(engine).connected("s").send(publish("a", b"kept", retain=True))
    device = Device(engine).connected(version=5)
    for expected in (first_time, again):
        device.send(subscribe(("a", handling << 4), properties=b""))
        received = device.received()
        assert received[0][0] == 0x90, "SUBACK comes first"
        assert [first for first, _ in received[1:]] == [0x31] * expected


def test_an_empty_retained_message_takes_the_old_one_away() -> None:
    engine = MemoryEngine()
    Device(engine).connected("s").send(publish("a", b"kept", retain=True), publish("a", b"", retain=True))
    device = Device(engine).connected().send(subscribe(("a", 0)))
    assert [first for first, _ in device.received()] == [0x90]


def test_shared_subscriptions_take_turns_and_get_no_retained_messages() -> None:
    engine = MemoryEngine()
    sender = Device(engine).connected("s").send(publish("a", b"kept", retain=True))
    members = [Device(engine).connected(f"m{number}", version=5) for number in range(3)]
    for member in members:
        member.send(subscribe(("$share/group/a", 0), properties=b""))
        assert [first for first, _ in member.received()] == [0x90]
    for number in range(9):
        sender.send(publish("a", b"%d" % number))
    assert [len(member.received()) for member in members] == [3, 3, 3]
    members[0].send(unsubscribe("$share/group/a", properties=b"")).received()
    members[1].session.lost("gone")
    for number in range(4):
        sender.send(publish("a", b"%d" % number))
    assert len(members[2].received()) == 4


def test_a_shared_message_goes_to_whom_it_can_leave_for_at_once() -> None:
    engine = MemoryEngine()
    slow = Device(engine).connected("slow", version=5, properties=b"\x21\x00\x01")  # it takes one at a time
    quick = Device(engine).connected("quick", version=5)
    for member in (slow, quick):
        member.send(subscribe(("$share/group/a", 1), properties=b"")).received()
    sender = Device(engine).connected("s")
    for number in range(6):
        sender.send(publish("a", b"%d" % number, qos=1, packet_id=number + 1))
    assert [len(member.received()) for member in (slow, quick)] == [1, 5]


def test_a_delivery_the_policy_denies_is_not_made() -> None:
    device = Device().connected()
    refused: list[str] = []

    def may_read(session: Session, topic: str) -> bool:
        refused.append(topic)
        return not topic.startswith("secret")

    fanout = Fanout(may_read, lambda *_: None)
    wide = Subscription(filter="#", check=True)
    fanout.subscribe(device.session, wide)
    fanout.subscribe(device.session, replace(wide, filter="secret/+", check=False))
    fanout.subscribe(device.session, Subscription(filter="$share/g/#", check=True))
    assert fanout.deliver(Message("secret/a", b"x", 0)) == 0
    assert fanout.deliver(Message("open", b"x", 0)) == 2
    assert refused == ["secret/a", "secret/a", "open", "open"]


# -- window, queue, retry ----------------------------------------------------------------------------------------


def message(payload: bytes = b"x", *, qos: int = 1, **more: Any) -> Message:
    return Message("a", payload, qos, **more)


def test_the_window_is_the_smaller_of_both_wishes_and_the_rest_waits() -> None:
    device = Device().connected(version=5, properties=b"\x21\x00\x02")
    for number in range(5):
        assert device.session.deliver(message(b"%d" % number), 1, False)
    assert [body[3:5] for _, body in device.received()] == [b"\x00\x01", b"\x00\x02"]
    device.send(ack(0x40, 2))
    assert [body[3:5] for _, body in device.received()] == [b"\x00\x03"]
    assert ("d1", 2, 0) in device.engine.finishes


def test_a_full_queue_says_no_and_asks_again_when_there_is_room() -> None:
    wanted: list[str] = []

    class Asking(MemoryEngine):
        def wants(self, session: Session) -> None:
            wanted.append(session.client_id)

    device = Device(Asking(Rules(limits=Limits(window=1, queue=4)))).connected()
    taken = [device.session.deliver(message(), 1, False) for _ in range(7)]
    assert taken == [True] * 5 + [False] * 2
    assert device.session.room == 0
    for packet_id in (1, 2):
        device.send(ack(0x40, packet_id))
    assert wanted == ["d1"]
    assert device.session.room == 2


def test_the_queue_has_a_limit_in_bytes_as_well() -> None:
    device = Device(rules=Rules(limits=Limits(window=1, queue=100, queue_bytes=1000))).connected()
    taken = [device.session.deliver(message(b"x" * 600), 1, False) for _ in range(4)]
    assert taken == [True, True, True, False]


def test_a_full_link_drops_qos_0_and_keeps_qos_1() -> None:
    device = Device().connected()
    device.link.writable = False
    device.session.writing_paused()
    assert not device.link.reading
    assert device.session.deliver(message(b"0", qos=0), 0, False)
    assert device.session.deliver(message(b"1"), 1, False)
    assert device.received() == []
    assert device.session.dropped_messages == 1
    device.link.writable = True
    device.session.writing_resumed()
    assert payloads(device) == [b"1"]
    assert device.link.reading


def test_a_peer_that_never_reads_is_closed() -> None:
    device = Device().connected(keep_alive=0)
    device.link.writable = False
    device.session.writing_paused()
    device.pass_time(59)
    assert not device.link.closed
    device.pass_time(2)
    assert device.link.closed


def test_what_was_not_acknowledged_comes_again_in_order_with_its_packet_ids() -> None:
    engine = MemoryEngine()
    device = Device(engine).connected(clean=False)
    for number in range(4):
        device.session.deliver(message(b"%d" % number, qos=1 + number % 2), 1 + number % 2, False)
    device.send(ack(0x40, 1), ack(0x50, 2))
    device.session.lost("gone")
    again = Device(engine).send(connect(clean=False))
    received = again.received()
    assert received[0] == (0x20, b"\x01\x00")
    assert [(first, body[3:5] if first >> 4 == 3 else body) for first, body in received[1:]] == [
        (0x62, b"\x00\x02"),
        (0x3A, b"\x00\x03"),
        (0x3C, b"\x00\x04"),
    ]
    again.send(ack(0x70, 2), ack(0x40, 3), ack(0x50, 4), ack(0x70, 4))
    assert not again.link.closed
    again.session.deliver(message(b"new"), 1, False)
    assert payloads(again)[-1] == b"new"


def test_a_smaller_window_after_the_reconnect_sends_again_by_portions() -> None:
    engine = MemoryEngine()
    five = b"\x11\xff\xff\xff\xff"
    device = Device(engine).connected(version=5, properties=five)
    for number in range(5):
        device.session.deliver(message(b"%d" % number), 1, False)
    device.session.lost("gone")
    again = Device(engine).send(connect(version=5, clean=False, properties=five + b"\x21\x00\x02"))
    assert [first for first, _ in again.received()] == [0x20, 0x3A, 0x3A]
    again.send(ack(0x40, 1))
    assert [body[3:5] for _, body in again.received()] == [b"\x00\x03"]
    again.send(ack(0x40, 2), ack(0x40, 3), ack(0x40, 4), ack(0x40, 5))
    assert len(engine.finishes) == 5


def test_messages_queued_while_away_arrive_after_the_return() -> None:
    engine = MemoryEngine()
    device = Device(engine).connected(clean=False).send(subscribe(("a", 1)))
    device.session.lost("gone")
    Device(engine).connected("s").send(*(publish("a", b"%d" % n, qos=1, packet_id=n + 1) for n in range(3)))
    again = Device(engine).send(connect(clean=False))
    assert payloads(again) == [b"0", b"1", b"2"]


def test_clean_start_forgets_everything() -> None:
    engine = MemoryEngine()
    device = Device(engine).connected(clean=False).send(subscribe(("a", 1)))
    device.session.deliver(message(), 1, False)
    device.session.lost("gone")
    again = Device(engine).connected(clean=True)
    Device(engine).connected("s").send(publish("a", b"x", qos=1))
    assert again.received() == []
    assert again.session.subscriptions is None


@pytest.mark.parametrize("sent", [ack(0x50, 1), ack(0x70, 1)])
def test_the_wrong_acknowledgement_for_a_qos_1_message_closes(sent: bytes) -> None:
    device = Device().connected()
    device.session.deliver(message(), 1, False)
    device.send(sent)
    assert device.link.closed


def test_a_pubcomp_before_the_pubrec_closes() -> None:
    device = Device().connected()
    device.session.deliver(message(qos=2), 2, False)
    device.send(ack(0x70, 1))
    assert device.link.closed


def test_a_pubrec_with_an_error_ends_the_exchange() -> None:
    device = Device().connected(version=5)
    device.session.deliver(message(qos=2), 2, False)
    device.received()
    device.send(ack(0x50, 1, 0x97))
    assert device.received() == []
    assert device.engine.finishes == [("d1", 1, 0x97)]


def test_a_message_leaves_once_its_packet_id_is_durable_and_nobody_overtakes_it() -> None:
    class Careful(MemoryEngine):
        def __init__(self) -> None:
            super().__init__()
            self.saving: list[Receipt[Any]] = []

        def sending(self, session: Session, packet_id: int, message: Message, qos: int) -> Receipt[Any] | None:
            if qos < 2:
                return None
            self.saving.append(Receipt())
            return self.saving[-1]

    engine = Careful()
    device = Device(engine).connected()
    device.session.deliver(message(b"1", qos=2), 2, False)
    device.session.deliver(message(b"2", qos=2), 2, False)
    device.session.deliver(message(b"3", qos=1), 1, False)
    engine.saving[1].settle()
    assert payloads(device) == []
    engine.saving[0].settle()
    assert payloads(device) == [b"1", b"2", b"3"]


def test_a_pubrel_leaves_once_the_pubrec_is_durable() -> None:
    saving: Receipt[Any] = Receipt()

    class Careful(MemoryEngine):
        def received(self, session: Session, packet_id: int, message: Message | None) -> Receipt[Any] | None:
            return saving

    device = Device(Careful()).connected()
    device.session.deliver(message(qos=2), 2, False)
    device.received()
    device.send(ack(0x50, 1))
    assert device.received() == []
    saving.settle()
    assert device.received() == [(0x62, b"\x00\x01")]


# -- MQTT 5 on the way out ---------------------------------------------------------------------------------------


def test_properties_travel_unchanged_and_expiry_counts_down() -> None:
    properties = (
        b"\x01\x01" + b"\x02\x00\x00\x00\x0a" + b"\x03" + text("text/plain") + b"\x08" + text("r") + b"\x09" + text("c")
    )
    properties += b"\x26" + text("k") + text("1") + b"\x26" + text("k") + text("2")
    engine = MemoryEngine(manual=False)
    receiver = Device(engine).connected("r", version=5).send(subscribe(("a", 0), properties=b""))
    engine.clock = lambda: receiver.moment.wall
    receiver.received()
    Device(engine).connected("s", version=5).send(publish("a", b"x", properties=properties))
    [(_, body)] = receiver.received()
    assert body == text("a") + bytes([len(properties)]) + properties + b"x"
    waiting = message(b"w", properties=PublishProperties(message_expiry=10), expires_at=receiver.moment.wall + 6.9)
    receiver.session.deliver(waiting, 1, False)
    assert b"\x02\x00\x00\x00\x07" in receiver.received()[0][1]


def test_an_expired_message_is_not_sent() -> None:
    device = Device().connected()
    assert device.session.deliver(message(expires_at=device.moment.wall - 1), 1, False)
    assert device.received() == []
    assert device.engine.drops == [("d1", "expired")]
    assert device.session.deliver(message(b"next"), 1, False)
    assert payloads(device) == [b"next"]


def test_a_message_larger_than_the_client_takes_is_passed_over() -> None:
    device = Device().connected(version=5, properties=b"\x27\x00\x00\x00\x20")
    for qos in (0, 1):
        assert device.session.deliver(message(b"x" * 40, qos=qos), qos, False)
        assert device.session.deliver(message(b"y", qos=qos), qos, False)
    assert [body[-1:] for _, body in device.received()] == [b"y", b"y"]
    assert device.engine.drops == [("d1", "too large")] * 2


def test_topics_are_aliased_for_clients_that_take_aliases() -> None:
    device = Device().connected(version=5, properties=b"\x22\x00\x01")
    for topic in ("one", "one", "two", "one"):
        device.session.deliver(Message(topic, b"x", 0), 0, False)
    assert [body for _, body in device.received()] == [
        text("one") + b"\x03\x23\x00\x01x",
        b"\x00\x00\x03\x23\x00\x01x",
        text("two") + b"\x00x",
        b"\x00\x00\x03\x23\x00\x01x",
    ]


def test_one_frame_serves_every_qos_0_subscriber_of_a_dialect() -> None:
    engine = MemoryEngine()
    devices = [Device(engine).connected(f"d{n}", version=4 + n % 2).send(subscribe_for(n)) for n in range(6)]
    for device in devices:
        device.received()
        device.link.writes.clear()
    Device(engine).connected("s").send(publish("a", b"x"))
    frames = [device.link.writes[0] for device in devices]
    assert len({id(frame) for frame in frames}) == 2


def subscribe_for(number: int) -> bytes:
    return subscribe(("a", 0), properties=b"" if number % 2 else None)


# -- wills -------------------------------------------------------------------------------------------------------


def test_a_will_is_published_when_the_connection_breaks_and_not_after_a_disconnect() -> None:
    engine = MemoryEngine()
    watcher = Device(engine).connected("w").send(subscribe(("will/#", 1)))
    watcher.received()
    Device(engine).connected("a", will=("will/a", b"gone", 1, False)).session.lost("connection lost")
    assert payloads(watcher) == [b"gone"]
    Device(engine).connected("b", will=("will/b", b"gone", 1, False)).send(DISCONNECT)
    assert payloads(watcher) == []


def test_a_delayed_will_waits_and_a_return_calls_it_off() -> None:
    device = Device()
    engine, moment = device.engine, device.moment
    watcher = Device(engine, moment=moment).connected("w", keep_alive=0).send(subscribe(("will", 0)))
    watcher.received()
    options: dict[str, Any] = {
        "version": 5,
        "will": ("will", b"gone", 0, False),
        "will_properties": b"\x18\x00\x00\x00\x05",
        "properties": b"\x11\x00\x00\x00\x64",
    }
    Device(engine, moment=moment).connected("a", **options).session.lost("connection lost")
    watcher.pass_time(4)
    assert payloads(watcher) == []
    watcher.pass_time(2)
    assert payloads(watcher) == [b"gone"]
    Device(engine, moment=moment).connected("a", clean=False, **options).session.lost("connection lost")
    Device(engine, moment=moment).connected("a", clean=False, version=5)
    watcher.pass_time(60)
    assert payloads(watcher) == []


def test_a_will_the_policy_denies_refuses_the_connect() -> None:
    device = Device(rules=Rules(deny_publish=["will"])).send(connect(will=("will", b"x", 0, False)))
    assert bytes(device.link.out) == b"\x20\x02\x00\x05"
    assert device.engine.endings == []


def test_the_state_of_an_in_flight_message_says_what_is_due() -> None:
    device = Device().connected(clean=False)
    device.session.deliver(message(qos=2), 2, True, (4,))
    device.send(ack(0x50, 1))
    device.session.lost("gone")
    [entry] = device.engine.kept["d1"].state.outbound
    assert isinstance(entry, InFlight)
    assert (entry.packet_id, entry.released, entry.qos, entry.retain, entry.identifiers) == (1, True, 2, True, (4,))


def test_a_packet_id_in_flight_is_not_given_out_again() -> None:
    device = Device(rules=Rules(limits=Limits(window=3))).connected()
    device.session.deliver(message(b"stays"), 1, False)
    for _ in range(65_534):
        device.session.deliver(message(), 1, False)
        packet_id = device.session.sender()._last_id
        assert packet_id != 1
        device.session.sender().acknowledged(packet_id, 0)
    device.session.deliver(message(b"after the turn"), 1, False)
    assert device.session.sender()._last_id == 2


def test_nothing_is_delivered_before_the_connack() -> None:
    engine = MemoryEngine(manual=True)
    device = Device(engine).send(connect(clean=False))
    assert not device.session.deliver(message(qos=0), 0, False)
    assert not device.session.deliver(message(), 1, False)
    assert device.received() == []
    engine.settle_all()
    assert [first for first, _ in device.received()] == [0x20]
    device.session.lost("gone")
    assert not device.session.deliver(message(), 1, False)


def test_a_topic_alias_the_client_was_never_told_is_not_used() -> None:
    """MQTT-3.1.2-24: its first message was too large for the client, or was so with the alias alone."""
    device = Device().connected(version=5, properties=b"\x22\x00\x05\x27\x00\x00\x00\x1e")
    device.send(subscribe(("t/#", 0), properties=b""))
    device.received()
    for payload in (b"x" * 40, b"x" * 22, b"y", b"z"):
        device.engine.fanout.deliver(Message("t/a", payload, 0))
    assert [body[2 : 2 + body[1]] for _, body in device.received()] == [b"t/a", b"t/a", b""]
