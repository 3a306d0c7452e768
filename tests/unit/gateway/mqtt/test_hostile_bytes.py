"""Whatever arrives, a session answers in the protocol's terms or closes; it never fails otherwise."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mqtt.errors import Malformed, PeerError
from gateway.mqtt.filters import BYTES_EACH, LEVELS_EACH, MOST_SHARED
from gateway.mqtt.packets import MOST_FILTERS
from gateway.mqtt.properties import (
    MOST_PROPERTIES,
    PUBLISH,
    SUBSCRIBE,
    USER_PROPERTY,
    WILL,
    read_properties,
    read_varint,
    text_of,
    varint,
)
from gateway.mqtt.receiver import MOST_IDLE
from gateway.mqtt.topics import MAX_LEVELS
from gateway.ports import Limits, Message, Subscription
from tests.fakes.gateway_engine import MemoryEngine, Rules
from tests.fakes.mqtt_device import (
    DISCONNECT,
    PINGREQ,
    Device,
    ack,
    connect,
    packet,
    publish,
    subscribe,
    text,
    unsubscribe,
)


def samples(version: int) -> list[bytes]:
    """Well-formed packets of every kind a client may send."""
    none = b"" if version == 5 else None
    found = [
        publish("a", b"x", properties=none),
        publish("a/b", b"x" * 300, qos=1, properties=none),
        publish("a/b", b"x", qos=2, packet_id=2, retain=True, properties=none),
        subscribe(("a/#", 1), ("$share/g/b", 0), properties=none),
        unsubscribe("a/#", properties=none),
        ack(0x40, 1),
        ack(0x50, 2),
        ack(0x62, 2),
        ack(0x70, 2),
        PINGREQ,
        DISCONNECT,
        connect(version=version),
    ]
    if version == 5:
        rich = b"\x01\x01\x02\x00\x00\x00\x05\x03" + text("t") + b"\x08" + text("r") + b"\x09" + text("c")
        found += [
            publish("a", b"x", qos=1, properties=rich + b"\x26" + text("k") + text("v") + b"\x23\x00\x01"),
            publish("", b"x", properties=b"\x23\x00\x01"),
            ack(0x40, 1, 0x10, 0),
            packet(0xE0, b"\x04\x05\x11\x00\x00\x00\x05"),
            packet(0xF0, b"\x19\x09\x15" + text("X-ECHO")),
        ]
    return found


def mutated(chance: random.Random, data: bytes) -> bytes:
    """One to three of: a byte changed, inserted, removed; cut; a piece doubled; a length inflated."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(result)) if result else 0
        what = chance.randrange(6)
        if what == 0 and result:
            result[place] = chance.randrange(256)
        elif what == 1:
            result.insert(place, chance.randrange(256))
        elif what == 2 and result:
            del result[place]
        elif what == 3:
            result = result[:place] or result
        elif what == 4:
            result[place:place] = result[place : place + 8]
        else:
            result[1:2] = chance.choice([b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01", b"\xff", b"\x00"])
    return bytes(result)


def devices(engine: MemoryEngine) -> Iterator[tuple[int, Device]]:
    number = 0
    while True:
        number += 1
        version = 3 + number % 3
        yield version, Device(engine).connected(f"d{number % 50}", version=version, clean=bool(number % 4))


def test_a_hundred_thousand_mutated_packets_do_nothing_but_close_their_connection() -> None:
    chance = random.Random(20260101)
    engine = MemoryEngine(Rules(limits=Limits(packet_size=4096, queue=10, window=4, in_flight=8)))
    engine.keep_published = False
    source = devices(engine)
    packets = {version: samples(version) for version in (3, 4, 5)}
    version, device = next(source)
    closed = 0
    for _ in range(100_000):
        device.session.receive(mutated(chance, chance.choice(packets[version])))
        if device.link.closed or chance.random() < 0.02:
            closed += device.link.closed
            if not device.link.closed:
                device.session.lost("closed by peer")
            version, device = next(source)
            engine.endings.clear()
            engine.finishes.clear()
            engine.released.clear()
            engine.drops.clear()
    assert closed > 20_000
    device.session.lost("closed by peer")
    assert not engine.live
    assert engine.fanout.count == 0, "no subscription outlives its connection"
    well = Device(engine).connected("well").send(PINGREQ)
    assert well.received() == [(0xD0, b"")]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_where_a_stream_is_cut_makes_no_difference(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from([3, 4, 5]))
    chosen = data.draw(st.lists(st.sampled_from(samples(version)), max_size=12))
    stream = connect(version=version) + b"".join(chosen)
    whole = Device().send(stream)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]
    cut = Device().send(*pieces)
    assert cut.engine.published == whole.engine.published
    one, other = cut.received(), whole.received()
    for messages in (False, True):  # echoed messages and answers may interleave differently
        assert [entry for entry in one if (entry[0] >> 4 == 3) is messages] == [
            entry for entry in other if (entry[0] >> 4 == 3) is messages
        ]
    assert cut.link.closed == whole.link.closed


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.sampled_from([3, 4, 5]))
def test_random_bytes_after_the_connect_are_survived(data: bytes, version: int) -> None:
    Device().connected(version=version).send(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_instead_of_a_connect_are_survived(data: bytes) -> None:
    device = Device()
    device.send(data)
    if data[0] & 0xF0 != 0x10:
        assert device.link.closed


@given(st.integers(0, 268_435_455))
def test_variable_byte_integers_come_back_as_they_went(number: int) -> None:
    data = varint(number)
    assert read_varint(data, 0, len(data)) == (number, len(data))


@given(st.binary(max_size=60))
def test_property_blocks_of_random_bytes_are_refused_or_read_to_their_end(data: bytes) -> None:
    for kind in (1, 3, 4, 8, 10, 14, 15, 16):
        try:
            _, position = read_properties(data, 0, len(data), kind)
        except PeerError:
            continue
        assert position <= len(data)


@given(st.binary(max_size=30))
def test_text_is_utf_8_without_what_mqtt_forbids(raw: bytes) -> None:
    try:
        value = text_of(raw)
    except Malformed:
        return
    assert value.encode() == raw
    assert "\x00" not in value


def test_a_hundred_thousand_levels_are_refused_in_every_place() -> None:
    deep = "/" * 65_000
    for sent in (publish(deep, b"x"), subscribe((deep, 0)), unsubscribe(deep), subscribe(("+/" * 30_000 + "#", 0))):
        device = Device().connected().send(sent)
        assert device.link.closed
        assert device.engine.fanout.count == 0
    will = Device().send(connect(will=(deep[:60_000], b"", 0, False)))
    assert will.link.closed and not will.engine.live


def test_a_subscribe_bomb_stops_at_the_quota() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=100))).connected(version=5)
    filters = [(f"bomb/{number}/#", 0) for number in range(MOST_FILTERS)]
    device.send(subscribe(*filters, properties=b""))
    assert device.engine.fanout.count == 100
    [(first, body)] = device.received()
    assert first == 0x90
    assert body.count(0x97) == MOST_FILTERS - 100


