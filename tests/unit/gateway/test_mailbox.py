"""A persistent session's messages, connected or not, stored or not."""

from __future__ import annotations

from gateway.policy import Rights
from gateway.ports import InFlight, Message, SessionState
from gateway.sessions.adopting import take_done, take_single
from gateway.sessions.entries import Chunk, Entry, split
from gateway.sessions.keeper import FULL, GONE
from gateway.sessions.mailbox import AHEAD, Mailbox
from tests.unit.gateway.parts import FakeSession

FREE = Rights((), "c1", "", unrestricted=True)


class FakeKeeper:
    """Stores what it is told to, and knows nothing else."""

    def __init__(self) -> None:
        self.unsettled = 0
        self.wants: list[int] = []
        self.lost: list[tuple[bytes, str]] = []
        self.lost_unseen: list[tuple[int, int, int, str]] = []
        self.time = 0.0
        self.records: dict[int, list[Entry]] = {}

    def touched(self, mailbox: Mailbox) -> None:
        self.unsettled += 1

    def wanted(self, mailbox: Mailbox) -> None:
        place = mailbox.shelf.first()
        assert place is not None
        self.wants.append(place.number)

    def dropped(self, mailbox: Mailbox, message: Message, why: str) -> None:
        self.lost.append((message.payload, why))

    def dropped_unseen(self, mailbox: Mailbox, number: int, first: int, count: int, why: str) -> None:
        self.lost_unseen.append((number, first, count, why))

    def now(self) -> float:
        return self.time

    def checkpoint(self, box: Mailbox) -> None:
        """As `Inbox.settle`, and the local copy has it at once."""
        for chunk in box.stale.values():
            if chunk.entries:
                chunk.stale = False
                self.records[chunk.number] = list(chunk.entries.values())
            else:
                del box.chunks[chunk.number]
                box.gone_chunks.append(chunk.number)
        box.stale = {}
        unstored, box.unstored = box.unstored, {}
        for run in split(unstored.values()):
            chunk = Chunk(run[0].number, {each.number: each for each in run}, under_way=bool(run[0].packet_id))
            box.chunks[chunk.number] = chunk
            for each in run:
                each.chunk = chunk
            self.records[chunk.number] = run
        for entry in box.due.values():
            entry.single = True
        box.due = {}
        for number in box.gone_chunks:
            del self.records[number]
        box.gone_chunks = []
        box.tidy()

    def load(self, box: Mailbox, *lost: int) -> None:
        """Load what was wanted last."""
        number = self.wants[-1]
        copies = []
        for each in self.records[number]:
            copy = Entry(each.message, each.qos, each.retain, each.identifiers, number=each.number)
            copies.append(copy)
        box.loaded(number, copies, set(lost))


def mailbox(limit: int = 5, keeper: FakeKeeper | None = None) -> Mailbox:
    return Mailbox("c1", "", FREE, limit=limit, keeper=keeper or FakeKeeper())


def attach(box: Mailbox, session: FakeSession) -> SessionState:
    """As the engine does: the CONNACK, what was in flight, then what waits."""
    state = box.attach(session)
    box.feed()
    return state


def message(payload: bytes, qos: int = 1, offset: int = 0) -> Message:
    return Message("t", payload, qos, origin=("topic", 0, offset))


def fill(box: Mailbox, *payloads: bytes, qos: int = 1) -> list[Message]:
    found = [message(payload, offset=number) for number, payload in enumerate(payloads)]
    for each in found:
        assert box.deliver(each, qos, False)
    return found


def test_what_arrives_while_the_device_is_away_waits_for_it() -> None:
    box = mailbox()
    fill(box, b"a", b"b")
    fill(box, b"qos 0 is not kept", qos=0)
    session = FakeSession()
    attach(box, session)
    assert session.payloads == [b"a", b"b"]


def test_a_connected_device_gets_messages_at_once_and_finished_ones_are_forgotten() -> None:
    box, session = mailbox(), FakeSession()
    attach(box, session)
    first, second = fill(box, b"a", b"b")
    assert session.payloads == [b"a", b"b"]
    box.finished(first, 1)
    assert list(box.pending) == [second] and list(box.unstored) == [2]
    assert box.gone == [] and box.stale == {}


