"""Sessions that move between gateways which die, stand still and lag behind: nothing a session should get is lost.

The claims and arrivals are the product's own; the log, the mailboxes and the delivery are as small as can be: every
session gets every number written after it was made.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.client import TopicPartition
from gateway.contract import Presence, StoredSession, decode, encode
from gateway.moving.arrivals import CHECKPOINT_KEY, RELAY_PATIENCE, Arrivals, positions_list, read_positions
from gateway.peers.claims import Claims, Denied, Taken, Won
from gateway.ports import Opened, Receipt, settled
from tests.unit.gateway.parts import FakeSession

PLACE = TopicPartition("t", 0)
NOBODY = Presence(client_id="", online=False, since=0.0, gateway="")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what never really waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


@dataclass(eq=False)
class Box:
    """A session's mailbox: numbers its device hasn't got."""

    client_id: str
    epoch: int = 0
    waiting: list[int] = field(default_factory=list)
    session: FakeSession | None = None


@dataclass
class World:
    claims: list[Presence] = field(default_factory=lambda: [NOBODY])  # no claim is at offset 0
    records: list[tuple[str, bytes]] = field(default_factory=list)
    newest: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, set[int]] = field(default_factory=dict)
    written: int = 0
    since: dict[str, int] = field(default_factory=dict)
    got: dict[str, list[int]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    clock: float = 0.0

    def put(self, key: str, value: bytes) -> None:
        self.records.append((key, value))
        self.newest[key] = value


class Node:
    """One gateway: the arrivals' home and cluster."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.claims = Claims(name)
        self.arrivals = Arrivals(name, self, self, monotonic=lambda: world.clock)
        self.boxes: dict[str, Box] = {}
        self.read = self.records_read = 0
        self.tail = world.written
        self.tokens = 0
        self.stale = False
        self.checkpointed = self.tail

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
        if self.arrivals.relaying(client_id):
            return
        box = self.boxes.get(client_id)
        session = FakeSession(client_id, expiry=100)
        token = self.claim(client_id, online=True)
        if box is not None and client_id not in self.arrivals:
            box.session = session
            self.drain(box)
        else:
            self.arrivals.expect(session, token)

    def drain(self, box: Box) -> None:
        """The connected device takes what waits."""
        if box.session is not None:
            self.world.got.setdefault(box.client_id, []).extend(box.waiting)
            box.waiting.clear()

    def deliver(self) -> None:
        while self.tail < self.world.written:
            for box in self.boxes.values():
                box.waiting.append(self.tail)
                self.drain(box)
            self.tail += 1

    def checkpoint(self) -> None:
        for box in self.boxes.values():
            self.world.stored[box.client_id] = set(box.waiting)
        self.checkpointed = self.tail
        behind = {name: positions_list(places) for name, places in self.arrivals.behind().items()}
        value = {"v": 1, "at": 0.0, "positions": [[*PLACE, self.tail]], "behind": behind}
        self.world.put(CHECKPOINT_KEY + self.name, json.dumps(value).encode())

    def hear(self, limit: int) -> None:
        for client_id, _ in self.world.records[self.records_read :]:
            self.arrivals.landed(client_id)
            self.arrivals.stored(client_id)
        self.records_read = len(self.world.records)
        for offset in range(self.read, min(self.read + limit, len(self.world.claims))):
            self.read = offset + 1
            record = self.world.claims[offset]
            heard = self.claims.hear(record.client_id, record, offset)
            if isinstance(heard, Won):
                if record.client_id in self.boxes:
                    self.boxes[record.client_id].epoch = heard.epoch
                    if heard.previous is not None and heard.previous.gateway != self.name:
                        self.write(self.boxes[record.client_id])
                self.arrivals.won(heard)
            elif isinstance(heard, Denied):
                self.arrivals.denied(record.client_id, heard.token)
            elif isinstance(heard, Taken) and not self.claims.unheard(record.client_id):
                box = self.boxes.pop(record.client_id, None)
                if record.client_id in self.arrivals or box is None:
                    self.arrivals.replaced(record.client_id, heard.mine)
                elif heard.adopted or self.stale:
                    box.epoch = heard.mine.epoch
                    self.write(box, released=True, positions=positions_list({PLACE: self.checkpointed}))
                else:
                    self.release(box, heard.mine.epoch)

    def survey(self) -> None:
        for client_id, holder in list(self.claims.holders.items()):
            unknown = client_id not in self.arrivals and not self.claims.unheard(client_id)
            if not self.alive(holder.gateway) and unknown:
                self.arrivals.adopt(client_id, self.claim(client_id, online=False, adopts=holder.epoch))

    def round(self) -> None:
        run(self.arrivals._round())

    def start_again(self) -> None:
        """As `Restoring` does, in a new process: `self` is as new."""
        self.hear_of_it()
        value = self.world.newest.get(CHECKPOINT_KEY + self.name)
        found = json.loads(value) if value is not None else {}
        at = read_positions(found.get("positions", ()))
        behind = {name: read_positions(places) for name, places in found.get("behind", {}).items()}
        for client_id, value in list(self.world.newest.items()):
            if client_id.startswith(CHECKPOINT_KEY):
                continue
            record, holder = decode(StoredSession, value), self.claims.holders.get(client_id)
            left = record.gateway != self.name or record.released
            if holder is not None and holder.gateway == self.name and left:
                self.arrivals.resume(holder, record)
            elif holder is not None and holder.gateway != self.name and not left:
                mine = replace(holder, gateway=self.name, epoch=holder.epoch - 1)
                self.arrivals.replaced(client_id, mine, at | behind.get(client_id, {}))
            elif not left:
                assert holder is not None
                waiting = sorted(self.world.stored.get(client_id, ()))
                self.boxes[client_id] = Box(client_id, epoch=holder.epoch, waiting=waiting)
        for client_id, holder in self.claims.superseded.items():
            value = self.world.newest.get(client_id)
            taken = value is not None and decode(StoredSession, value).claim > holder.epoch
            if self.claims.elsewhere(client_id) is not None and client_id not in self.arrivals and not taken:
                self.arrivals.replaced(client_id, holder)
        self.claims.started()
        if self.boxes:
            self.tail = at.get(PLACE, self.tail)
            for box in self.boxes.values():
                box.waiting = [each for each in box.waiting if each < self.tail]
            self.deliver()

    def hear_of_it(self) -> None:
        """All claims, before anything is done about any."""
        for offset, record in enumerate(self.world.claims):
            self.claims.hear(record.client_id, record, offset)
        self.read, self.records_read = len(self.world.claims), len(self.world.records)

    # --- the arrivals' home

    async def rebuild(self, record: StoredSession, since: dict[TopicPartition, int]) -> Any:
        return Box(record.client_id, waiting=sorted(self.world.stored.get(record.client_id, ())))

    def abandoned(self, mailbox: Any) -> None:
        self.boxes.pop(mailbox.client_id, None)

    def arrived(self, session: Any, mailbox: Any, epoch: int) -> Receipt[Opened]:
        box = mailbox
        if box is None:
            box = Box(session.client_id)
            self.world.since.setdefault(session.client_id, self.tail)
            self.world.stored.setdefault(session.client_id, set())
            self.checkpoint()
        self.boxes[session.client_id] = box
        box.epoch, box.session = epoch, session
        self.write(box)
        self.drain(box)
        return settled(Opened(present=mailbox is not None))

    def settled(self, mailbox: Any, epoch: int) -> None:
        mailbox.epoch = epoch
        self.boxes[mailbox.client_id] = mailbox
        self.write(mailbox)

    def write(self, box: Box, **more: Any) -> None:
        record = StoredSession(
            client_id=box.client_id, owner="", gateway=self.name, expiry=100, claim=box.epoch, **more
        )
        self.world.put(box.client_id, encode(record))

    def release(self, mailbox: Any, epoch: int) -> None:
        mailbox.epoch = epoch
        self.boxes.pop(mailbox.client_id, None)
        self.world.stored[mailbox.client_id] = set(mailbox.waiting)
        self.write(mailbox, released=True, positions=positions_list({PLACE: self.tail}))

    def relay(self, client_id: str, record: StoredSession | None, epoch: int) -> None:
        if record is None:
            record = StoredSession(client_id=client_id, owner="", gateway=self.name, expiry=0)
        relayed = replace(record, gateway=self.name, claim=epoch, released=True)
        self.world.put(client_id, encode(relayed))

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        pass

    def empty(self, client_id: str, epoch: int) -> None:
        pass

    # --- the arrivals' cluster

    def alive(self, gateway: str) -> bool:
        return gateway == self.name or gateway not in self.world.away

    async def fence(self, gateway: str) -> None:
        pass

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        return {each: self.world.newest[each] for each in client_ids if each in self.world.newest}

    async def current(self) -> None:
        pass

    async def join(self, arriving: list[tuple[Any, dict[TopicPartition, int]]]) -> None:
        self.deliver()
        for box, since in arriving:
            known = set(box.waiting)
            box.waiting += [each for each in range(since.get(PLACE, self.tail), self.tail) if each not in known]

    async def secure(self, mailboxes: list[Any]) -> None:
        for box in mailboxes:
            self.world.stored[box.client_id] = set(box.waiting)
        self.checkpoint()


