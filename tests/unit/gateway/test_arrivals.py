"""Sessions that move between gateways which die, stand still and lag behind: each gets everything, and nothing twice.

The claims, the arrivals and the rules of whose a session is are the product's own; the log, the mailboxes and the
delivery are as small as can be: every session gets every number written after it was made. What a gateway writes is
under way until it is flushed, late perhaps; what waits for something can be interrupted there by all that others do.
What a device has is remembered at once, as with QoS 2, until a checkpoint has passed it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import TopicPartition
from gateway.contract import Presence, StoredSession, decode, encode
from gateway.moving.arrivals import CHECKPOINT_KEY, Arrivals, Positions, left_by, positions_list, read_positions
from gateway.peers.claims import Claims, Denied, Taken, Won
from gateway.ports import Opened, Receipt, settled
from gateway.sessions.ownership import Ownership
from tests.unit.gateway.parts import FakeSession

PLACE = TopicPartition("t", 0)
NOBODY = Presence(client_id="", online=False, since=0.0, gateway="")


class Pause:
    """Somebody else's turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass(eq=False)
class Box:
    """A session's mailbox: numbers its device hasn't got, and those it has got."""

    client_id: str
    epoch: int = 0
    waiting: list[int] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    session: FakeSession | None = None
    caught_up: bool = True  # it is here; until then what it had may be met again


