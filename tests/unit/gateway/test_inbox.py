"""Mailbox, inbox, store and local copy together, through crashes at any write: nothing that was taken is lost, and
nothing comes before what was older.

A gateway that dies has records under way to several partitions, and what of them is stored is the first so many of
each: a partition keeps the order of what one producer writes to it, partitions among each other don't.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.client import TopicPartition
from gateway.contract import INBOX
from gateway.counters import Counters
from gateway.policy import Rights
from gateway.ports import InFlight, Message, Receipt, SessionState, settled
from gateway.sessions import entries
from gateway.sessions.entries import Entry, Origin
from gateway.sessions.inbox import Inbox
from gateway.sessions.keeper import FULL, GONE
from gateway.sessions.mailbox import Mailbox
from tests.unit.gateway.parts import FakeSession

LIMIT = 12
TOPIC = "topic"
PARTITIONS = 3


class Crash(Exception):
    """The gateway dies at this write."""


class World:
    """What outlives a gateway: the log of messages, `__sluice_inbox`, and the local copy that lags behind it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.messages: list[tuple[bytes, int]] = []
        self.retained_from = 0  # earlier offsets are not in the log any more
        self.inbox: dict[bytes, bytes] = {}
        self.copy: dict[bytes, bytes] = {}
        self.unseen: list[bytes] = []
        self.position = 0
        self.writes_left: int | None = None
        self.room: list[int] | None = None  # how many records each partition still gets before the gateway dies
        self.dying = False
        self.writes = 0
        self.rows_read = 0
        self.payloads_read = 0
        self.counters = Counters()
        self.lost: list[tuple[bytes, str]] = []
        self.time = 0.0
        self.inboxes = self.make()

    def make(self) -> Inbox:
        return Inbox(
            ticks=lambda: self,  # type: ignore[arg-type,return-value]  # stands for Ticks
            counters=self.counters,
            clock=lambda: self.time,
            row=self.row,
            read=self.read,
            ended=lambda _, message, why: self.lost.append((message.payload or self.payload(message), why)),
            followed=lambda: True,
            partitions=PARTITIONS,
            loop=self.loop,
        )

    def payload(self, message: Message) -> bytes:
        assert message.origin is not None
        return self.messages[message.origin[2]][0]

    def write(self, topic: str, value: bytes | None, key: bytes | None, *, partition: int) -> Receipt[Any]:
        assert topic == INBOX and key is not None
        if self.writes_left is not None:
            if not self.writes_left:
                raise Crash
            self.writes_left -= 1
        if self.room is not None:
            if not self.room[partition]:
                self.dying = True
                return Receipt()  # it never settles
            self.room[partition] -= 1
        self.writes += 1
        if value is None:
            self.inbox.pop(key, None)
        else:
            self.inbox[key] = value
            self.unseen.append(key)
        return settled()

    async def row(self, key: bytes) -> bytes | None:
        self.rows_read += 1
        return self.copy.get(key)

    async def read(self, origins: Iterable[Origin]) -> dict[Origin, bytes]:
        found = {origin: self.messages[origin[2]][0] for origin in origins if origin[2] >= self.retained_from}
        self.payloads_read += len(found)
        return found

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Any) -> Any:
        """Run what never comes back from a write that a dying gateway leaves under way."""
        task = self.loop.create_task(work)
        for _ in range(50):
            if task.done():
                return task.result()
            self.run(asyncio.sleep(0))
        task.cancel()
        raise Crash

    def idle(self) -> None:
        """Let loads finish."""

        async def wait() -> None:
            while self.inboxes._tasks:
                await asyncio.gather(*self.inboxes._tasks, return_exceptions=True)

        self.run(wait())

    def sync(self, mailboxes: dict[str, Mailbox]) -> None:
        """The local copy catches up."""
        self.copy = dict(self.inbox)
        unseen, self.unseen = self.unseen, []
        self.inboxes.read_back(unseen, mailboxes)


