"""Sessions on their way to this gateway: claimed here, kept by another gateway until now, or by one that died.

A claim was read back and counts (`won`). What the holder before it kept is taken over once that holder has let go: its
record in `__sluice_sessions` says `released` under the epoch it held, and where its delivery was. Of a holder that died
the record and its last checkpoint are taken as they are, after its transactions were fenced: from then on nothing of it
can become visible that wasn't read. What the session missed in between is read again (`missed`).

A claimant that is itself replaced before it got anything relays: it lets go under its own epoch of what was left to it.
So each claimant waits for the one before it, and for nobody else.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from broker.client import TopicPartition
from broker.client.errors import ClientError
from gateway import contract
from gateway.contract import MalformedRecord, StoredSession
from gateway.moving.steps import Step, step
from gateway.peers.claims import Holder, Won
from gateway.ports import NotAcknowledged, Opened, Receipt, Refused, Session
from gateway.receipts import follow
from gateway.sessions.mailbox import Mailbox
from gateway.why import Why

log = logging.getLogger("gateway.arrivals")

PATIENCE = 20.0  # seconds a device waits for its session
RELAY_PATIENCE = 60.0
ROUND = 0.25
CHECKPOINT_KEY = "$checkpoint/"
UNAVAILABLE = 0x88
NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E

Positions = dict[TopicPartition, int]


@dataclass(slots=True, kw_only=True, eq=False)
class Arrival:
    """One session on its way. `session` waits for it with `receipt`; none of them: adopted from a dead gateway."""

    client_id: str
    token: str
    began: float
    session: Session | None = None
    receipt: Receipt[Opened] | None = None
    epoch: int = 0
    previous: Holder | None = None
    heard: bool = False  # `previous` is known
    nudged: bool = True
    adopting: bool = False  # its holder counts as dead, whatever it does meanwhile
    relay: bool = False  # replaced meanwhile: what comes is passed on
    since: Positions | None = None  # where an earlier run of this gateway had delivered; its checkpoint moves on


Arriving = tuple[Arrival, StoredSession | None, Mailbox | None, Positions]


class Cluster(Protocol):
    """What arrivals need of the process."""

    def alive(self, gateway: str) -> bool: ...

    async def fence(self, gateway: str) -> None:
        """No transaction of that gateway is open, and none that it began can be committed any more."""

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        """The newest records of these sessions (or checkpoints), everything committed by now considered."""

    async def current(self) -> None:
        """What `rebuild` reads has everything that is committed by now."""

    async def join(self, arriving: list[tuple[Mailbox, Positions]]) -> None:
        """They are delivered to as of now, and have got what they missed."""

    async def secure(self, mailboxes: list[Mailbox]) -> None:
        """What these hold is durable, and so is how far this gateway's delivery had come."""


class Home(Protocol):
    """Where sessions live in this gateway."""

    def rebuild(self, record: StoredSession, since: Positions) -> Awaitable[Mailbox | None]:
        """A mailbox from its records, not in the fan-out, whose delivery goes on at `since`; None: it has expired."""

    def abandoned(self, mailbox: Mailbox) -> None:
        """It was rebuilt and could not be brought up to date: forget it, it is rebuilt anew."""

    def arrived(self, session: Session, mailbox: Mailbox | None, epoch: int) -> Receipt[Opened]: ...

    def settled(self, mailbox: Mailbox, epoch: int) -> None: ...

    def release(self, mailbox: Mailbox, epoch: int) -> None: ...

    def relay(self, client_id: str, record: StoredSession | None, epoch: int) -> None: ...

    def empty(self, client_id: str, epoch: int) -> None:
        """Nothing was left."""

    def lapsed(self, record: StoredSession, epoch: int) -> None:
        """The holder of a session that ended with its connection died."""


