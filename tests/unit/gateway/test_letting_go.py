"""Between two gateways: nothing is said to be let go of before all of it is stored, and nothing is taken up before all
of it was read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from broker.client import TopicPartition
from broker.client.errors import TimedOut
from gateway.contract import StoredSession, decode, encode
from gateway.counters import Counters
from gateway.moving.arrivals import CHECKPOINT_KEY, Arrivals, positions_list
from gateway.moving.checkpoints import Checkpoints
from gateway.peers.claims import Holder, Won
from gateway.policy import Rights
from gateway.ports import InFlight, Message, NotAcknowledged, Opened, Receipt, SessionState, settled
from gateway.receipts import refused
from gateway.sessions.connected import Connection
from gateway.sessions.entries import single_key
from gateway.sessions.inbox import Inbox
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.ownership import Ownership
from gateway.sessions.sessions import Sessions
from tests.unit.gateway.parts import FakeSession

PLACE = TopicPartition("t", 0)


class Log:
    """`Ticks` whose outcomes the test decides."""

    def __init__(self) -> None:
        self.under_way: list[Receipt[Any]] = []

    def write(self, *what: Any, **more: Any) -> Receipt[Any]:
        self.under_way.append(Receipt())
        return self.under_way[-1]

    def flushed(self) -> Receipt[Any]:
        return settled()


def nothing(*what: Any) -> Any:
    raise AssertionError("not asked here")


def inbox_on(ticks: Any) -> Inbox:
    return Inbox(
        ticks=lambda: ticks,
        counters=Counters(),
        clock=lambda: 0.0,
        row=nothing,
        read=nothing,
        ended=nothing,
        followed=lambda: False,
        partitions=1,
        loop=asyncio.get_running_loop(),
    )


async def turns(count: int = 10, *, until: Callable[[], bool] = lambda: False) -> None:
    for _ in range(count):
        if until():
            return
        await asyncio.sleep(0.01)


async def test_a_session_is_whole_only_when_what_a_checkpoint_is_writing_of_it_has_its_outcome() -> None:
    log = Log()
    inbox = inbox_on(log)
    box = Mailbox("x", "", Rights((), "x", "", unrestricted=True), limit=10, keeper=inbox)
    box.deliver(Message("a", b"1", 1, origin=("t", 0, 1)), 1, False)
    checkpoint = asyncio.create_task(inbox.settle([box]))
    await turns(until=lambda: bool(log.under_way))
    whole = asyncio.create_task(inbox.settle_whole(box))
    await turns()
    assert len(log.under_way) == 1 and not whole.done()
    log.under_way[0].fail(NotAcknowledged("nobody knows"))
    assert not await checkpoint
    await turns(100, until=lambda: len(log.under_way) == 2)
    assert not whole.done(), "it is written again first"
    log.under_way[1].settle()
    assert await whole


async def test_what_a_session_had_finished_is_remembered_until_delivery_has_come_by_it_again() -> None:
    """A gateway that was started again makes a checkpoint of where it begins to read."""
    written: list[Any] = []

    def write(topic: str, value: bytes | None, key: bytes | None, *_: Any, **__: Any) -> Receipt[Any]:
        written.append((key, value))
        return settled()

    inbox = inbox_on(SimpleNamespace(write=write, flushed=settled))
    box = Mailbox("x", "", Rights((), "x", "", unrestricted=True), limit=10, keeper=inbox)
    inbox.adopt(box, [(single_key("x", 5), b'{"v":1,"qos":2,"done":true,"origin":["t",0,7]}')], {PLACE: 6})
    positions = {PLACE: 6}
    checkpoints = Checkpoints(
        gateway="me",
        sessions=SimpleNamespace(mailboxes={"x": box}),  # type: ignore[arg-type]  # stands for the sessions
        inbox=inbox,
        ticks=lambda: SimpleNamespace(write=write),  # type: ignore[arg-type,return-value]  # stands for Ticks
        clock=lambda: 0.0,
        positions=lambda: positions,
        held=lambda: True,
        behind=dict,
        sweep=lambda: None,
    )
    await checkpoints.checkpoint()
    assert (single_key("x", 5), None) not in written and len(written) == 1
    positions[PLACE] = 8
    box.replayed = None
    inbox.touched(box)
    await checkpoints.checkpoint()
    assert (single_key("x", 5), None) in written


@pytest.mark.parametrize("what", ["it left", "no lease", "not stored", "it ended"])
async def test_what_a_session_had_finished_is_remembered_where_the_checkpoint_does_not_count_for_it(what: str) -> None:
    """A gateway that stood still lets go of a session as its last checkpoint left it, while the next is written."""
    log = Log()
    keys: list[bytes] = []

    def write(topic: str, value: bytes | None, key: bytes, *_: Any, **__: Any) -> Receipt[Any]:
        if value is None:
            keys.append(key)
        return log.write()

    inbox = inbox_on(SimpleNamespace(write=write, flushed=settled))
    box = Mailbox("x", "", Rights((), "x", "", unrestricted=True), limit=10, keeper=inbox)
    box.gone = [5]
    inbox.touched(box)
    sessions = SimpleNamespace(mailboxes={"x": box})
    held = what != "no lease"
    checkpoints = Checkpoints(
        gateway="me",
        sessions=sessions,  # type: ignore[arg-type]  # stands for the sessions
        inbox=inbox,
        ticks=lambda: SimpleNamespace(write=write),  # type: ignore[arg-type,return-value]  # stands for Ticks
        clock=lambda: 0.0,
        positions=lambda: {PLACE: 6},
        held=lambda: held,
        behind=dict,
        sweep=lambda: None,
    )
    work = asyncio.create_task(checkpoints.checkpoint())
    await turns(until=lambda: bool(log.under_way))
    if what in ("it left", "it ended"):
        del sessions.mailboxes["x"]
    if what == "it ended":
        inbox.discard(box)
    if what == "not stored":
        log.under_way[0].fail(NotAcknowledged("nobody knows"))
    else:
        log.under_way[0].settle()
    await work
    assert keys == [single_key("x", 5)] * (what == "it ended")
    if what in ("no lease", "not stored"):
        held = True
        again = asyncio.create_task(checkpoints.checkpoint())
        await turns(until=lambda: len(log.under_way) > 1)
        log.under_way[-1].settle()
        await again
        assert keys == [single_key("x", 5)] and not box.gone


def sessions_of(keeper: Any) -> Sessions:
    fakes: dict[str, Any] = dict.fromkeys(
        ("registry", "fanout", "counters", "clock", "book", "presence", "held", "cares", "alone"), nothing
    )
    return Sessions(
        gateway="me",
        inbox=keeper,
        records=SimpleNamespace(of_session=lambda *what: None, write=lambda record: settled()),  # type: ignore[arg-type]
        wills=SimpleNamespace(due={}),  # type: ignore[arg-type]  # fakes, as the next one
        claims=SimpleNamespace(holders={}),  # type: ignore[arg-type]
        **fakes,
    )


async def test_a_session_in_doubt_remembers_what_is_under_way_still() -> None:
    """Its transaction begins after the log was read, which says nothing of it then."""
    sessions = sessions_of(None)
    box = Mailbox("x", "", Rights((), "x", "", unrestricted=True), limit=10, keeper=None)  # type: ignore[arg-type]
    sessions.mailboxes["x"] = box
    under_way: Receipt[Any] = Receipt()
    box.inbound = {1: settled(), 2: under_way, 3: refused(NotAcknowledged("?")), 4: refused(NotAcknowledged("?"))}
    sessions.mark("x", 1, there=True)
    sessions.mark("x", 4, there=True)

    async def now() -> None:
        pass

    await sessions.recover(now, now)
    assert sorted(box.inbound) == [1, 2, 4] and box.inbound[2] is under_way
    assert not any(each.failure for each in box.inbound.values())


@pytest.mark.parametrize("stored", [False, True])
def test_a_device_that_is_back_gets_nothing_again_before_its_packet_ids_are_stored(stored: bool) -> None:
    under_way: Receipt[Any] = settled() if stored else Receipt()
    keeper: Any = SimpleNamespace(touched=lambda box: None, now=lambda: 0.0, flushed=lambda: under_way)
    sessions = sessions_of(keeper)
    free = Rights((), "x", "", unrestricted=True)
    box = Mailbox("x", "", free, limit=10, keeper=keeper)
    box.session = FakeSession("x")
    sessions.mailboxes["x"] = box
    message = Message("a", b"1", 2, origin=("t", 0, 1))
    box.deliver(message, 2, False)
    box.sent(message, 7)
    box.detach(SessionState(outbound=[InFlight(7, message, 2)]), 0.0)
    back = FakeSession("x", expiry=60)
    back.state = Connection("", free, 0.0, None)
    opened = sessions.attach(back, box)
    assert opened.settled is stored
    if not stored:
        under_way.settle()
    assert opened.settled and opened.value is not None and opened.value.present


@dataclass(frozen=True, eq=False)
class Rows:
    """Stands for a mailbox."""

    client_id: str
    rows: list[str]


class Gateways:
    """Home and cluster of a gateway that takes one session up from another, which lets go while this one reads."""

    def __init__(self, released: StoredSession) -> None:
        self.arrivals = Arrivals("me", self, self, monotonic=lambda: 0.0)
        self.log: list[str] = []  # the session's rows
        self.read: list[str] = []  # those that were read here
        self.here: list[Rows] = []
        self.opened: list[list[str]] = []
        self.failures = 0
        self.since: list[Any] = []
        self.dead: set[str] = set()
        self.records = {released.client_id: encode(released)}
        self.looked_at: Callable[[list[str]], None] = lambda client_ids: None
        self.ownership = Ownership()
        self.ownership.stands(b"x", self.records["x"])

    def write(self, record: StoredSession) -> None:
        """As the log and its readers do."""
        key, value = record.client_id.encode(), encode(record)
        if self.ownership.stands(key, value):
            self.records[record.client_id] = value

    async def take(self, records: list[StoredSession]) -> None:
        for each in records:
            self.write(each)

    def owner(self, client_id: str) -> str:
        return self.ownership.owner(client_id.encode())

    def alive(self, gateway: str) -> bool:
        return gateway not in self.dead

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        await self.current()
        self.log = ["row"]  # the holder's last, and then its record, of another partition, which is read
        self.looked_at(client_ids)
        return {each: self.records[each] for each in client_ids if each in self.records}

    async def current(self) -> None:
        self.read = list(self.log)

    async def rebuild(self, record: StoredSession, since: Any) -> Any:
        self.here.append(Rows(record.client_id, list(self.read)))
        self.since.append(since)
        return self.here[-1]

    def abandoned(self, mailbox: Any) -> None:
        self.here = [each for each in self.here if each is not mailbox]

    async def join(self, arriving: list[Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise TimedOut("the log does not answer")

    async def secure(self, mailboxes: list[Any]) -> None:
        assert mailboxes == self.here

    def arrived(self, session: Any, mailbox: Any, epoch: int) -> Receipt[Opened]:
        self.opened.append(mailbox.rows)
        return settled(Opened(present=True))

    async def fence(self, gateway: str) -> None:
        pass

    def settled(self, mailbox: Any, epoch: int) -> None:
        nothing()

    release = pass_on = empty = lapsed = settled  # type: ignore[assignment]  # not asked here


def arriving() -> tuple[Gateways, Receipt[Opened]]:
    """A device that connected here, and its session, which another gateway has let go of."""
    released = StoredSession(
        client_id="x", owner="", gateway="a", expiry=60, claim=5, released=True, positions=positions_list({PLACE: 3})
    )
    gateways = Gateways(released)
    receipt = gateways.arrivals.expect(FakeSession("x"), "token")
    previous = Holder(gateway="a", epoch=5, principal="", online=True, durable=True)
    gateways.arrivals.won(Won(client_id="x", token="token", epoch=6, previous=previous))
    return gateways, receipt


async def test_a_session_is_made_of_all_rows_that_were_stored_before_its_record() -> None:
    gateways, receipt = arriving()
    await gateways.arrivals._round()
    assert gateways.opened == [["row"]] and receipt.settled


async def test_a_checkpoint_that_is_newer_than_the_record_is_not_taken_for_where_the_session_was() -> None:
    """Its gateway was started again, and passed the session on after the record was looked at."""
    gateways, receipt = arriving()
    passed_on = decode(StoredSession, gateways.records["x"])
    gateways.write(replace(passed_on, released=False, positions=()))
    gateways.dead = {"a"}

    def looked_at(client_ids: list[str]) -> None:
        if client_ids != ["x"]:
            gateways.write(passed_on)
            gateways.records[CHECKPOINT_KEY + "a"] = json.dumps({"positions": [[*PLACE, 99]]}).encode()

    gateways.looked_at = looked_at
    await gateways.arrivals._round()
    assert gateways.opened == [] and not receipt.settled
    await gateways.arrivals._round()
    assert receipt.settled and gateways.since == [{PLACE: 3}]


async def test_a_session_that_could_not_be_brought_up_to_date_is_forgotten_and_made_anew() -> None:
    gateways, receipt = arriving()
    gateways.failures = 1
    with pytest.raises(TimedOut):
        await gateways.arrivals._round()
    assert gateways.here == [] and not receipt.settled
    gateways.arrivals.changed()
    await gateways.arrivals._round()
    assert len(gateways.here) == 1 and gateways.opened == [["row"]] and receipt.settled