WHO = st.integers(0, 2)
MOVES = st.one_of(
    st.tuples(st.just("connect"), WHO, st.sampled_from(("x", "y"))),
    st.tuples(st.just("write"), WHO, st.just("")),
    st.tuples(st.just("deliver"), WHO, st.just("")),
    st.tuples(st.just("checkpoint"), WHO, st.just("")),
    st.tuples(st.just("hear"), WHO, st.just("")),
    st.tuples(st.just("hear all"), WHO, st.just("")),
    st.tuples(st.just("round"), WHO, st.just("")),
    st.tuples(st.just("survey"), WHO, st.just("")),
    st.tuples(st.just("die"), WHO, st.just("")),
    st.tuples(st.just("start again"), WHO, st.just("")),
    st.tuples(st.just("sleep"), WHO, st.just("")),
    st.tuples(st.just("wake"), WHO, st.just("")),
)


def act(node: Node, kind: str, client_id: str) -> None:
    world = node.world
    if kind == "connect":
        node.connect(client_id)
    elif kind == "write":
        world.written += 1
    elif kind == "deliver":
        node.deliver()
    elif kind == "checkpoint":
        node.checkpoint()
    elif kind == "hear":
        node.hear(1)
    elif kind == "hear all":
        node.hear(1000)
    elif kind == "round":
        node.round()
    elif kind == "survey":
        node.survey()