def test_what_a_session_has_no_room_for_follows_in_order() -> None:
    box, session = mailbox(), FakeSession(capacity=2)
    attach(box, session)
    fill(box, b"a", b"b", b"c", b"d")
    assert session.payloads == [b"a", b"b"]
    session.capacity = 3
    box.feed()
    fill(box, b"e")
    session.capacity = 10
    box.feed()
    assert session.payloads == [b"a", b"b", b"c", b"d", b"e"]


def test_the_oldest_waiting_message_makes_room_and_is_counted() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(3, keeper)
    fill(box, b"a", b"b", b"c", b"d", b"e")
    attach(box, session)
    assert session.payloads == [b"c", b"d", b"e"] and box.dropped == 2
    assert keeper.lost == [(b"a", FULL), (b"b", FULL)]


def test_the_newest_is_refused_where_that_is_the_policy() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(3, keeper)
    box.overflow = "newest"
    fill(box, b"a", b"b", b"c", b"d", b"e")
    attach(box, session)
    assert session.payloads == [b"a", b"b", b"c"] and box.dropped == 2
    assert keeper.lost == [(b"d", FULL), (b"e", FULL)]


def test_the_bound_in_bytes_holds_but_one_message_is_always_kept() -> None:
    session, box = FakeSession(), mailbox(100)
    box.limit_bytes = 10
    fill(box, b"12345", b"12345", b"12345", b"12345")
    assert box.bytes == 10
    fill(box, b"more than ten bytes")
    attach(box, session)
    assert session.payloads == [b"more than ten bytes"] and box.dropped == 4


def test_what_is_stored_of_a_device_that_is_away_is_not_in_memory_and_comes_back_in_order() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(10, keeper)
    fill(box, b"a", b"b")
    keeper.checkpoint(box)
    fill(box, b"c")
    keeper.checkpoint(box)
    assert not box.tail and not box.chunks and box.size == 0 and box.waiting == 3
    fill(box, b"d")
    attach(box, session)
    assert session.payloads == [] and keeper.wants == [1]
    keeper.load(box)
    assert session.payloads == [b"a", b"b"] and keeper.wants == [1, 3]
    fill(box, b"e")
    keeper.load(box)
    assert session.payloads == [b"a", b"b", b"c", b"d", b"e"]


def test_only_so_much_is_taken_from_the_shelf_as_the_device_gets_through() -> None:
    keeper, session = FakeKeeper(), FakeSession(capacity=10_000)
    box = mailbox(10_000, keeper)
    fill(box, *[b"%d" % number for number in range(2_000)])
    keeper.checkpoint(box)
    attach(box, session)
    while len(keeper.wants) < 100 and len(session.taken) < AHEAD:
        keeper.load(box)
    assert AHEAD <= len(session.taken) < AHEAD + 256
    done = 0
    while done < len(session.taken):
        wants = len(keeper.wants)
        box.finished(session.taken[done][0], 0)
        done += 1
        if len(keeper.wants) > wants:
            keeper.load(box)
    assert session.payloads == [b"%d" % number for number in range(2_000)]
    assert box.bytes == 0 and not box.waiting
    keeper.checkpoint(box)
    assert keeper.records == {} and not box.chunks


def test_a_dropped_message_that_was_stored_is_deleted() -> None:
    keeper = FakeKeeper()
    box = mailbox(1, keeper)
    fill(box, b"a")
    keeper.checkpoint(box)
    fill(box, b"b")
    assert box.gone_chunks == [1] and keeper.lost_unseen == [(1, 0, 1, FULL)]


def test_a_chunk_is_dropped_from_entry_by_entry() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(3, keeper)
    fill(box, b"a", b"b", b"c")
    keeper.checkpoint(box)
    fill(box, b"d", b"e")
    assert box.waiting == 3 and box.gone_chunks == []
    attach(box, session)
    keeper.load(box)
    assert session.payloads == [b"c", b"d", b"e"]


def test_a_payload_that_the_log_has_no_more_is_counted_and_told() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(5, keeper)
    fill(box, b"a", b"b", b"c")
    keeper.checkpoint(box)
    attach(box, session)
    keeper.load(box, 2)
    assert session.payloads == [b"a", b"c"]
    assert box.missing == 1 and keeper.lost == [(b"b", GONE)]