def test_a_packet_of_more_filters_than_anybody_needs_closes_its_connection() -> None:
    filters = [f"{number}" for number in range(MOST_FILTERS + 1)]
    for sent in (subscribe(*((each, 0) for each in filters)), unsubscribe(*filters)):
        device = Device().connected().send(sent)
        assert device.link.closed and device.engine.fanout.count == 0


@pytest.mark.parametrize("useless", [PINGREQ, ack(0x40, 7), ack(0x50, 7), ack(0x62, 7), ack(0x70, 7)])
def test_packets_of_no_use_are_taken_a_few_at_a_time(useless: bytes) -> None:
    device = Device(manual=True).connected()
    device.send(useless * (10 * MOST_IDLE) + publish("a", b"x"))
    steps = 0
    while device.engine.works:
        steps += 1
        assert device.session.other_packets - 1 == MOST_IDLE * steps
        assert not device.engine.published and not device.link.reading
        device.engine.step()
    assert steps == 10 and device.link.reading and len(device.engine.published) == 1


def test_acknowledgements_that_are_waited_for_are_taken_at_once() -> None:
    engine = MemoryEngine(manual=True)
    device = Device(engine).connected()
    for number in range(500):
        engine.fanout.subscribe(device.session, Subscription(filter="t", qos=1))
        engine.fanout.deliver(Message("t", str(number).encode(), 1))
    sent = [body[3:5] for first, body in device.received() if first == 0x32]
    device.send(b"".join(b"\x40\x02" + each for each in sent))
    assert len(sent) == 500 == len(engine.finishes) and not engine.works


