"""Sessions on their way to this gateway: claimed here, kept by another gateway until now, or by one that died.

A claim was read back and counts (`won`). The session is taken up once its record in `__sluice_sessions` says that its
owner has let go, and where its delivery was; of an owner that died the record and its last checkpoint are taken as they
are, after its transactions were fenced: from then on nothing of it can become visible that wasn't read. What the
session missed in between is read again (`missed`).

Several gateways may want the same session at one time: those that claimed it one after another, or adopt it while a
device claims it. So whoever takes it up writes that first, and goes on when it has read that this record stands (see
`ownership`). Nobody waits for a claimant that has nothing: a claimant that is replaced before it took the session
drops out, and one that has taken it lets go again under its own claim.
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
from gateway.sessions.ownership import taking
from gateway.why import Why

log = logging.getLogger("gateway.arrivals")

PATIENCE = 20.0  # seconds a device waits for its session
ROUND = 0.25
CHECKPOINT_KEY = "$checkpoint/"
UNAVAILABLE = 0x88
NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E

Positions = dict[TopicPartition, int]


@dataclass(slots=True, kw_only=True, eq=False)
class Arrival:
    """One session on its way. `session` waits for it with `receipt`; none of them: no device does."""

    client_id: str
    token: str
    began: float
    session: Session | None = None
    receipt: Receipt[Opened] | None = None
    epoch: int = 0
    previous: Holder | None = None
    nudged: bool = True
    waits_for: str = ""  # the gateway whose it was at the last look
    replaced: bool = False  # it is another's by now: if it was taken here, it is let go of


@dataclass(frozen=True, slots=True)
class Arrived:
    """A session that may be taken up. `record`: with which it was taken; None: nobody had it."""

    arrival: Arrival
    record: StoredSession | None = None
    mailbox: Mailbox | None = None

    @property
    def epoch(self) -> int:
        """Of the claim it stands on; of the one before if the newest was not heard yet."""
        return self.arrival.epoch or (self.record.taken if self.record is not None else 0)


class Cluster(Protocol):
    """What arrivals need of the process."""

    def alive(self, gateway: str) -> bool: ...

    def owner(self, client_id: str) -> str:
        """The gateway whose this session is or was last, as far as was read; empty: there is none."""

    async def fence(self, gateway: str) -> None:
        """No transaction of that gateway is open, and none that it began can be committed any more."""

    async def stored(self, client_ids: list[str]) -> dict[str, bytes]:
        """The newest records of these sessions (or checkpoints), everything committed by now considered."""

    async def current(self) -> None:
        """What `rebuild` reads has everything that is committed by now."""

    async def join(self, arriving: list[tuple[Mailbox, Positions]]) -> None:
        """They are delivered to as of now, and have got what they missed."""

    async def secure(self, mailboxes: list[Mailbox]) -> None:
        """What these hold is durable, and so is how far this gateway's delivery had come, once the lease is held."""