def test_what_expired_makes_room_before_what_has_not() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(2, keeper)
    box.deliver(Message("t", b"old", 1, expires_at=5.0), 1, False)
    keeper.checkpoint(box)
    box.deliver(Message("t", b"older", 1, expires_at=6.0), 1, False)
    keeper.time = 7.0
    fill(box, b"a", b"b")
    attach(box, session)
    assert session.payloads == [b"a", b"b"] and (box.dropped, box.expired) == (0, 2)


def test_after_a_reconnect_unfinished_messages_come_with_their_packet_ids() -> None:
    box, session = mailbox(), FakeSession()
    attach(box, session)
    first, _ = fill(box, b"a", b"b")
    box.sent(first, 7)
    box.detach(SessionState(outbound=[InFlight(7, first, 1)]), now=1.0)
    fill(box, b"c")
    session = FakeSession()
    state = attach(box, session)
    assert [(each.packet_id, each.message) for each in state.outbound] == [(7, first)]
    assert session.payloads == [b"b", b"c"]


def test_a_packet_id_of_what_a_chunk_had_is_stored_by_itself_when_the_device_leaves() -> None:
    keeper, session = FakeKeeper(), FakeSession()
    box = mailbox(5, keeper)
    fill(box, b"a", b"b")
    keeper.checkpoint(box)
    attach(box, session)
    keeper.load(box)
    first = session.taken[0][0]
    box.sent(first, 7)
    box.detach(SessionState(outbound=[InFlight(7, first, 1)]), now=1.0)
    assert [each.packet_id for each in box.due.values()] == [7]
    keeper.checkpoint(box)
    attach(box, FakeSession())
    box.finished(first, 7)
    assert box.gone == [1] and list(box.stale) == [1]


def test_qos_2_is_stored_before_it_is_sent_and_remembered_until_a_checkpoint_has_passed() -> None:
    box, session = mailbox(), FakeSession()
    attach(box, session)
    (only,) = fill(box, b"a", qos=2)
    entry = box.sent(only, 7)
    assert entry is not None and entry.packet_id == 7
    entry.single = True  # as `Inbox.store_single`
    assert box.received(only, 7) is entry and entry.released
    done = box.finished(only, 7)
    assert done is entry and done.done and box.gone == [1] and not box.pending


def test_qos_1_needs_no_storing_before_it_is_sent() -> None:
    box, session = mailbox(), FakeSession()
    attach(box, session)
    (only,) = fill(box, b"a")
    assert box.sent(only, 7) is None and box.finished(only, 7) is None


def test_a_replay_does_not_repeat_what_was_stored() -> None:
    box, session = mailbox(), FakeSession()
    take_single(box, Entry(message(b"a", offset=4), 1, False, (), number=3))
    take_done(box, 4, ("topic", 0, 5))  # QoS 2
    for offset, payload in ((4, b"a"), (5, b"done"), (6, b"new")):
        box.deliver(message(payload, offset=offset), 1, False)
    attach(box, session)
    assert session.payloads == [b"a", b"new"]
    assert box.next_number == 6 and box.gone == [4]


def test_a_retained_message_is_offered_only_while_there_is_room() -> None:
    box, session = mailbox(), FakeSession(capacity=1)
    attach(box, session)
    retained = message(b"r")
    assert box.offer(retained, 1, True, ()) and not box.offer(retained, 1, True, ())
    assert len(box.pending) == 1


def test_a_message_that_comes_twice_is_two() -> None:
    """By two share groups, say; each is finished by itself, and nothing is left of either."""
    box, session = mailbox(), FakeSession()
    attach(box, session)
    twice = message(b"twice")
    assert box.deliver(twice, 1, False) and box.deliver(twice, 1, False)
    assert session.payloads == [b"twice"] * 2
    for number, (given, *_) in enumerate(session.taken, 1):
        box.sent(given, number)
    assert [entry.packet_id for entry in box.pending.values()] == [1, 2]
    for number, (given, *_) in enumerate(session.taken, 1):
        box.finished(given, number)
    assert not box.pending and not box.unstored and box.size == 0