def test_a_packet_has_so_many_properties_and_no_more() -> None:
    user, identifier = b"\x26\x00\x00\x00\x00", b"\x0b\x01"
    for kind in (PUBLISH, WILL, SUBSCRIBE):
        found, _ = read_properties(varint(5 * MOST_PROPERTIES) + user * MOST_PROPERTIES, 0, 5_000, kind)
        assert len(found[USER_PROPERTY]) == MOST_PROPERTIES
    device = Device().connected(version=5)
    device.send(publish("a", b"x", properties=user * MOST_PROPERTIES))
    assert not device.link.closed and len(device.engine.published) == 1
    for many in (user * 200_000, identifier * 200_000):
        device = Device().connected(version=5).send(publish("a", b"x", properties=many))
        assert device.link.closed and device.session.blamed == "0x97" and not device.engine.published


def test_filters_of_many_bytes_count_for_more_than_one() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=100))).connected(version=5)
    device.send(subscribe(*(("x" * 9_000 + str(number), 0) for number in range(100)), properties=b""))
    [(_, body)] = device.received()
    granted = body[3:].count(0)
    assert granted == device.engine.fanout.count == (100 * BYTES_EACH + 65_535) // 9_002
    device.send(unsubscribe("x" * 9_000 + "0", properties=b""), subscribe(("x" * 9_000 + "99", 0), properties=b""))
    assert [body[-1] for _, body in device.received()] == [0, 0]


def test_share_groups_of_one_session_are_few() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=100))).connected(version=5)
    device.send(subscribe(*((f"$share/{number}/x", 0) for number in range(MOST_SHARED + 5)), properties=b""))
    [(_, body)] = device.received()
    assert body[3:] == bytes(MOST_SHARED) + b"\x97" * 5
    device.send(subscribe(("$share/1/x", 1), ("$share/more/x", 0), ("plain", 0), properties=b""))
    assert device.received() == [(0x90, b"\x00\x01\x00\x01\x97\x00")]


def test_filters_of_many_levels_count_for_more_than_one() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=100))).connected(version=5)
    deep = "/+" * (MAX_LEVELS - 2)
    device.send(subscribe(*((f"{number}{deep}", 0) for number in range(100)), properties=b""))
    [(_, body)] = device.received()
    granted = body[3:].count(0)
    assert granted == device.engine.fanout.count == (100 * LEVELS_EACH + MAX_LEVELS) // (MAX_LEVELS - 1)
    assert body.count(0x97) == 100 - granted
    device.send(subscribe(("shallow", 0), properties=b""))
    assert device.received() == [(0x90, b"\x00\x01\x00\x00")]


def test_levels_are_free_again_once_their_filters_are_gone_and_count_once() -> None:
    device = Device(rules=Rules(limits=Limits(subscriptions=100))).connected(version=5)
    filters = [f"{number}" + "/+" * (MAX_LEVELS - 2) for number in range(100)]
    device.send(subscribe(*((each, 0) for each in filters), properties=b""))
    [(_, body)] = device.received()
    granted = body[3:].count(0)
    device.send(subscribe((filters[0], 0), properties=b""))
    device.send(subscribe((filters[granted], 0), properties=b""))
    device.send(unsubscribe(filters[0], filters[1], "never/there", properties=b""))
    device.send(subscribe((filters[granted], 0), (filters[granted + 1], 0), (filters[granted + 2], 0), properties=b""))
    answers = [body[3:] for byte, body in device.received() if byte == 0x90]
    assert answers == [b"\x00", b"\x97", b"\x00\x00\x97"]