@dataclass
class World:
    claims: list[Presence] = field(default_factory=lambda: [NOBODY])  # no claim is at offset 0
    records: list[tuple[str, bytes, str]] = field(default_factory=list)  # key, value, writer
    judge: Ownership = field(default_factory=Ownership)
    stored: dict[str, set[int]] = field(default_factory=dict)  # what was waiting
    done: dict[str, set[int]] = field(default_factory=dict)
    written: int = 0
    since: dict[str, int] = field(default_factory=dict)
    got: dict[str, list[int]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    clock: float = 0.0


class Node:
    """One gateway: the arrivals' home and cluster."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.claims = Claims(name)
        self.ownership = Ownership()
        self.arrivals = Arrivals(name, self, self, monotonic=lambda: world.clock)
        self.boxes: dict[str, Box] = {}
        self.rows: dict[str, bytes] = {}
        self.outbox: list[tuple[str, bytes, Callable[[bool], None]]] = []
        self.read = self.records_read = 0
        self.tail = world.written
        self.tokens = 0
        self.stale = False
        self.checkpointed = self.tail
        self.work: Coroutine[Any, Any, Any] | None = None

    # --- writing

    def put(self, key: str, value: bytes, stored: Callable[[bool], None] = lambda stands: None) -> None:
        self.outbox.append((key, value, stored))

    def flush(self, only: str = "") -> None:
        """What was written is stored: all, or the first there is of one session or of this gateway's checkpoints."""
        if only:
            first = next((each for each in self.outbox if each[0].startswith(only)), None)
            chosen = [] if first is None else [first]
        else:
            chosen = list(self.outbox)
        for each in chosen:
            self.outbox.remove(each)
            key, value, stored = each
            stands = key.startswith(CHECKPOINT_KEY) or self.world.judge.stands(key.encode(), value)
            self.world.records.append((key, value, self.name))
            stored(stands)

    async def flushed(self) -> None:
        under_way = list(self.outbox)
        while any(each in self.outbox for each in under_way):
            await Pause()

    def write(self, box: Box, stored: Callable[[bool], None] = lambda stands: None, **more: Any) -> None:
        record = StoredSession(
            client_id=box.client_id, owner="", gateway=self.name, expiry=100, claim=box.epoch, **more
        )
        self.put(box.client_id, encode(record), stored)

    # --- what happens

    def claim(self, client_id: str, *, online: bool, adopts: int | None = None) -> str:
        self.tokens += 1
        token = f"{self.name}{self.tokens}"
        self.claims.claiming(client_id, token)
        self.world.claims.append(
            Presence(
                client_id=client_id,
                online=online,
                since=0.0,
                gateway=self.name,
                token=token,
                adopts=adopts,
                clean=False,
            )
        )
        return token

    def connect(self, client_id: str) -> None:
        box = self.boxes.get(client_id)
        session = FakeSession(client_id, expiry=100)
        token = self.claim(client_id, online=True)
        if box is not None and client_id not in self.arrivals:
            self.attach(box, session)
        else:
            self.arrivals.expect(session, token)

    def attach(self, box: Box, session: Any, since: int | None = None) -> None:
        """The device is told that it is connected when that is stored. `since`: its session is new."""

        if self.boxes.get(box.client_id) is not box:
            return

        def stored(stands: bool) -> None:
            if stands and self.boxes.get(box.client_id) is box:
                box.caught_up = True
                if since is not None:
                    self.world.since.setdefault(box.client_id, since)
                    self.world.stored.setdefault(box.client_id, set())
                box.session = session
                self.drain(box)

        self.write(box, stored)

    def drain(self, box: Box) -> None:
        """The connected device takes what waits."""
        if box.session is not None:
            for number in box.waiting:
                if number not in box.done:
                    box.done.add(number)
                    self.world.done.setdefault(box.client_id, set()).add(number)
                    self.world.got.setdefault(box.client_id, []).append(number)
            box.waiting.clear()

    def deliver(self) -> None:
        while self.tail < self.world.written:
            for box in self.boxes.values():
                box.waiting.append(self.tail)
                self.drain(box)
            self.tail += 1

    def checkpoint(self, then: Callable[[], None] = lambda: None) -> None:
        tail, boxes = self.tail, {name: (box, set(box.waiting)) for name, box in self.boxes.items()}
        here = {name for name, box in self.boxes.items() if box.caught_up}
        behind = {name: positions_list(places) for name, places in self.arrivals.behind().items()}
        value = {"v": 1, "at": 0.0, "positions": [[*PLACE, tail]], "behind": behind}

        def stored(_: bool) -> None:
            self.checkpointed = tail
            for client_id, (box, numbers) in boxes.items():
                if self.boxes.get(client_id) is box and self.world.judge.owner(client_id.encode()) == self.name:
                    self.world.stored[client_id] = numbers
                    if client_id in here:
                        done = self.world.done.setdefault(client_id, set())
                        done -= {each for each in done if each < tail and each not in numbers}
            then()

        self.put(CHECKPOINT_KEY + self.name, json.dumps(value).encode(), stored)

    def hear(self, limit: int) -> None:
        self.hear_records(limit)
        self.hear_claims(limit)

    def hear_records(self, limit: int) -> None:
        for key, value, writer in self.world.records[self.records_read :][:limit]:
            self.records_read += 1
            if key.startswith(CHECKPOINT_KEY):
                self.rows[key] = value
                continue
            if self.ownership.stands(key.encode(), value):
                self.rows[key] = value
            self.heard_record(key, writer)

    def heard_record(self, client_id: str, writer: str) -> None:
        """As `Moves.stored`."""
        self.arrivals.landed(client_id)
        box = self.boxes.get(client_id)
        owner = self.ownership.owner(client_id.encode())
        if client_id in self.arrivals:
            self.arrivals.stored(client_id)
        elif owner not in ("", self.name):
            holder = self.claims.holders.get(client_id)
            if self.boxes.pop(client_id, None) is not None and holder is not None and holder.gateway == self.name:
                self.arrivals.resume(client_id, holder)
        elif writer != self.name and box is not None and self.claims.elsewhere(client_id) is None:
            self.write(box)

    def hear_claims(self, limit: int) -> None:
        """As `Moves.heard`."""
        for offset in range(self.read, min(self.read + limit, len(self.world.claims))):
            self.read = offset + 1
            record = self.world.claims[offset]
            heard = self.claims.hear(record.client_id, record, offset)
            if isinstance(heard, Won):
                box = self.boxes.get(record.client_id)
                if box is not None:
                    box.epoch = heard.epoch
                    if heard.previous is not None and heard.previous.gateway != self.name:
                        self.write(box)
                self.arrivals.won(heard)
            elif isinstance(heard, Denied):
                self.arrivals.denied(record.client_id, heard.token)
            elif isinstance(heard, Taken) and not self.claims.unheard(record.client_id):
                self.taken(heard)

    def taken(self, heard: Taken) -> None:
        box = self.boxes.get(heard.client_id)
        if heard.client_id in self.arrivals or box is None:
            self.arrivals.replaced(heard.client_id, heard.mine)
        elif heard.adopted or self.stale:
            del self.boxes[heard.client_id]
            box.epoch = heard.mine.epoch
            self.let_go(box, {PLACE: self.checkpointed}, lambda stands: None)
        else:
            self.release(box, heard.mine.epoch)

    def survey(self) -> None:
        for client_id, holder in list(self.claims.holders.items()):
            unknown = client_id not in self.arrivals and not self.claims.unheard(client_id)
            if not self.alive(holder.gateway) and unknown:
                self.arrivals.adopt(client_id, self.claim(client_id, online=False, adopts=holder.epoch))

    def step(self) -> None:
        """Go on with taking sessions up, to where something is waited for."""
        if self.work is None:
            self.work = self.arrivals._round()
        try:
            self.work.send(None)
        except StopIteration:
            self.work = None

    def start_again(self, earlier: Node, *, knows_all: bool) -> None:
        """As `Restoring` does, in a new process: `self` is as new. Not `knows_all`: of the claims it finds those that
        count now (in its local copy, or the log was compacted), and none that they replaced."""
        everything = Claims("")
        for offset, record in enumerate(self.world.claims):
            everything.hear(record.client_id, record, offset)
        for offset, record in enumerate(self.world.claims):
            holder = everything.holders.get(record.client_id)
            if knows_all:
                self.claims.hear(record.client_id, record, offset)
            elif holder is not None and holder.epoch == offset:
                self.claims.hear(record.client_id, replace(record, epoch=offset), -1)
        self.read = len(self.world.claims)
        for key, value, _ in self.world.records:
            if key.startswith(CHECKPOINT_KEY) or self.ownership.stands(key.encode(), value):
                self.rows[key] = value
        self.records_read = len(self.world.records)
        self.ownership.started()
        self.tokens = earlier.tokens
        value = self.rows.get(CHECKPOINT_KEY + self.name)
        found = json.loads(value) if value is not None else {}
        at = read_positions(found.get("positions", ()))
        behind = {name: read_positions(places) for name, places in found.get("behind", {}).items()}
        for client_id, value in self.rows.items():
            if not client_id.startswith(CHECKPOINT_KEY):
                self.restore(decode(StoredSession, value), at, behind.get(client_id))
        self.claims.started()
        if self.boxes:
            self.tail = self.checkpointed = at.get(PLACE, self.tail)
            for box in self.boxes.values():
                box.waiting = [each for each in box.waiting if each < self.tail]
            self.deliver()

    def restore(self, record: StoredSession, positions: Positions, behind: Positions | None) -> None:
        client_id, holder = record.client_id, self.claims.holders.get(record.client_id)
        assert holder is not None
        if holder.gateway == self.name:
            if record.keeper != self.name or record.released or behind:
                if record.keeper == self.name and behind and not record.free:
                    self.pass_on(left_by(record, positions | behind))
                self.arrivals.resume(client_id, holder)
            else:
                self.boxes[client_id] = self.box(client_id)
                self.boxes[client_id].epoch = holder.epoch
        elif record.keeper == self.name and not record.free:
            self.pass_on(left_by(record, positions | (behind or {})))

    def box(self, client_id: str) -> Box:
        """As it is in the store."""
        done = set(self.world.done.get(client_id, ()))
        return Box(client_id, waiting=sorted(self.world.stored.get(client_id, set()) - done), done=done)

    # --- the arrivals' home

    async def take(self, records: list[StoredSession]) -> None:
        for each in records:
            self.put(each.client_id, encode(each))
        await self.flushed()

    async def rebuild(self, record: StoredSession, since: dict[TopicPartition, int]) -> Any:
        await Pause()
        box = self.box(record.client_id)
        box.caught_up = False
        return box

    def abandoned(self, mailbox: Any) -> None:
        self.boxes.pop(mailbox.client_id, None)

    def arrived(self, session: Any, mailbox: Any, epoch: int) -> Receipt[Opened]:
        box, tail = mailbox or Box(session.client_id), self.tail
        self.boxes[session.client_id] = box
        box.epoch = epoch

        if mailbox is None:
            self.checkpoint(lambda: self.attach(box, session, since=tail))
        else:
            self.attach(box, session)
        return settled(Opened(present=mailbox is not None))

    def settled(self, mailbox: Any, epoch: int) -> None:
        def stored(stands: bool) -> None:
            mailbox.caught_up = True

        mailbox.epoch = epoch
        self.boxes[mailbox.client_id] = mailbox
        self.write(mailbox, stored)

    def release(self, mailbox: Any, epoch: int) -> None:
        mailbox.epoch, mailbox.session = epoch, None
        self.boxes.pop(mailbox.client_id, None)
        waiting = set(mailbox.waiting)

        def stored(stands: bool) -> None:
            if stands:
                self.world.stored[mailbox.client_id] = waiting

        self.let_go(mailbox, {PLACE: self.tail}, stored)

    def let_go(self, box: Box, positions: Positions, then: Callable[[bool], None]) -> None:
        """As `Moves.release`."""

        def stored(stands: bool) -> None:
            then(stands)
            self.arrivals.left(box.client_id)

        self.arrivals.leaving(box.client_id, {PLACE: self.checkpointed})
        self.write(box, stored, released=True, positions=positions_list(positions))

    def pass_on(self, record: StoredSession) -> None:
        self.arrivals.passing(record)
        self.put(record.client_id, encode(record))

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        pass

    def empty(self, client_id: str, epoch: int) -> None:
        """In the model nothing ever ends: what nobody had is made when its device comes again."""

    # --- the arrivals' cluster

    def alive(self, gateway: str) -> bool:
        return gateway == self.name or gateway not in self.world.away

    def owner(self, client_id: str) -> str:
        return self.ownership.owner(client_id.encode())

    async def fence(self, gateway: str) -> None:
        pass

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        await self.current()
        return {each: self.rows[each] for each in client_ids if each in self.rows}

    async def current(self) -> None:
        await Pause()
        self.hear(1000)

    async def join(self, arriving: list[tuple[Any, dict[TopicPartition, int]]]) -> None:
        await Pause()
        self.deliver()
        for box, since in arriving:
            self.boxes[box.client_id] = box
            known = set(box.waiting) | box.done
            box.waiting += [each for each in range(since.get(PLACE, self.tail), self.tail) if each not in known]

    async def secure(self, mailboxes: list[Any]) -> None:
        self.checkpoint()
        await self.flushed()


KINDS = {
    **dict.fromkeys(("connect", "step", "flush all", "hear all"), 6),
    **dict.fromkeys(("write", "deliver", "checkpoint", "hear", "hear records", "round", "flush", "start again"), 3),
    **dict.fromkeys(("survey", "sleep", "wake"), 2),
    "die": 1,
}


def at_random(dice: random.Random, count: int) -> list[tuple[str, int, str]]:
    """What happens, to which gateway, and with what."""
    kinds = dice.choices(list(KINDS), list(KINDS.values()), k=count)
    what = {"connect": ("x", "x", "y"), "flush": ("x", "y", CHECKPOINT_KEY), "start again": ("", "from the copy")}
    return [(kind, dice.randrange(3), dice.choice(what.get(kind, ("",)))) for kind in kinds]


def act(node: Node, kind: str, client_id: str) -> None:
    if kind == "connect":
        node.connect(client_id)
    elif kind == "write":
        node.world.written += 1
    elif kind == "deliver":
        node.deliver()
    elif kind == "checkpoint":
        node.checkpoint()
    elif kind == "hear":
        node.hear_claims(1)
    elif kind == "hear records":
        node.hear_records(1)
    elif kind == "hear all":
        node.hear(1000)
    elif kind == "step":
        node.step()
    elif kind == "round":
        whole_round(node)
    elif kind == "survey":
        node.survey()


def whole_round(node: Node) -> None:
    for _ in range(20):
        node.flush()
        node.step()
        if node.work is None:
            break
    node.flush()


def settle(nodes: list[Node]) -> None:
    """Let everybody who is alive read, look after the dead and take over, until nothing moves."""
    for _ in range(12):
        for node in nodes:
            node.hear(1000)
            if node.work is not None:
                whole_round(node)
            node.arrivals.changed()
            whole_round(node)
            node.deliver()
            node.flush()
        for node in nodes:
            node.hear(1000)
            node.survey()


CLAIMED_MEANWHILE = [
    ("connect", 0, "x"),
    ("hear", 0, ""),
    ("flush all", 0, ""),
    ("connect", 1, "x"),
    ("write", 0, ""),
    ("start again", 0, ""),
]
CHECKPOINT = [("checkpoint", 0, ""), ("flush all", 0, "")]
AGAIN = ("start again", 0, "")


WAITING_FOR_NOBODY = [
    ("connect", 0, "x"),
    ("hear", 0, ""),
    ("flush all", 0, ""),
    ("connect", 1, "x"),
    ("connect", 2, "x"),
    ("start again", 1, "from the copy"),
]


LEFT_BEFORE_A_CHECKPOINT = [
    ("connect", 0, "x"),
    ("hear all", 0, ""),
    ("flush all", 0, ""),
    ("flush all", 0, ""),
    ("connect", 1, "x"),
    ("hear all", 0, ""),  # it lets go, and nothing of that is stored
    ("write", 0, ""),
    ("deliver", 0, ""),
    ("checkpoint", 0, ""),
    ("flush", 0, CHECKPOINT_KEY),
    AGAIN,
]


@pytest.mark.parametrize(
    "moves",
    [
        LEFT_BEFORE_A_CHECKPOINT,
        [*CLAIMED_MEANWHILE, *CHECKPOINT],  # before what an earlier run left was passed on
        [*CLAIMED_MEANWHILE, *CHECKPOINT, AGAIN, *CHECKPOINT],
        WAITING_FOR_NOBODY,
    ],
)
def test_a_session_gets_everything_once_after(moves: list[tuple[str, int, str]]) -> None:
    play(moves)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_session_gets_everything_once_wherever_it_moves_and_whoever_dies(seed: int) -> None:
    play(at_random(random.Random(seed), 60))


def play(moves: list[tuple[str, int, str]]) -> None:
    world = World()
    nodes = [Node(name, world) for name in "abc"]
    for node in nodes:
        node.ownership.started()
    world.judge.started()
    dead: set[str] = set()
    for kind, index, what in moves:
        node = nodes[index]
        if kind == "die" and len(dead) < 2 and node.name not in dead:
            dead.add(node.name)
            world.away.add(node.name)
        elif kind == "start again" and node.name not in dead:  # at once: nobody sees that it was gone
            nodes[index] = Node(node.name, world)
            nodes[index].start_again(node, knows_all=not what)
            world.away.discard(node.name)
        elif kind == "sleep" and node.name not in dead:
            world.away.add(node.name)
        elif kind == "wake" and node.name not in dead and node.name in world.away:
            wake(node)
        elif kind == "flush" and node.name not in dead:  # those that sleep, too: it is the system's by now
            node.flush(what)
        elif kind == "flush all" and node.name not in dead:
            node.flush()
        elif node.name not in world.away:
            act(node, kind, what)
    living = [node for node in nodes if node.name not in dead]
    for node in living:
        if node.name in world.away:
            wake(node)
    settle(living)
    for node in living:
        assert not [each for each in node.arrivals._waiting.values() if each.session is not None], "a device waits"
    for client_id in world.since:
        box = living[0].boxes.get(client_id)
        if box is None or box.session is None:
            living[0].connect(client_id)
    settle(living)
    world.written += 1
    settle(living)
    for client_id, since in world.since.items():
        holding = [node.name for node in living if client_id in node.boxes]
        assert holding == [living[0].name]
        got = world.got.get(client_id, [])
        assert set(got) >= set(range(since, world.written)) and len(got) == len(set(got))
    assert not any(len(node.arrivals) for node in living)


def wake(node: Node) -> None:
    """The lease: claims first."""
    node.world.away.discard(node.name)
    node.stale = True
    node.hear(1000)
    node.stale = False