class Home(Protocol):
    """Where sessions live in this gateway."""

    async def take(self, records: list[StoredSession]) -> None:
        """Write these; comes back when each has its outcome."""

    def rebuild(self, record: StoredSession, since: Positions) -> Awaitable[Mailbox | None]:
        """A mailbox from its records, not in the fan-out, whose delivery goes on at `since`; None: it has expired."""

    def abandoned(self, mailbox: Mailbox) -> None:
        """It was rebuilt and could not be brought up to date: forget it, it is rebuilt anew."""

    def arrived(self, session: Session, mailbox: Mailbox | None, epoch: int) -> Receipt[Opened]: ...

    def settled(self, mailbox: Mailbox, epoch: int) -> None: ...

    def release(self, mailbox: Mailbox, epoch: int) -> None: ...

    def pass_on(self, record: StoredSession) -> None:
        """Write this record, which lets go of what never was in the fan-out here."""

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
        self._leaving: dict[str, Positions] = {}  # let go of, by a record that is not stored yet
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
        known.epoch, known.began, known.replaced = 0, self._monotonic(), False
        return receipt

    def adopt(self, client_id: str, token: str) -> None:
        """A session was claimed that no device waits for."""
        self._waiting[client_id] = Arrival(client_id=client_id, token=token, began=self._monotonic())

    def resume(self, client_id: str, holder: Holder) -> None:
        """This gateway holds a session by its claim, and doesn't have it: an earlier run claimed it and died before it
        came, or it was taken while this gateway stood still."""
        self._add(client_id, holder)

    def _add(self, client_id: str, mine: Holder) -> Arrival:
        known = self._waiting[client_id] = Arrival(
            client_id=client_id, token="", began=self._monotonic(), epoch=mine.epoch, previous=mine
        )
        self._wake.set()
        return known

    def inherits(self, client_id: str) -> bool:
        """Whether it is on its way from another holder."""
        known = self._waiting.get(client_id)
        return known is not None and known.previous is not None

    def won(self, event: Won) -> bool:
        """A claim counts; whether an arrival had waited for that."""
        known = self._waiting.get(event.client_id)
        if known is None:
            return False
        if known.token == event.token:
            known.epoch, known.previous = event.epoch, event.previous
            known.nudged = True
            self._wake.set()
            if known.previous is None and not known.replaced and not self._cluster.owner(known.client_id):
                self._settle(Arrived(known))
        return True

    def denied(self, client_id: str, token: str) -> bool:
        known = self._waiting.get(client_id)
        if known is None or known.token != token:
            return False
        self._drop(known, Refused(NOT_AUTHORIZED, "the client id is another principal's", why=Why.SESSION_OWNER))
        return True

    def replaced(self, client_id: str, mine: Holder) -> None:
        """A newer claim than `mine` was read, of another gateway. What isn't on its way may have been taken here by an
        earlier run."""
        known = self._waiting.get(client_id) or self._add(client_id, mine)
        if known.receipt is not None:
            known.receipt.fail(Refused(TAKEN_OVER, "session taken over", why=Why.TAKEN_OVER))
            known.receipt = known.session = None
        known.epoch = known.epoch or mine.epoch
        known.replaced = known.nudged = True
        self._wake.set()

    def passing(self, record: StoredSession) -> None:
        """This record, which lets go of a session, is being written: until it is read, delivery of it goes on where
        the record says, should this gateway die."""
        self._passed[record.client_id] = read_positions(record.positions)

    def leaving(self, client_id: str, positions: Positions) -> None:
        """It is out of the fan-out, and what it has is stored up to there: until `left`, delivery of it goes on there,
        should this gateway die."""
        self._leaving[client_id] = positions

    def left(self, client_id: str) -> None:
        """The record that says so is stored."""
        self._leaving.pop(client_id, None)

    def behind(self) -> dict[str, Positions]:
        """Sessions whose delivery must go on before this gateway's positions, should it die before they are passed
        on."""
        return self._leaving | self._passed

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
        """The device is told to come again. The session comes here meanwhile, as its claim says."""
        now = self._monotonic()
        for known in self._waiting.values():
            if known.receipt is not None and now - known.began > PATIENCE:
                known.receipt.fail(
                    Refused(UNAVAILABLE, "the session is still kept by another gateway", why=Why.UNAVAILABLE)
                )
                known.session = known.receipt = None

    def _drop(self, known: Arrival, failure: Exception | None) -> None:
        self._waiting.pop(known.client_id, None)
        if known.receipt is not None and failure is not None:
            known.receipt.fail(failure)
        known.session = known.receipt = None
        known.replaced = True  # if it is being taken, it is let go of

    async def _round(self) -> None:
        ready = [
            each
            for each in self._waiting.values()
            if each.epoch and (each.nudged or (each.waits_for and not self._cluster.alive(each.waits_for)))
        ]
        if not ready:
            return
        for each in ready:
            each.nudged = False
        rows = await self._rows([each.client_id for each in ready])
        here: list[Arrived] = []
        takes: list[tuple[Arrival, StoredSession]] = []
        places: dict[str, tuple[Positions, dict[str, Positions]]] = {}
        for each in ready:
            # what is unreadable is nobody's
            value = rows.get(each.client_id) if self._cluster.owner(each.client_id) else None
            # where nobody held it, a record is of a session that has ended
            record = _decoded(each.client_id, value) if each.previous is not None else None
            found = step(record, self._gateway, self._cluster.alive)
            each.waits_for = record.keeper if record is not None and found is Step.WAIT else ""
            if found is Step.GO_ON:
                here.append(Arrived(each, record))
            elif each.replaced:
                self._drop(each, None)
            elif found is not Step.WAIT and each.epoch:
                if found is Step.LEFT and record is not None:
                    if record.gateway not in places:
                        places[record.gateway] = await self._checkpoint(record.gateway)
                    since = places[record.gateway][0] | places[record.gateway][1].get(each.client_id, {})
                    record = replace(record, positions=positions_list(since))
                takes.append((each, taking(record, value, each.client_id, self._gateway, each.epoch)))
        if takes:
            here += await self._take(takes)
        await self._take_up(here)

    async def _rows(self, client_ids: list[str]) -> Mapping[str, bytes]:
        """The records that stand, when nothing of dead owners can follow."""
        rows = await self._cluster.stored(client_ids)
        records = [_decoded(each, rows.get(each)) for each in client_ids]
        owners = {record.keeper for record in records if record is not None and not record.free} - {self._gateway}
        dead = [each for each in owners if not self._cluster.alive(each)]
        for gateway in dead:
            await self._cluster.fence(gateway)
        return await self._cluster.stored(client_ids) if dead else rows

    async def _take(self, takes: list[tuple[Arrival, StoredSession]]) -> list[Arrived]:
        """Those that are here now; the others are looked at again."""
        await self._home.take([record for _, record in takes])
        rows = await self._cluster.stored([each.client_id for each, _ in takes])
        here: list[Arrived] = []
        for each, _ in takes:
            record = _decoded(each.client_id, rows.get(each.client_id))
            if record is not None and record.taker == self._gateway:
                here.append(Arrived(each, record))
            else:
                each.nudged = True
                self._wake.set()
        return here

    async def _take_up(self, here: list[Arrived]) -> None:
        """These are this gateway's."""
        coming = [
            each.record for each in here if each.record is not None and each.record.expiry and not each.arrival.replaced
        ]
        try:
            mailboxes = await self._bring(coming) if coming else {}
        except BaseException:
            for each in here:
                each.arrival.nudged = True
            raise
        for each in here:
            mailbox = mailboxes.get(each.arrival.client_id)
            if self._cluster.owner(each.arrival.client_id) == self._gateway:
                self._settle(replace(each, mailbox=mailbox))
            else:  # while this gateway stood still
                each.arrival.nudged = True
                if mailbox is not None:
                    self._home.abandoned(mailbox)

    async def _bring(self, coming: list[StoredSession]) -> dict[str, Mailbox]:
        """Rebuild the mailboxes of sessions, and deliver what they missed. One that has expired isn't here then."""
        # all that was in the log when their records were read, whatever partition it is in
        await self._cluster.current()
        joining: list[tuple[Mailbox, Positions]] = []
        try:
            for record in coming:
                since = read_positions(record.positions)
                mailbox = await self._home.rebuild(record, since)
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
        return {mailbox.client_id: mailbox for mailbox, _ in joining}

    def _settle(self, each: Arrived) -> None:
        known, record, mailbox = each.arrival, each.record, each.mailbox
        self._waiting.pop(known.client_id, None)
        if known.replaced:
            if mailbox is not None:
                self._home.release(mailbox, each.epoch)
            elif record is not None:
                self._home.pass_on(let_go(record, self._gateway, each.epoch))
        elif known.session is not None:
            assert known.receipt is not None
            follow(self._home.arrived(known.session, mailbox, each.epoch), known.receipt)
        elif mailbox is not None:
            self._home.settled(mailbox, each.epoch)
        elif record is not None and (record.expiry or record.will is not None):
            self._home.lapsed(record, each.epoch)
        else:
            self._home.empty(known.client_id, each.epoch)

    async def _checkpoint(self, gateway: str) -> tuple[Positions, dict[str, Positions]]:
        """(positions, those of share groups that are behind them)."""
        key = CHECKPOINT_KEY + gateway
        # an older one than the newest would do no harm, but that what was finished before the newest is forgotten
        await self._cluster.current()
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


def let_go(record: StoredSession, gateway: str, epoch: int) -> StoredSession:
    """The record with which a gateway passes a session on as it got it."""
    return replace(record, gateway=gateway, claim=epoch, released=True, taker="", taken=0, base="")


def left_by(record: StoredSession, since: Positions) -> StoredSession:
    """The record with which a gateway lets go of what an earlier run of it had. `since`: where that had delivered."""
    if not record.released:
        record = replace(record, positions=positions_list(since))
    return let_go(record, record.keeper, record.taken or record.claim)


def positions_list(positions: Mapping[TopicPartition, int]) -> tuple[list[Any], ...]:
    return tuple([key.topic, key.partition, at] for key, at in positions.items())
