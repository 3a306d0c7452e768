"""Devices publish: items to the engine, acknowledgements in order, limits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.ports import Limits, NotAcknowledged, PublishItem, Receipt, Refused, Session
from tests.fakes.gateway_engine import MemoryEngine, Rules
from tests.fakes.mqtt_device import DISCONNECT, PINGREQ, Device, ack, connect, packet, publish, text


class ByTheBatch(MemoryEngine):
    """Every publish gets a receipt of its own; the test settles them in any order."""

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__(rules)
        self.receipts: list[Receipt[Any]] = []
        self.batches: list[int] = []

    def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
        super().publish(session, items)
        self.batches.append(len(items))
        self.receipts.append(Receipt())
        return self.receipts[-1]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_nothing_is_acknowledged_before_it_is_durable(version: int) -> None:
    device = Device(manual=True).connected(version=version)
    properties = b"" if version == 5 else None
    device.send(publish("a", b"x", qos=1, packet_id=7, properties=properties))
    assert device.received() == []
    device.engine.settle_all()
    assert device.received() == [(0x40, b"\x00\x07")]


def test_a_read_full_of_messages_is_one_call_and_one_write() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected()
    device.send(b"".join(publish("a", b"x", qos=1, packet_id=n) for n in range(1, 101)))
    assert engine.batches == [100]
    device.link.writes.clear()
    engine.receipts[0].settle()
    assert len(device.link.writes) == 1
    assert [int.from_bytes(body, "big") for _, body in device.received()] == list(range(1, 101))


# properties and payload, most of one length together
ENDS = [(b"", b"xyz"), (b"", b"abc"), (b"\x23\x00\x01", b""), (b"\x01\x01", b"x"), (b"\x01\x00", b"x"), (b"", b"")]
RUNS = st.tuples(
    st.sampled_from(["a", "a", "no/1", ""]),  # one topic is refused, none is for an alias
    st.sampled_from([0, 1, 1, 2]),
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 4, 5]), st.sampled_from(ENDS)), min_size=1, max_size=5),
)


@example(version=4, runs=[("a", 1, [(1, (b"", b"xyz")), (0, (b"", b"xyz"))])], cut=0)
@example(version=5, runs=[("a", 1, [(1, (b"", b"abc")), (2, (b"\x23\x00\x01", b""))])], cut=0)
@given(version=st.sampled_from([3, 4, 5]), runs=st.lists(RUNS, max_size=4), cut=st.integers(0, 30))
def test_frames_mean_the_same_however_many_a_read_brings(version: int, runs: list[Any], cut: int) -> None:
    """Whatever is taken together, since it begins alike, is what each frame says by itself; errors included."""
    frames = []
    for topic, qos, frames_of_run in runs:
        for packet_id, (properties, payload) in frames_of_run:
            body = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
            if version == 5:
                body += bytes((len(properties),)) + properties
            frames.append(packet(0x30 | qos << 1, body + payload))
    stream = b"".join(frames)
    seen = []
    for reads in (frames, [stream], [stream[:cut], stream[cut:]]):
        device = Device(MemoryEngine(Rules(deny_publish=["no/#"]), manual=True)).connected(version=version)
        for data in reads:
            if data:
                device.send(data)
        device.engine.settle_all()
        session = device.session
        taken = session.received_messages, session.refused_messages, session.in_flight
        answers = [] if session.closed else device.received()  # else they depend on what was durable by then
        seen.append((device.engine.published, answers, taken, session.blamed))
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


def test_acknowledgements_keep_publish_order_however_the_receipts_settle() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected()
    chance = random.Random(4)
    sent = []
    for number in range(1, 301):
        qos = chance.choice([1, 1, 2])
        sent.append((0x40 if qos == 1 else 0x50, number))
        device.send(publish(f"t/{number % 5}", b"x", qos=qos, packet_id=number))
    order = list(engine.receipts)
    chance.shuffle(order)
    for receipt in order:
        receipt.settle()
    assert [(first, int.from_bytes(body, "big")) for first, body in device.received()] == sent


def test_a_refused_message_waits_its_turn_among_the_acknowledgements() -> None:
    engine = ByTheBatch(Rules(deny_publish=["secret/#"]))
    device = Device(engine).connected(version=5)
    device.send(publish("a", b"x", qos=1, packet_id=1, properties=b""))
    device.send(publish("secret/a", b"x", qos=1, packet_id=2, properties=b""))
    device.send(publish("a", b"x", qos=1, packet_id=3, properties=b""))
    assert device.received() == []
    engine.receipts[1].settle()
    engine.receipts[0].settle()
    assert device.received() == [(0x40, b"\x00\x01"), (0x40, b"\x00\x02\x87"), (0x40, b"\x00\x03")]
    assert [topic for _, topic, _, _ in engine.published] == ["a", "a"]


@pytest.mark.parametrize(("qos", "answer"), [(1, b"\x40\x02\x00\x05"), (2, b"\x50\x02\x00\x05")])
def test_mqtt_3_acknowledges_what_it_refuses_or_closes(qos: int, answer: bytes) -> None:
    denying = Rules(deny_publish=["secret"])
    device = Device(rules=denying).connected().send(publish("secret", b"x", qos=qos, packet_id=5))
    assert bytes(device.link.out) == answer
    assert device.session.refused_messages == 1
    strict = Rules(deny_publish=["secret"], limits=Limits(close_when_denied=True))
    closing = Device(rules=strict).connected().send(publish("secret", b"x", qos=qos, packet_id=5))
    assert closing.link.closed and not closing.link.out
    assert not device.engine.published and not closing.engine.published


def test_an_unknown_outcome_closes_without_an_acknowledgement_after_those_that_are_known() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected()
    other = Device(engine).connected("d2")
    for number in (1, 2, 3):
        device.send(publish("a", b"x", qos=1, packet_id=number))
    engine.receipts[0].settle()
    engine.receipts[1].fail(NotAcknowledged("the log is gone"))
    engine.receipts[2].settle()
    assert device.received() == [(0x40, b"\x00\x01")]
    assert device.link.closed
    assert not other.link.closed


@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_taken_after_a_message_that_was_not_whatever_is_waited_for_before_it(qos: int) -> None:
    """It is sent again, and would come after what was sent behind it."""

    class Doubtful(ByTheBatch):
        def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
            receipt = super().publish(session, items)
            if len(self.receipts) == 2:
                receipt.fail(NotAcknowledged("the gateway stood still"))
            return receipt

    engine = Doubtful()
    device = Device(engine).connected()
    for number in (1, 2, 3):
        device.send(publish("a", b"%d" % number, qos=qos, packet_id=number))
    assert engine.batches == [1, 1] and device.link.closed and device.received() == []


def test_a_failure_closes_at_once_whatever_is_waited_for_before_it() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected()
    for number in (1, 2):
        device.send(publish("a", b"x", qos=1, packet_id=number))
    engine.receipts[1].fail(NotAcknowledged("nobody knows"))
    assert device.link.closed and device.received() == []


def test_one_doubtful_session_does_not_spoil_a_shared_receipt() -> None:
    class Shared(MemoryEngine):
        shared: Receipt[Any] = Receipt()

        def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
            return self.shared

    engine = Shared()
    devices = [Device(engine).connected(f"d{number}") for number in range(3)]
    for device in devices:
        device.send(publish("a", b"x", qos=1, packet_id=1))
        device.send(publish("a", b"y", qos=1, packet_id=2))
    engine.shared.doubt(devices[1].session)
    engine.shared.settle()
    assert [len(device.received()) for device in devices] == [2, 0, 2]
    assert [device.link.closed for device in devices] == [False, True, False]


def test_a_refused_batch_says_why_to_mqtt_5() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected(version=5).send(publish("a", b"x", qos=1, properties=b""))
    engine.receipts[0].fail(Refused(0x97, "disk full"))
    [(first, body)] = device.received()
    assert (first, body[0]) == (0xE0, 0x97)


# -- QoS 2 -------------------------------------------------------------------------------------------------------


def test_qos_2_is_published_once_however_often_it_is_sent() -> None:
    device = Device(manual=True).connected()
    device.send(publish("a", b"x", qos=2, packet_id=9))
    device.send(publish("a", b"x", qos=2, packet_id=9, dup=True))
    assert device.received() == []
    device.engine.settle_all()
    assert device.received() == [(0x50, b"\x00\x09"), (0x50, b"\x00\x09")]
    assert len(device.engine.published) == 1
    device.send(ack(0x62, 9))
    assert device.received() == [], "PUBCOMP waits for the removal to be durable"
    device.engine.settle_all()
    assert device.received() == [(0x70, b"\x00\x09")]
    assert device.engine.released == [("d1", 9)]
    device.send(publish("a", b"y", qos=2, packet_id=9))
    device.engine.settle_all()
    assert len(device.engine.published) == 2


def test_qos_2_twice_in_one_read_is_still_one_message() -> None:
    device = Device().connected()
    device.send(publish("a", b"x", qos=2, packet_id=9) + publish("a", b"x", qos=2, packet_id=9, dup=True))
    assert [first for first, _ in device.received()] == [0x50, 0x50]
    assert len(device.engine.published) == 1


def test_a_qos_2_packet_id_outlives_the_connection() -> None:
    engine = MemoryEngine()
    Device(engine).connected(clean=False).send(publish("a", b"x", qos=2, packet_id=9)).session.lost("gone")
    again = Device(engine).connected(clean=False)
    again.send(publish("a", b"x", qos=2, packet_id=9, dup=True))
    assert again.received() == [(0x50, b"\x00\x09")]
    assert len(engine.published) == 1
    again.send(ack(0x62, 9))
    assert again.received() == [(0x70, b"\x00\x09")]


def test_a_pubrel_for_nothing_is_completed_and_mqtt_5_hears_that_nothing_was_there() -> None:
    assert Device().connected().send(ack(0x62, 4)).received() == [(0x70, b"\x00\x04")]
    assert Device().connected(version=5).send(ack(0x62, 4)).received() == [(0x70, b"\x00\x04\x92")]


def test_a_refused_qos_2_message_in_mqtt_3_runs_through_its_exchange() -> None:
    device = Device(rules=Rules(deny_publish=["#"])).connected()
    device.send(publish("a", b"x", qos=2, packet_id=3), ack(0x62, 3))
    assert device.received() == [(0x50, b"\x00\x03"), (0x70, b"\x00\x03")]


# -- limits ------------------------------------------------------------------------------------------------------


def test_mqtt_5_may_not_exceed_the_receive_maximum_it_was_told() -> None:
    engine = ByTheBatch(Rules(limits=Limits(in_flight=3)))
    device = Device(engine).connected(version=5)
    for number in (1, 2, 3):
        device.send(publish("a", b"", qos=1, packet_id=number, properties=b""))
    assert not device.link.closed and device.link.reading
    device.send(publish("a", b"", qos=2, packet_id=4, properties=b""))
    assert device.link.closed
    assert device.received()[-1][1][0] == 0x93
    assert len(engine.published) == 3


def test_an_acknowledged_message_makes_room_under_the_receive_maximum() -> None:
    device = Device(rules=Rules(limits=Limits(in_flight=2))).connected(version=5)
    for number in range(1, 20):
        device.send(publish("a", b"", qos=1, packet_id=number, properties=b""))
    assert not device.link.closed
    device.send(publish("a", b"", qos=2, packet_id=30, properties=b""))
    device.send(publish("a", b"", qos=2, packet_id=31, properties=b""))
    assert not device.link.closed
    device.send(publish("a", b"", qos=2, packet_id=32, properties=b""))
    assert device.link.closed


def test_mqtt_3_is_not_read_from_while_over_its_limit() -> None:
    engine = ByTheBatch(Rules(limits=Limits(in_flight=4)))
    device = Device(engine).connected()
    for number in range(1, 5):
        device.send(publish("a", b"", qos=1, packet_id=number))
    assert not device.link.reading
    device.send(publish("a", b"late", qos=1, packet_id=5) + PINGREQ)
    assert len(engine.published) == 4, "what was read meanwhile waits"
    for receipt in engine.receipts[:2]:
        receipt.settle()
    assert len(engine.published) == 5
    assert device.link.reading or len(engine.published) == 5
    for receipt in engine.receipts[2:]:
        receipt.settle()
    assert device.link.reading
    assert [first for first, _ in device.received()].count(0x40) == 5


def test_a_device_over_its_rate_is_held_until_it_has_made_up_for_it() -> None:
    device = Device(rules=Rules(limits=Limits(messages_rate=10))).connected()
    device.send(b"".join(publish("a", b"x") for _ in range(30)))
    assert not device.link.reading
    assert device.link.wakes == [pytest.approx(2.0)]
    device.send(publish("a", b"later"))
    assert len(device.engine.published) == 30
    device.moment.monotonic += 2.0
    device.session.rate_recovered()
    assert len(device.engine.published) == 31


def test_bytes_have_a_rate_too() -> None:
    device = Device(rules=Rules(limits=Limits(bytes_rate=1000))).connected()
    device.send(publish("a", b"x" * 900))
    assert device.link.reading
    device.send(publish("a", b"x" * 900))
    assert device.link.wakes == [pytest.approx(0.8)]


def test_nobody_is_read_from_while_commits_fall_behind() -> None:
    device = Device().connected()
    device.engine.congested = True
    device.send(publish("a", b"x"))
    assert not device.link.reading
    device.engine.congested = False
    device.session.decongest()
    assert device.link.reading


def test_mqtt_3_is_read_from_once_all_it_sent_is_acknowledged_however_little_it_released() -> None:
    """Its PUBREL are behind all it has sent ahead: who waited for them before reading on would wait for ever."""
    engine = ByTheBatch(Rules(limits=Limits(in_flight=4)))
    device = Device(engine).connected(keep_alive=1)
    messages = [publish("a", b"x", qos=2, packet_id=number) for number in range(1, 41)]
    releases = [ack(0x62, number) for number in range(1, 41)]
    device.send(*messages[:4])
    assert not device.link.reading
    device.send(*messages[4:], *releases)
    assert len(engine.published) == 4
    while engine.receipts:
        engine.receipts.pop(0).settle()
    answers = device.received()
    assert [body for first, body in answers if first == 0x50] == [number.to_bytes(2, "big") for number in range(1, 41)]
    assert [body for first, body in answers if first == 0x70] == [number.to_bytes(2, "big") for number in range(1, 41)]
    assert device.link.reading and not device.session.inbound and len(engine.published) == 40
    device.send(publish("a", b"x", qos=2, packet_id=1))
    engine.receipts.pop(0).settle()
    device.pass_time(2)
    assert device.link.closed, "who releases nothing and says nothing is closed by its keep alive"


def test_a_peer_held_by_us_is_not_closed_for_its_silence() -> None:
    device = Device(manual=True, rules=Rules(limits=Limits(in_flight=1))).connected(keep_alive=1)
    device.send(publish("a", b"", qos=1))
    device.pass_time(60)
    assert not device.link.closed
    device.engine.settle_all()
    device.pass_time(2)
    assert device.link.closed


def test_a_packet_larger_than_allowed_is_refused_by_its_header() -> None:
    limits = Rules(limits=Limits(packet_size=100))
    device = Device(rules=limits).connected(version=5).send(b"\x30\x65\x00")
    assert device.received()[-1][1][0] == 0x95
    fits = Device(rules=limits).connected().send(publish("a", b"x" * 97))
    assert len(fits.engine.published) == 1


def test_a_large_packet_that_drips_in_is_copied_a_few_times_only() -> None:
    device = Device().connected()
    data = publish("a", b"x" * 500_000)
    for start in range(0, len(data), 100):
        device.send(data[start : start + 100])
    assert len(device.engine.published[0][2]) == 500_000


# -- form --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        packet(0x30),
        packet(0x30, b"\x00"),
        packet(0x30, b"\x00\x05abc"),
        packet(0x32, text("a")),
        packet(0x32, text("a") + b"\x01"),
        packet(0x32, text("a") + b"\x00\x00"),
        packet(0x36, text("a") + b"\x00\x01"),
        packet(0x38, text("a")),
        publish(b"a\x00b"),
        publish(b"a\xffb"),
        publish(b"\xed\xa0\x80"),  # a surrogate
        publish("a/+/b"),
        publish("#"),
        publish(""),
        publish("/".join("x" * 300)),
    ],
)
def test_a_malformed_publish_closes_and_nothing_of_it_is_stored(sent: bytes) -> None:
    device = Device().connected().send(sent)
    assert device.link.closed
    assert not device.engine.published
    assert device.session.blamed


def test_what_came_before_a_malformed_frame_counts_in_its_order() -> None:
    device = Device().connected()
    device.send(publish("a", b"1") + PINGREQ + publish("a", b"2") + b"\x36\x05\x00\x01a\x00\x01" + publish("a", b"3"))
    assert [payload for _, _, payload, _ in device.engine.published] == [b"1", b"2"]
    assert device.link.closed


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        (b"\x23\x00\x00", 0x82),  # alias 0
        (b"\x23\x00\x0b", 0x94),  # beyond the maximum
        (b"\x0b\x01", 0x82),  # subscription identifier from a client
        (b"\x01\x02", 0x82),  # payload format 2
        (b"\x01\x00\x01\x00", 0x82),  # twice
        (b"\x7f\x00", 0x81),  # no such property
        (b"\x11\x00\x00\x00\x01", 0x82),  # not of this packet
        (b"\x08" + text("a/+"), 0x82),  # response topic with a wildcard
        (b"\x03\x00\x05ab", 0x81),  # cut short
    ],
)
def test_properties_out_of_place_end_the_connection_with_their_code(properties: bytes, code: int) -> None:
    device = Device().connected(version=5).send(publish("a", b"x", properties=properties))
    assert device.received()[-1][1][0] == code
    assert not device.engine.published


def test_a_payload_that_is_not_the_utf_8_it_claims_is_refused() -> None:
    device = Device().connected(version=5).send(publish("a", b"\xff", properties=b"\x01\x01"))
    assert device.received()[-1][1][0] == 0x99


def test_a_topic_alias_stands_for_its_topic_until_it_gets_another() -> None:
    device = Device().connected(version=5)
    alias = b"\x23\x00\x01"
    device.send(
        publish("first", b"1", properties=alias),
        publish("", b"2", properties=alias),
        publish("second", b"3", properties=alias) + publish("", b"4", properties=alias),
    )
    assert [topic for _, topic, _, _ in device.engine.published] == ["first", "first", "second", "second"]


def test_a_topic_alias_never_set_is_a_protocol_error() -> None:
    device = Device().connected(version=5).send(publish("", b"x", properties=b"\x23\x00\x01"))
    assert device.received()[-1][1][0] == 0x82


def test_aliases_end_with_the_connection() -> None:
    engine = MemoryEngine()
    Device(engine).connected(version=5, properties=b"\x11\xff\xff\xff\xff").send(
        publish("a", b"1", properties=b"\x23\x00\x01")
    ).session.lost("gone")
    again = Device(engine).connected(version=5, clean=False)
    again.send(publish("", b"2", properties=b"\x23\x00\x01"))
    assert again.link.closed


def test_a_topic_is_authorised_once_until_the_rules_change() -> None:
    class Counting(MemoryEngine):
        asked = 0

        def target(self, session: Session, topic: str) -> Any:
            self.asked += 1
            return super().target(session, topic)

    engine = Counting()
    device = Device(engine).connected()
    for _ in range(5):
        device.send(publish("a", b"x"))
    assert engine.asked == 1
    engine.rules.deny_publish.append("a")
    engine.epoch += 1
    device.send(publish("a", b"x"))
    assert engine.asked == 2
    assert len(engine.published) == 5


def test_many_topics_do_not_grow_the_cache_without_bound() -> None:
    device = Device().connected()
    for number in range(2000):
        device.send(publish(f"t/{number}", b""))
    assert len(device.session._targets or {}) <= 512


def test_the_run_before_a_disconnect_is_published_and_nothing_after_it() -> None:
    device = Device().connected()
    device.send(publish("a", b"1") + DISCONNECT + publish("a", b"2"))
    assert [payload for _, _, payload, _ in device.engine.published] == [b"1"]
    assert device.link.closed


def test_a_dead_session_hears_of_no_receipt() -> None:
    engine = ByTheBatch()
    device = Device(engine).connected().send(publish("a", b"x", qos=1))
    device.session.lost("gone")
    engine.receipts[0].settle()
    assert device.received() == []


def test_connects_first_bytes_and_publish_in_one_read_work() -> None:
    device = Device().send(connect(version=5) + publish("a", b"x", qos=1, properties=b""))
    assert [first for first, _ in device.received()] == [0x20, 0x40]


def test_packet_ids_of_an_earlier_connection_do_not_eat_the_receive_maximum() -> None:
    engine = MemoryEngine(Rules(limits=Limits(in_flight=2)))
    expiry = b"\x11\xff\xff\xff\xff"
    before = Device(engine).connected(version=5, properties=expiry)
    before.send(*(publish("a", b"", qos=2, packet_id=number, properties=b"") for number in (1, 2)))
    before.session.lost("gone")
    after = Device(engine).connected(version=5, clean=False, properties=expiry)
    after.send(*(publish("a", b"", qos=2, packet_id=number, properties=b"") for number in (3, 4)))
    assert not after.link.closed
    after.send(publish("a", b"", qos=2, packet_id=5, properties=b""))
    assert after.link.closed


def test_a_receipt_that_is_settled_at_once_does_not_overtake_one_that_waits() -> None:
    class Uneven(MemoryEngine):
        first: Receipt[Any] = Receipt()

        def publish(self, session: Session, items: Sequence[PublishItem]) -> Receipt[Any]:
            return self.first if items[0][0].topic == "slow" else super().publish(session, items)

    engine = Uneven()
    device = Device(engine).connected()
    device.send(publish("slow", b"", qos=1, packet_id=1), publish("quick", b"", qos=1, packet_id=2))
    assert device.received() == []
    engine.first.settle()
    assert device.received() == [(0x40, b"\x00\x01"), (0x40, b"\x00\x02")]