class Device(FakeSession):
    """Takes what it is given, and hands a QoS 2 message on once per packet id, as the protocol has it."""

    def __init__(self, world: World, box: Mailbox, known: dict[int, bytes], capacity: int) -> None:
        super().__init__(capacity=capacity, expiry=100)
        self.world = world
        self.box = box
        self.known = known  # QoS 2: packet id → payload, not released
        self.handed_on: list[tuple[bytes, int]] = []
        self.flying: dict[int, InFlight] = {}
        self.last = 0
        self.cut_off = False  # something waits for a record that is never stored: nothing leaves after it

    @property
    def room(self) -> int:
        return self.capacity - len(self.flying)

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        if not self.room:
            return False
        self.last += 1
        while self.last in self.flying or self.last in self.known:
            self.last += 1
        self.flying[self.last] = InFlight(self.last, message, qos)
        self._store(self.box.sent(message, self.last))
        self._publish(self.last, message, qos)
        return True

    def _store(self, entry: Entry | None) -> None:
        if entry is not None:
            self.cut_off |= not self.world.inboxes.store_single(self.box, entry).settled

    def _publish(self, packet_id: int, message: Message, qos: int) -> None:
        if self.cut_off:
            return
        if qos == 2 and packet_id in self.known:
            assert self.known[packet_id] == message.payload, "a packet id in use was given to another message"
            return
        if qos == 2:
            self.known[packet_id] = message.payload
        self.handed_on.append((message.payload, qos))

    def resume(self, state: SessionState) -> None:
        for each in state.outbound:
            self.flying[each.packet_id] = each
            if not each.released:
                assert each.message is not None
                self._publish(each.packet_id, each.message, each.qos)

    def finish(self) -> None:
        """Acknowledge the oldest."""
        packet_id, each = next(iter(self.flying.items()))
        if each.qos == 2:
            if not each.released:
                self._store(self.box.received(each.message, packet_id))
                each.released = True
            if self.cut_off:
                return
            self.known.pop(packet_id, None)
        del self.flying[packet_id]
        self._store(self.box.finished(each.message, packet_id))


DEATHS = st.none() | st.integers(0, 4) | st.lists(st.integers(0, 3), min_size=PARTITIONS, max_size=PARTITIONS)
"""Never, at a write, or with so many writes to each partition stored and the others under way."""


class InboxModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.known: dict[int, bytes] = {}
        self.handed_on: list[tuple[bytes, int]] = []
        self.taken = 0
        self.stored_position = 0
        self.policy = "oldest"
        self.device: Device | None = None
        self.box = self.mailbox()

    def mailbox(self) -> Mailbox:
        box = Mailbox("c", "", Rights((), "c", "", unrestricted=True), limit=LIMIT, keeper=self.world.inboxes)
        box.overflow = self.policy
        return box

    def guard(self, step: Any) -> None:
        """Do a step of the gateway's; it may die in the middle."""
        try:
            step()
        except Crash:
            self.restart()

    def fate(self, dies: int | list[int] | None) -> None:
        self.world.writes_left = dies if isinstance(dies, int) else None
        self.world.room = list(dies) if isinstance(dies, list) else None

    def survive(self) -> None:
        """The step is over; if some write of it never gets there, so is the gateway."""
        if self.world.dying:
            self.restart()
        self.fate(None)
        self.world.idle()

    def collect(self) -> None:
        if self.device is not None:
            self.handed_on += self.device.handed_on
            self.device.handed_on = []

    def restart(self) -> None:
        self.collect()
        world = self.world
        world.writes_left = world.room = None
        world.dying = False
        for task in world.inboxes._tasks:  # the dead do nothing more
            task.cancel()
        world.idle()
        world.inboxes = world.make()
        world.copy, world.unseen = dict(world.inbox), []
        self.device = None
        self.box = self.mailbox()
        self.box.disconnected_at = 0.0
        positions = {TopicPartition(TOPIC, 0): world.position}
        world.inboxes.restore(sorted(world.copy.items()), {"c": self.box}, lambda _: False, positions)
        for offset in range(world.position, len(world.messages)):
            self.take(offset)
        self.box.replayed = None
        world.idle()

    def take(self, offset: int) -> None:
        payload, qos = self.world.messages[offset]
        self.box.deliver(Message("t", payload, qos, origin=(TOPIC, 0, offset)), qos, False)

    @rule(qos=st.integers(1, 2), large=st.booleans(), count=st.integers(1, 4), dies=DEATHS)
    def publish(self, qos: int, large: bool, count: int, dies: int | list[int] | None) -> None:
        self.fate(dies)
        for _ in range(count):
            offset = len(self.world.messages)
            payload = b"%d/" % offset + b"x" * (entries.INLINE if large else 0)
            self.world.messages.append((payload, qos))
            self.guard(lambda: self.take(len(self.world.messages) - 1))
        self.survive()

    @precondition(lambda self: self.device is None)
    @rule(capacity=st.integers(1, 8))
    def connect(self, capacity: int) -> None:
        self.device = Device(self.world, self.box, self.known, capacity)
        self.device.resume(self.box.attach(self.device))
        self.guard(self.box.feed)
        self.world.idle()

    @precondition(lambda self: self.device is not None and self.device.flying)
    @rule(count=st.integers(1, 5), dies=DEATHS)
    def finish(self, count: int, dies: int | list[int] | None = None) -> None:
        self.fate(dies)
        for _ in range(count):
            if self.device is not None and self.device.flying:
                self.guard(self.device.finish)
        if self.device is not None:
            self.guard(self.box.feed)
        self.survive()

    @precondition(lambda self: self.device is not None)
    @rule()
    def disconnect(self) -> None:
        assert self.device is not None
        self.collect()
        self.box.detach(SessionState(outbound=list(self.device.flying.values())), 0.0)
        self.device = None
        self.world.idle()

    @rule(dies=DEATHS)
    def checkpoint(self, dies: int | list[int] | None) -> None:
        """As `Checkpoints` do: what is held, the positions, what positions have passed."""
        world = self.world
        self.fate(dies)
        try:
            position = len(world.messages)
            world.inboxes.unsettled = {}
            gone, self.box.gone = self.box.gone, []
            assert world.attempt(world.inboxes.settle([self.box]))
            if world.writes_left == 0 or world.dying:
                raise Crash
            world.position = position
            world.inboxes.remove_singles(self.box, gone)
        except Crash:
            self.restart()
        self.survive()

    @rule()
    def catch_up(self) -> None:
        self.world.sync({"c": self.box})
        self.world.idle()

    @rule()
    def die(self) -> None:
        self.restart()

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.box.waiting <= LIMIT
        held = [*self.box.front.values(), *self.box.tail.values(), *self.box.pending.values()]
        assert self.box.size == sum(each.size for each in held)
        numbers = [*self.box.front, *self.box.shelf.numbers(), *self.box.tail]
        assert numbers == sorted(numbers), "an older message waits behind a newer one"

    @invariant()
    def messages_come_in_their_order(self) -> None:
        """Of one topic and one QoS (MQTT-4.6.0-6); those of QoS 1 may be repeated (4.4), and what was dropped for want
        of room may come after a crash all the same."""
        self.collect()
        lost = {payload for payload, _ in self.world.lost}
        for wanted in (1, 2):
            given = [payload for payload, qos in self.handed_on if qos == wanted and payload not in lost]
            first = list(dict.fromkeys(int(payload.partition(b"/")[0]) for payload in given))
            assert first == sorted(first)

    @invariant()
    def nothing_of_qos_2_is_handed_on_twice(self) -> None:
        self.collect()
        twice = [payload for payload, qos in self.handed_on if qos == 2]
        assert len(twice) == len(set(twice))

    def teardown(self) -> None:
        if self.device is not None:
            self.disconnect()
        self.checkpoint(None)
        self.catch_up()
        self.connect(10_000)
        self.world.idle()
        assert self.device is not None
        for _ in range(1000):
            if not self.device.flying:
                break
            self.finish(1000)
        self.nothing_of_qos_2_is_handed_on_twice()
        seen = {payload for payload, _ in self.handed_on} | {payload for payload, _ in self.world.lost}
        assert [payload for payload, _ in self.world.messages if payload not in seen] == []
        assert {why for _, why in self.world.lost} <= {FULL}
        # and the store is as empty as the mailbox
        self.checkpoint(None)
        self.checkpoint(None)
        assert self.box.waiting == 0 and self.box.bytes == 0 and self.world.inbox == {}
        self.world.loop.close()