def settle(nodes: list[Node]) -> None:
    """Let everybody who is alive read, look after the dead and take over, until nothing moves."""
    for _ in range(12):
        for node in nodes:
            node.hear(1000)
            node.arrivals.changed()
            node.round()
            node.deliver()
        for node in nodes:
            node.hear(1000)
            node.survey()


CLAIMED_MEANWHILE = [
    ("connect", 0, "x"),
    ("hear", 0, ""),
    ("connect", 1, "x"),
    ("write", 0, ""),
    ("start again", 0, ""),
]
CHECKPOINT = ("checkpoint", 0, "")


@settings(max_examples=400, deadline=None)
@example([*CLAIMED_MEANWHILE, CHECKPOINT])  # before what an earlier run left was passed on
@example([*CLAIMED_MEANWHILE, CHECKPOINT, ("start again", 0, ""), CHECKPOINT])
@given(st.lists(MOVES, max_size=50))
def test_a_session_gets_everything_wherever_it_moves_and_whoever_dies(moves: list[tuple[str, int, str]]) -> None:
    world = World()
    nodes = [Node(name, world) for name in "abc"]
    dead: set[str] = set()
    disturbed = False
    for kind, index, client_id in moves:
        node = nodes[index]
        if kind == "die" and len(dead) < 2 and node.name not in dead:
            dead.add(node.name)
            world.away.add(node.name)
            disturbed = True
        elif kind == "start again" and node.name not in world.away:  # at once: nobody sees that it was gone
            nodes[index] = Node(node.name, world)
            nodes[index].start_again()
            disturbed = True
        elif kind == "sleep" and node.name not in dead:
            world.away.add(node.name)
            disturbed = True
        elif kind == "wake" and node.name not in dead and node.name in world.away:
            world.away.discard(node.name)
            node.stale = True  # the lease: claims first
            node.hear(1000)
            node.stale = False
        elif node.name not in world.away:
            act(node, kind, client_id)
    slept = world.away - dead
    world.away = set(dead)
    living = [node for node in nodes if node.name not in dead]
    for node in living:
        node.stale = node.name in slept
        node.hear(1000)
        node.stale = False
    settle(living)
    for _ in range(4):  # a device that is told to wait for its session comes again
        for client_id in world.since:
            box = living[0].boxes.get(client_id)
            if box is None or box.session is None:
                living[0].connect(client_id)
        settle(living)
        world.clock += RELAY_PATIENCE + 1
        for node in living:
            node.arrivals._lose_patience()
    world.written += 1
    settle(living)
    for client_id, since in world.since.items():
        holding = [node.name for node in living if client_id in node.boxes]
        assert holding == [living[0].name]
        got = world.got.get(client_id, [])
        assert set(got) >= set(range(since, world.written))
        if not disturbed:
            assert len(got) == len(set(got))
    assert not any(len(node.arrivals) for node in living)
