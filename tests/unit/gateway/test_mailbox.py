"""A persistent session's messages, connected or not, stored or not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import MalformedRecord
from gateway.mailbox import Entry, Mailbox, decode_entry, encode_entry, inbox_key, parse_inbox_key
from gateway.policy import Rights
from gateway.ports import InFlight, Message, PublishProperties, SessionState
from tests.unit.gateway.parts import FakeSession

FREE = Rights((), "c1", "", unrestricted=True)


def mailbox(limit: int = 5) -> Mailbox:
    return Mailbox("c1", "", FREE, limit=limit, touched=lambda _: None)


def message(payload: bytes, qos: int = 1, offset: int = 0) -> Message:
    return Message("t", payload, qos, origin=("topic", 0, offset))


def fill(box: Mailbox, *payloads: bytes, qos: int = 1) -> list[Message]:
    found = [message(payload, offset=number) for number, payload in enumerate(payloads)]
    for each in found:
        assert box.deliver(each, qos, False)
    return found


def queued(state: SessionState) -> list[bytes]:
    return [each.payload for each, _, _, _ in state.queue]


def test_what_arrives_while_the_device_is_away_waits_for_it() -> None:
    box = mailbox()
    fill(box, b"a", b"b")
    fill(box, b"qos 0 is not kept", qos=0)
    session = FakeSession()
    assert queued(box.attach(session)) == [b"a", b"b"]


def test_a_connected_device_gets_messages_at_once_and_finished_ones_are_forgotten() -> None:
    box, session = mailbox(), FakeSession()
    box.attach(session)
    first, second = fill(box, b"a", b"b")
    assert session.payloads == [b"a", b"b"]
    box.finished(first, 1)
    assert list(box.pending) == [second] and list(box.unstored) == [second]
    assert box.gone == []


def test_what_a_session_has_no_room_for_follows_in_order() -> None:
    box, session = mailbox(), FakeSession(capacity=2)
    box.attach(session)
    fill(box, b"a", b"b", b"c", b"d")
    assert session.payloads == [b"a", b"b"]
    session.capacity = 3
    box.feed()
    fill(box, b"e")
    session.capacity = 10
    box.feed()
    assert session.payloads == [b"a", b"b", b"c", b"d", b"e"]


def test_the_oldest_waiting_message_makes_room_and_is_counted() -> None:
    box = mailbox(limit=3)
    fill(box, b"a", b"b", b"c", b"d", b"e")
    assert queued(box.attach(FakeSession())) == [b"c", b"d", b"e"] and box.dropped == 2


def test_a_dropped_message_that_was_stored_is_deleted() -> None:
    box = mailbox(limit=1)
    (first,) = fill(box, b"a")
    number = box.number(box.pending[first])
    fill(box, b"b")
    assert box.gone == [number]


def test_after_a_reconnect_unfinished_messages_come_with_their_packet_ids() -> None:
    box, session = mailbox(), FakeSession()
    box.attach(session)
    first, _ = fill(box, b"a", b"b")
    box.sent(first, 7)
    box.detach(SessionState(outbound=[InFlight(7, first, 1)]), now=1.0)
    fill(box, b"c")
    state = box.attach(FakeSession())
    assert [(each.packet_id, each.message) for each in state.outbound] == [(7, first)]
    assert queued(state) == [b"b", b"c"]


def test_qos_2_is_stored_before_it_is_sent_and_remembered_until_a_checkpoint_has_passed() -> None:
    box, session = mailbox(), FakeSession()
    box.attach(session)
    (only,) = fill(box, b"a", qos=2)
    entry = box.sent(only, 7)
    assert entry is not None and entry.packet_id == 7
    number = box.number(entry)
    assert box.received(only, 7) is entry and entry.released
    done = box.finished(only, 7)
    assert done is entry and done.done and box.gone == [number] and not box.pending
    assert decode_entry(encode_entry(done)) == (None, ("topic", 0, 0))


def test_qos_1_needs_no_storing_before_it_is_sent() -> None:
    box, session = mailbox(), FakeSession()
    box.attach(session)
    (only,) = fill(box, b"a")
    assert box.sent(only, 7) is None and box.finished(only, 7) is None


def test_a_replay_does_not_repeat_what_was_stored() -> None:
    box = mailbox()
    stored = Entry(message(b"a", offset=4), 1, False, ())
    box.restored(3, stored, ("topic", 0, 4))
    box.restored(4, None, ("topic", 0, 5))  # QoS 2, done with
    for offset, payload in ((4, b"a"), (5, b"done"), (6, b"new")):
        box.deliver(message(payload, offset=offset), 1, False)
    assert queued(box.attach(FakeSession())) == [b"a", b"new"]
    assert box.next_number == 5 and box.gone == [4]


def test_a_retained_message_is_offered_only_while_there_is_room() -> None:
    box, session = mailbox(), FakeSession(capacity=1)
    box.attach(session)
    retained = message(b"r")
    assert box.offer(retained, 1, True, ()) and not box.offer(retained, 1, True, ())
    assert len(box.pending) == 1


@settings(deadline=None)
@given(
    st.text(min_size=1).filter(lambda text: "\x00" not in text),
    st.binary(),
    st.integers(0, 2),
    st.booleans(),
    st.tuples(st.integers(1, 9)) | st.just(()),
)
def test_an_entry_survives_its_record(
    topic: str, payload: bytes, qos: int, retain: bool, identifiers: tuple[int, ...]
) -> None:
    properties = PublishProperties(content_type="x", correlation_data=payload, user=(("a", topic),))
    entry = Entry(
        Message(topic, payload, qos, properties=properties, expires_at=5.0, sender="s", origin=("t", 1, 2)),
        qos,
        retain,
        identifiers,
    )
    entry.packet_id, entry.released = 9, True
    again, origin = decode_entry(encode_entry(entry))
    assert again is not None and origin == ("t", 1, 2)
    for name in ("topic", "payload", "qos", "properties", "expires_at", "sender", "origin"):
        assert getattr(again.message, name) == getattr(entry.message, name), name
    assert (again.qos, again.retain, again.identifiers) == (qos, retain, identifiers)
    assert (again.packet_id, again.released) == (9, True)


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"v":1}', b'{"v":2,"done":true}', b'{"v":1,"origin":[1]}'])
def test_an_unreadable_entry_is_named(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_entry(value)


def test_inbox_keys_sort_by_number_within_a_client() -> None:
    keys = [inbox_key("a/b c", number) for number in (1, 9, 10, 255, 4096)]
    assert keys == sorted(keys)
    assert [parse_inbox_key(key) for key in keys] == [("a/b c", number) for number in (1, 9, 10, 255, 4096)]
    with pytest.raises(MalformedRecord):
        parse_inbox_key(b"no number")