class NewestModel(InboxModel):
    """With the other policy."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = self.box.overflow = "newest"


class EndingModel(InboxModel):
    """Of a session that ends, whatever it had, nothing stays in the store."""

    def teardown(self) -> None:
        if self.device is not None:
            self.disconnect()
        self.world.inboxes.discard(self.box)
        self.world.idle()
        assert self.world.inbox == {}
        self.world.loop.close()


TestInbox = InboxModel.TestCase
TestInbox.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestNewest = NewestModel.TestCase
TestNewest.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestEnding = EndingModel.TestCase
TestEnding.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.torture
class TestInboxLong(InboxModel.TestCase):  # type: ignore[name-defined,misc]  # made by Hypothesis
    settings = settings(max_examples=1500, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("stored", list(itertools.product(range(3), repeat=PARTITIONS)))
def test_what_a_gateway_leaves_under_way_when_it_dies_reorders_nothing(stored: tuple[int, ...]) -> None:
    """`stored`: how many records each partition still got."""
    model = InboxModel()
    model.connect(8)
    model.publish(qos=2, large=False, count=4, dies=list(stored))
    model.connect(8)
    model.messages_come_in_their_order()
    model.teardown()


def test_what_was_kept_before_it_was_given_comes_before_what_was_kept_on_its_way() -> None:
    """A gateway dies when it has given both, and the device has got neither."""
    model = InboxModel()
    model.publish(qos=1, large=False, count=3, dies=None)
    model.checkpoint(None)
    model.catch_up()
    model.connect(6)
    model.publish(qos=1, large=True, count=2, dies=None)
    model.checkpoint(None)
    assert model.device is not None and len(model.device.flying) == 5
    for _ in range(2):  # the second one dies before it has given all, the first of these again
        model.device.handed_on = model.handed_on = []
        model.restart()
        model.publish(qos=1, large=False, count=1, dies=None)
        model.connect(4)
        model.checkpoint(None)
        model.messages_come_in_their_order()
        model.the_bounds_hold()
    model.finish(2, None)
    model.checkpoint(None)
    model.restart()
    model.messages_come_in_their_order()
    model.teardown()
    model.messages_come_in_their_order()


# --- what it costs, in counts


def filled(world: World, count: int, size: int = 10) -> Mailbox:
    box = Mailbox("c", "", Rights((), "c", "", unrestricted=True), limit=100_000, keeper=world.inboxes)
    box.limit_bytes = 1 << 30
    for _ in range(count):
        offset = len(world.messages)
        world.messages.append((b"x" * size, 1))
        box.deliver(Message("t", b"x" * size, 1, origin=(TOPIC, 0, offset)), 1, False)
    assert world.run(world.inboxes.settle([box]))
    world.sync({"c": box})
    return box


def drain(world: World, box: Mailbox) -> int:
    device = Device(world, box, {}, 10_000)
    device.resume(box.attach(device))
    box.feed()
    world.idle()
    while device.flying:
        device.finish()
        world.idle()
    return len(device.handed_on)


def test_a_reconnect_reads_what_its_own_queue_holds_however_much_passed_by() -> None:
    costs = []
    for passed_by in (0, 5_000):
        world = World()
        other = Mailbox("other", "", Rights((), "o", "", unrestricted=True), limit=100_000, keeper=world.inboxes)
        for offset in range(passed_by):
            world.messages.append((b"y", 1))
            other.deliver(Message("t", b"y", 1, origin=(TOPIC, 0, offset)), 1, False)
        world.run(world.inboxes.settle([other]))
        box = filled(world, 1_000)
        world.rows_read = world.payloads_read = 0
        assert drain(world, box) == 1_000
        costs.append((world.rows_read, world.payloads_read))
    assert costs == [(4, 0), (4, 0)]  # 256 entries a row


def test_large_payloads_are_read_once_each_and_not_written_again() -> None:
    world = World()
    box = filled(world, 300, entries.INLINE * 2)
    assert sum(map(len, world.inbox.values())) < 300 * 200
    world.retained_from = 100
    assert drain(world, box) == 200 and world.payloads_read == 200
    assert box.missing == world.counters.undeliverable == 100 and {why for _, why in world.lost} == {GONE}


def test_ten_messages_for_each_of_a_thousand_sessions_are_one_record_each_and_leave_no_memory() -> None:
    world = World()
    boxes = {
        f"c{number}": Mailbox(f"c{number}", "", Rights((), "c", "", unrestricted=True), limit=100, keeper=world.inboxes)
        for number in range(1_000)
    }
    for offset in range(10):
        message = Message("t", b"x" * 100, 1, origin=(TOPIC, 0, offset))
        for box in boxes.values():
            box.deliver(message, 1, False)
    touched = world.inboxes.unsettled
    assert len(touched) == 1_000
    world.run(world.inboxes.settle(touched.values()))
    assert world.writes == 1_000
    world.sync(boxes)
    assert all(box.waiting == 10 and box.size == 0 and not box.tail and not box.chunks for box in boxes.values())


def test_a_session_that_nothing_matches_costs_nothing() -> None:
    world = World()
    for number in range(100):
        Mailbox(f"c{number}", "", Rights((), "c", "", unrestricted=True), limit=10, keeper=world.inboxes)
    assert world.run(world.inboxes.settle(world.inboxes.unsettled.values()))
    assert world.writes == 0 and world.rows_read == 0