class Arrivals:
    """See the module."""

    def __init__(self, gateway: str, home: Home, cluster: Cluster, *, monotonic: Callable[[], float]) -> None:
        self._gateway = gateway
        self._home = home
        self._cluster = cluster
        self._monotonic = monotonic
        self._waiting: dict[str, Arrival] = {}
        self._passed: dict[str, Positions] = {}  # passed on, by a record that was not read yet
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    # --- what happens

    def expect(self, session: Session, token: str) -> Receipt[Opened]:
        """A device waits for its session; its claim has just been written."""
        receipt: Receipt[Opened] = Receipt()
        known = self._waiting.get(session.client_id)
        if known is None:
            known = Arrival(client_id=session.client_id, token=token, began=self._monotonic())
            self._waiting[session.client_id] = known
        elif known.receipt is not None:
            known.receipt.fail(Refused(TAKEN_OVER, "session taken over", why=Why.TAKEN_OVER))
        known.token, known.session, known.receipt = token, session, receipt
        known.epoch, known.began, known.relay, known.adopting = 0, self._monotonic(), False, False
        return receipt

    def adopt(self, client_id: str, token: str, *, adopting: bool = True) -> None:
        """The session of a dead gateway (not `adopting`: of a living one) was claimed."""
        self._waiting[client_id] = Arrival(client_id=client_id, token=token, began=self._monotonic(), adopting=adopting)

    def resume(self, holder: Holder, record: StoredSession) -> None:
        """An earlier run of this gateway had claimed the session, and died before it took it over from the gateway in
        its record, which lets go under the epoch that is there."""
        client_id = record.client_id
        self._waiting[client_id] = Arrival(
            client_id=client_id,
            token="",
            began=self._monotonic(),
            epoch=holder.epoch,
            previous=replace(holder, gateway=record.gateway, epoch=record.claim),
            heard=True,
        )

    def relaying(self, client_id: str) -> bool:
        """Whether it is to be passed on to a newer claimant first."""
        known = self._waiting.get(client_id)
        return known is not None and known.relay

    def inherits(self, client_id: str) -> bool:
        """Whether it is on its way from another holder."""
        known = self._waiting.get(client_id)
        return known is not None and known.previous is not None

    def won(self, event: Won) -> bool:
        """A claim counts; whether an arrival had waited for that."""
        known = self._waiting.get(event.client_id)
        if known is None:
            return False
        if not known.heard:
            # a later claim of ours changes nothing: whoever claimed in between waits for us, and got nothing
            known.previous, known.heard = event.previous, True
        if known.token == event.token:
            known.epoch = event.epoch
            known.nudged = True
            self._wake.set()
            if known.previous is None and not known.relay:
                self._settle(known, None, None)
        return True

    def denied(self, client_id: str, token: str) -> bool:
        known = self._waiting.get(client_id)
        if known is None or known.token != token:
            return False
        self._drop(known, Refused(NOT_AUTHORIZED, "the client id is another principal's", why=Why.SESSION_OWNER))
        return True

    def replaced(self, client_id: str, mine: Holder, since: Positions | None = None) -> None:
        """A newer claim than `mine` was read: what is on its way, or was never here, is passed on. `since`: where an
        earlier run of this gateway had delivered."""
        known = self._waiting.get(client_id)
        if known is None:
            known = Arrival(client_id=client_id, token="", began=self._monotonic(), previous=mine, heard=True)
            known.since = since
            self._waiting[client_id] = known
        if known.receipt is not None:
            known.receipt.fail(Refused(TAKEN_OVER, "session taken over", why=Why.TAKEN_OVER))
            known.receipt = known.session = None
        known.epoch = mine.epoch
        known.relay = known.nudged = True
        known.began = self._monotonic()
        self._wake.set()

    def behind(self) -> dict[str, Positions]:
        """Sessions whose delivery must go on before this gateway's positions, should it die before they are passed
        on."""
        return {name: known.since for name, known in self._waiting.items() if known.since} | self._passed

    def stored(self, client_id: str) -> None:
        """A record of this session was read."""
        known = self._waiting.get(client_id)
        if known is not None:
            known.nudged = True
            self._wake.set()

    def landed(self, client_id: str) -> None:
        """A record of this session was read: if it was passed on, that is in the log."""
        self._passed.pop(client_id, None)

    def changed(self) -> None:
        """A gateway came or went."""
        for known in self._waiting.values():
            known.nudged = True
        self._wake.set()

    # --- the work

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ROUND):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self._waiting:
                continue
            self._lose_patience()
            try:
                await self._round()
            except (ClientError, NotAcknowledged) as error:
                log.warning("sessions can't be taken over now: %s", error)
                await asyncio.sleep(ROUND)
                self.changed()
            except Exception:
                log.exception("taking sessions over failed; it is tried again")
                await asyncio.sleep(ROUND)
                self.changed()

    def _lose_patience(self) -> None:
        now = self._monotonic()
        for known in list(self._waiting.values()):
            if known.session is not None and now - known.began > PATIENCE:
                self._drop(
                    known, Refused(UNAVAILABLE, "the session is still kept by another gateway", why=Why.UNAVAILABLE)
                )
            elif known.relay and now - known.began > RELAY_PATIENCE:
                self._drop(known, None)

    def _drop(self, known: Arrival, failure: Exception | None) -> None:
        self._waiting.pop(known.client_id, None)
        if known.receipt is not None and failure is not None:
            known.receipt.fail(failure)

    async def _round(self) -> None:
        ready = [
            each
            for each in self._waiting.values()
            if each.epoch and (each.nudged or (each.previous and not self._cluster.alive(each.previous.gateway)))
        ]
        if not ready:
            return
        for each in ready:
            each.nudged = False
        gone = {each.previous.gateway for each in ready if each.previous is not None} - {self._gateway}
        for gateway in gone:
            if not self._cluster.alive(gateway):
                await self._cluster.fence(gateway)
        rows = await self._cluster.stored([each.client_id for each in ready])
        places: dict[str, tuple[Positions, dict[str, Positions]]] = {}
        left: list[str] = []
        arriving: list[Arriving] = []
        for each in ready:
            record = _decoded(each.client_id, rows.get(each.client_id))
            if each.relay and record is not None and record.claim > each.epoch:
                self._drop(each, None)  # the newer claimant had it all the time
                continue
            dead = each.previous.gateway if each.adopting and each.previous is not None else ""
            found = step(
                record,
                each.previous,
                self._gateway,
                lambda name, dead=dead: name != dead and self._cluster.alive(name),  # type: ignore[misc]  # per turn
            )
            if found is Step.WAIT:
                continue
            if found is Step.NOTHING or record is None:
                arriving.append((each, None, None, {}))
                continue
            if found is Step.RELEASED:
                since = read_positions(record.positions)
            elif each.since is not None and record.gateway == self._gateway:
                since = each.since
            else:
                if record.gateway not in places:
                    places[record.gateway] = await self._checkpoint(record.gateway)
                left.append(each.client_id)
                since = places[record.gateway][0] | places[record.gateway][1].get(each.client_id, {})
            if each.relay:
                record = replace(record, positions=positions_list(since))
            arriving.append((each, record, None, since))
        arriving = await self._unchanged(arriving, left, rows)
        if any(record is not None and record.expiry and not each.relay for each, record, _, _ in arriving):
            await self._bring(arriving)
        for each, record, mailbox, _ in arriving:
            self._settle(each, record, mailbox)

    async def _unchanged(self, arriving: list[Arriving], left: list[str], rows: Mapping[str, bytes]) -> list[Arriving]:
        """Less those `left` behind by a gateway whose record is another by now: it was started again and passed them
        on, and its checkpoint, which was read after the record, may say no more where they were."""
        newest = await self._cluster.stored(left) if left else {}
        changed = {client_id for client_id in left if newest.get(client_id) != rows.get(client_id)}
        for each, *_ in arriving:
            each.nudged |= each.client_id in changed
        return [arrival for arrival in arriving if arrival[0].client_id not in changed]

    async def _bring(self, arriving: list[Arriving]) -> None:
        """Rebuild the mailboxes of those that have one, and deliver what they missed."""
        # all that was in the log when their records were read, whatever partition it is in
        await self._cluster.current()
        joining: list[tuple[Mailbox, Positions]] = []
        try:
            for number, (each, record, _, since) in enumerate(arriving):
                if record is not None and record.expiry and not each.relay:
                    mailbox = await self._home.rebuild(record, since)
                    arriving[number] = (each, record, mailbox, since)
                    if mailbox is not None:
                        joining.append((mailbox, since))
            if joining:
                await self._cluster.join(joining)
                # before their records say that they are here: what they missed is nowhere else
                await self._cluster.secure([mailbox for mailbox, _ in joining])
        except BaseException:
            for mailbox, _ in joining:  # they are rebuilt when it is tried again
                self._home.abandoned(mailbox)
            raise

    def _settle(self, known: Arrival, record: StoredSession | None, mailbox: Mailbox | None) -> None:
        if known.relay:
            self._waiting.pop(known.client_id, None)
            if known.since:
                self._passed[known.client_id] = known.since
            if mailbox is not None:
                self._home.release(mailbox, known.epoch)
            else:
                self._home.relay(known.client_id, record, known.epoch)
        elif known.session is not None:
            self._finish(known, mailbox)
        else:
            self._waiting.pop(known.client_id, None)
            if mailbox is not None:
                self._home.settled(mailbox, known.epoch)
            elif record is not None:
                self._home.lapsed(record, known.epoch)
            else:
                self._home.empty(known.client_id, known.epoch)

    def _finish(self, known: Arrival, mailbox: Mailbox | None) -> None:
        self._waiting.pop(known.client_id, None)
        session, receipt = known.session, known.receipt
        assert session is not None and receipt is not None
        follow(self._home.arrived(session, mailbox, known.epoch), receipt)

    async def _checkpoint(self, gateway: str) -> tuple[Positions, dict[str, Positions]]:
        """(positions, those of share groups that are behind them)."""
        key = CHECKPOINT_KEY + gateway
        value = (await self._cluster.stored([key])).get(key)
        if value is None:
            return {}, {}
        found = json.loads(value)
        behind = {name: read_positions(places) for name, places in found.get("behind", {}).items()}
        return read_positions(found["positions"]), behind


def read_positions(places: Iterable[Any]) -> Positions:
    """The reverse of `positions_list`."""
    return {TopicPartition(topic, index): at for topic, index, at in places}


def _decoded(client_id: str, value: bytes | None) -> StoredSession | None:
    if value is None:
        return None
    try:
        return contract.decode(StoredSession, value)
    except MalformedRecord as error:
        log.error("the session of %r is unreadable and left out: %s", client_id, error)
        return None


def relayed(record: StoredSession, gateway: str, epoch: int) -> StoredSession:
    """The record with which a claimant passes on what it never took."""
    return replace(record, gateway=gateway, claim=epoch, released=True)


def positions_list(positions: Mapping[TopicPartition, int]) -> tuple[list[Any], ...]:
    return tuple([key.topic, key.partition, at] for key, at in positions.items())
